"""Damaging stores on purpose, and telling a silent wrong reading from a named error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np

from tests.support.scans import MadeScan, make_scan
from verse_data.errors import IntegrityError
from verse_data.spine.geometry import Box
from verse_data.volumes.reader import ScanReader, close_all
from verse_data.volumes.recipe import Recipe
from verse_data.volumes.store import ensure_store, load_manifest, verify_store
from verse_data.volumes.view import open_xarray

FOR_VIEWERS = ("labels/", "coarse/")
"""Beginnings of the keys that neither the reader nor the xarray view opens."""


@dataclass(frozen=True)
class Sound:
    """A sound store, the scan it was made from, and the axes of that scan."""

    store: Path
    scan: MadeScan
    codes: str = "PIR"

    def read(self) -> IntegrityError | bool:
        """Read everything through our reader: the error, or whether it is the truth."""
        close_all()
        try:
            reader = ScanReader(self.store)
            found = reader.read(Box.whole(reader.grid(self.codes)[0]), orientation=self.codes)
        except IntegrityError as error:
            return error
        return all(map(np.array_equal, found, (self.scan.image, self.scan.mask)))

    def view(self) -> IntegrityError | bool:
        """Do the same through ``open_xarray``."""
        close_all()
        try:
            found = open_xarray(self.store, orientation=self.codes)
            image, label = found["image"].values, found["label"].values
        except IntegrityError as error:
            return error
        return np.array_equal(image, self.scan.image) and np.array_equal(label, self.scan.mask)

    def verify(self) -> list[IntegrityError]:
        """Do what ``verse-data cache verify`` does."""
        return verify_store(self.store)

    @property
    def files(self) -> list[str]:
        """Every file of the store."""
        return sorted(
            path.relative_to(self.store).as_posix()
            for path in self.store.rglob("*")
            if path.is_file()
        )


def sound_store(folder: Path, *, seed: int = 0, codec: str = "lz4", **options: object) -> Sound:
    """Build a small store below `folder`."""
    scan = make_scan(folder / f"scan{seed}", seed=seed, **options)  # type: ignore[arg-type]
    recipe = Recipe.model_validate({"codec": codec})
    return Sound(ensure_store(scan.source, recipe, folder / "stores"), scan)


@contextmanager
def replaced(path: Path, content: bytes) -> Iterator[None]:
    """Give a file another content for a while, in place: other names of it change as well."""
    before = path.read_bytes()
    close_all()
    path.write_bytes(content)
    try:
        yield
    finally:
        close_all()
        path.write_bytes(before)


class Shard:
    """The chunks of one array, to be moved about; puts a right checksum on the index."""

    def __init__(self, store: Path, name: str) -> None:
        self.array = load_manifest(store).arrays[name]  # type: ignore[index]
        self.path = store / self.array.shard
        content = self.path.read_bytes()
        count = int(np.prod(self.array.grid))
        self.index = np.frombuffer(content[-16 * count - 4 : -4], "<u8").reshape(count, 2).copy()
        self.chunks = [content[offset : offset + size] for offset, size in self.index.tolist()]
        self.several = [n for n, chunk in enumerate(self.chunks) if len(set(self.chunks)) > 1]

    def content(self) -> bytes:
        """Return the shard with the chunks as they are now, one behind the other."""
        at = 0
        for number, chunk in enumerate(self.chunks):
            if chunk:
                self.index[number] = at, len(chunk)
                at += len(chunk)
            else:
                self.index[number] = 2**64 - 1
        index = self.index.tobytes()
        checksum = int(google_crc32c.value(index)).to_bytes(4, "little")
        return b"".join([*self.chunks, index, checksum])
