"""Contents reach the store of a user who is not root, whom modes bind."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.trees import write_tree

import verse_data as vd
from verse_data.errors import PermissionDenied
from verse_data.files import digest_file
from verse_data.records.lock import LockedFile
from verse_data.releases.annex import ObjectStore

NOBODY = 65534


@pytest.fixture
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the ordinary user, below folders that everybody may enter."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user; the other tests run as an ordinary one")
    folder = tmp_path_factory.mktemp("ordinary")
    for parent in (folder, *folder.parents):
        if parent.name.startswith(("pytest-", "popen-", "ordinary")):
            parent.chmod(0o755)
    os.chown(folder, NOBODY, NOBODY)
    return folder


def as_nobody(act: Callable[[], None], folder: Path) -> str:
    """Run `act` in a process of the ordinary user, at home in `folder`; return its traceback."""
    told = folder / "told.txt"
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.chdir(folder)
            os.environ |= {"HOME": str(folder), "VERSE_DATA_HOME": str(folder / "home")}
            act()
            told.write_text("")
        except BaseException:  # noqa: BLE001 - told to the parent
            told.write_text(traceback.format_exc())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return told.read_text()


def bring_one_content(folder: Path, *, copies: int) -> tuple[ObjectStore, LockedFile]:
    """Let eight threads put the same content into one store, `copies` times at once."""
    folder.mkdir()
    content = folder.name.encode()
    (folder / "content").write_bytes(content)
    found = digest_file(folder / "content")
    file = LockedFile(path="a.json", size=found.size, sha256=found.sha256)
    store = ObjectStore(folder / "dataset")

    def bring(number: int) -> None:
        with store.staging(f"copy-{number}") as staged:
            staged.write_bytes(content)
            store.ingest(file, staged)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(bring, range(copies)))
    return store, file


def test_threads_that_bring_one_content_do_not_hinder_each_other(own_folder: Path) -> None:
    """Sixteen copies of one content, brought at once by an ordinary user, give it once."""

    def act() -> None:
        for number in range(20):
            store, file = bring_one_content(own_folder / f"round-{number}", copies=16)
            assert [path.name for path in store.object_path(file).parent.iterdir()] == [
                file.annex_key
            ]

    assert as_nobody(act, own_folder) == ""


def test_the_drill_sees_that_modes_bind(own_folder: Path) -> None:
    """Control: in the ordinary user's process, a folder without write permission refuses a file."""

    def act() -> None:
        (own_folder / "closed").mkdir(mode=0o555)
        (own_folder / "closed" / "file").write_text("")

    assert "PermissionError" in as_nobody(act, own_folder)


def test_one_content_is_kept_with_git_annexs_modes(tmp_path: Path) -> None:
    """The file is 0444 in a folder 0555, also when many bring it at once."""
    store, file = bring_one_content(tmp_path / "content", copies=16)
    target = store.object_path(file)

    assert target.stat().st_mode & 0o777 == 0o444
    assert target.parent.stat().st_mode & 0o777 == 0o555
    assert list(store.incoming.iterdir()) == []


def test_what_may_not_be_read_is_named_before_anything_is_written(own_folder: Path) -> None:
    """Files and folders of a tree that this user may not read are all named in one error."""

    def act() -> None:
        tree = write_tree(own_folder / "tree")
        raw = tree / "dataset-phantomtraining" / "rawdata"
        closed = [raw / "sub-verse900" / "sub-verse900_ct.nii.gz", raw / "sub-verse901"]
        for path in closed:
            path.chmod(0)
        (raw / "sub-verse902").chmod(0o444)  # its names can be listed, and nothing else
        try:
            with pytest.raises(PermissionDenied) as caught:
                vd.lock_tree("lab", tree, check=False)
        finally:
            for path in (*closed, raw / "sub-verse902"):
                path.chmod(0o755)
        told = str(caught.value)
        assert all(f"{path}: Permission denied" in told for path in closed)
        assert "sub-verse902_ct.nii.gz: Permission denied" in told
        assert "VERSE_DATA_HOME" not in told
        assert not (own_folder / "home").exists()

    assert as_nobody(act, own_folder) == ""
