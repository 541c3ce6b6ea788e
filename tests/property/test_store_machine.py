"""A cache under random use and random damage, held against a model of what it should say."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.damage import FOR_VIEWERS
from tests.support.kills import is_true
from tests.support.left import leave_temporary
from tests.support.scans import make_scan
from verse_data.errors import IntegrityError
from verse_data.files import discard
from verse_data.volumes.cache import list_stores, prune, verify_stores
from verse_data.volumes.layout import MANIFEST_KEY
from verse_data.volumes.reader import close_all
from verse_data.volumes.recipe import Recipe, fingerprint
from verse_data.volumes.store import ensure_store, load_manifest, store_path

SCANS, CODECS = st.integers(0, 1), st.sampled_from(["lz4", "none"])


class Cache(RuleBasedStateMachine):
    """Stores are built, read, damaged, repaired, pruned; the model knows which are sound."""

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp(prefix="verse-machine-"))
        self.root = self.folder / "stores"
        self.scans = [
            make_scan(self.folder / str(n), scan_id=f"verse90{n}", seed=n, shape=(34, 20, 33))
            for n in range(2)
        ]
        self.model: dict[Path, bool] = {}

    def teardown(self):
        close_all()
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, number, codec):
        """Return where a store lies."""
        return store_path(
            self.root, fingerprint(self.scans[number].source.keys, Recipe(codec=codec))
        )

    @rule(number=SCANS, codec=CODECS)
    def build_and_read(self, number, codec):
        """What is handed out reads as the truth, or a named error is raised."""
        path = self.path(number, codec)
        sound = self.model.get(path, True)
        try:
            store = ensure_store(self.scans[number].source, Recipe(codec=codec), self.root)
            read = is_true(store, self.scans[number])
        except IntegrityError:
            assert not sound
            return
        assert store == path
        assert read
        assert sound
        self.model[path] = True

    @precondition(lambda self: any(self.model.values()))
    @rule(data=st.data())
    def damage(self, data):
        """Any byte of any file that is read changes, or the file is cut or goes."""
        path = data.draw(st.sampled_from(sorted(p for p, sound in self.model.items() if sound)))
        keys = sorted((*load_manifest(path).keys, MANIFEST_KEY))
        files = [path / key for key in keys if not key.startswith(FOR_VIEWERS)]
        file = data.draw(st.sampled_from(files))
        content = bytearray(file.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        close_all()
        how = data.draw(st.sampled_from(["flip", "cut", "remove"]))
        if how == "remove":
            file.unlink()
        else:
            content[place] ^= 1
            file.write_bytes(content if how == "flip" else content[:place])
        self.model[path] = False

    @rule()
    def repair(self):
        """Verification finds exactly what is damaged, and repair removes exactly that."""
        close_all()
        found = verify_stores(self.root, repair=True)
        assert set(found) == {path for path, sound in self.model.items() if not sound}
        for path in found:
            del self.model[path]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data):
        """A store may go at any time."""
        path = data.draw(st.sampled_from(sorted(self.model)))
        close_all()
        discard(path)
        del self.model[path]

    @rule(number=SCANS)
    def leave_a_leftover(self, number):
        """A process that died leaves a temporary folder."""
        folder = self.path(number, "lz4").parent
        leave_temporary(folder)

    @rule()
    def prune_nothing(self):
        """Pruning without a wish removes no store whose metadata can be read."""
        close_all()
        before = {store.path for store in list_stores(self.root) if store.error is None}
        gone = prune(self.root)
        assert not before & set(gone.stores)
        for path in gone.stores:
            assert not self.model.pop(path)

    @invariant()
    def the_list_is_the_model(self):
        """Whatever happened, the stores that are listed are those of the model."""
        if hasattr(self, "model"):
            assert {store.path for store in list_stores(self.root)} == set(self.model)


TestCache = Cache.TestCase
TestCache.settings = settings(
    max_examples=12,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
