"""The stores of a version's scans: their sources, which are finished, and the disk space they need."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from verse_data.config import Config
from verse_data.errors import (
    FILE_FAULTS,
    ContentMissing,
    DiskFull,
    IntegrityError,
    NetworkError,
    Offline,
    UsageError,
    VerseDataError,
    counted,
    one_of,
    warn,
)
from verse_data.files import nearest_existing
from verse_data.progress import Progress
from verse_data.records.lock import LockedFile
from verse_data.records.names import Role
from verse_data.records.source_file import SourceFile
from verse_data.releases.history import command, unless_newest
from verse_data.releases.repository import Repository
from verse_data.tables.index import ScanFiles, read_centroids, scan_file
from verse_data.tables.overlays import relabelling

if TYPE_CHECKING:
    from verse_data.spine.geometry import Grid
    from verse_data.volumes.reader import ScanReader
    from verse_data.volumes.recipe import Recipe, ScanSource, StoreKeys
    from verse_data.volumes.remote import RemoteStores

_HEADROOM: Final = 1.05
_COARSE_LEVELS: Final = 1.2
_INFLATED: Final = 4.0
"""Size of a store, as a multiple of the compressed volumes that it is made from."""

VOLUME_ROLES: Final[tuple[Role, ...]] = ("ct", "mask", "centroids")
"""Files that a store is made from."""


@dataclass(frozen=True)
class Stores:
    """Where the stores of one version are, and what they are made from."""

    files: Repository
    version: str
    config: Config
    licence: str

    def source_file(self, file: LockedFile) -> SourceFile:
        """Return the local copy of a file of this version."""
        return self.files.source(file, version=unless_newest(self.files, self.version))

    def source(self, scan: ScanFiles) -> ScanSource:
        """Return the sources of the store of `scan`; its files must be here."""
        from verse_data.volumes.recipe import ScanSource

        if "ct" not in scan.files:
            raise ContentMissing(
                f"{self.files.name}: the lock lists no CT of scan {scan.scan_id}, so it cannot be served. "
                f"See what is missing upstream: {command(self.files, 'findings')}"
            )
        found = ((role, scan_file(scan, role, self.source_file)) for role in VOLUME_ROLES)
        files = {role: file for role, file in found if file}
        file = files.get("centroids")
        return ScanSource(
            scan_id=scan.scan_id,
            image=files["ct"],
            mask=files.get("mask"),
            centroids=read_centroids(file) if file else None,
            centroids_key=file.key if file else None,
            licence=self.licence,
        )

    def reader(self, scan: ScanFiles, store: Path) -> ScanReader:
        """Return the reader of a scan's store, whose labels are those that overlays give."""
        from verse_data.volumes.reader import ScanReader

        reader = ScanReader(store)
        if not scan.relabelled:
            return reader
        new = relabelling(scan, reader.labels, reader.centroids)
        return ScanReader(store, relabel=new)

    def grid(self, scan: ScanFiles) -> Grid:
        """Return the grid of a scan in its file's own axes: of its CT, else its store or mask."""
        import numpy as np

        from verse_data.spine.geometry import Grid
        from verse_data.volumes.mask_facts import image_facts, mask_facts
        from verse_data.volumes.reader import ScanReader
        from verse_data.volumes.recipe import Recipe

        here = {role for role, file in scan.files.items() if self.files.has(file)}
        if "ct" in here and (ct := scan_file(scan, "ct", self.source_file)):
            return Grid.of(image_facts(ct, derived=self.config.derived))
        if "ct" in scan.files and (found := self.find([scan], Recipe())[0]):
            source = ScanReader(found[scan.scan_id]).attributes["source"]
            i, j, k = source["shape"]
            return Grid((i, j, k), np.array(source["affine"]))
        if "mask" in here and (mask := scan_file(scan, "mask", self.source_file)):
            return Grid.of(mask_facts(mask, derived=self.config.derived))
        get = command(self.files, "get", "--scan", scan.scan_id, "--role", "ct")
        raise ContentMissing(
            f"{self.files.name}: the grid of {scan.scan_id} is not known, because its CT is not on this "
            f"machine, nor its store or mask. Get it: {get}"
        )

    def _keys(self, scan: ScanFiles) -> StoreKeys:
        """Return the keys that name a scan's store; its CT must be in the lock."""
        from verse_data.volumes.recipe import StoreKeys

        keys = {role: file.annex_key for role, file in scan.files.items()}
        return StoreKeys(
            scan_id=scan.scan_id,
            image=keys["ct"],
            mask=keys.get("mask"),
            centroids=keys.get("centroids"),
            licence=self.licence,
        )

    def _shared(self) -> RemoteStores | None:
        """Return the stores that machines share, if configured."""
        from verse_data.volumes.remote import RemoteStores

        url, stores = self.config.stores_url, self.config.stores
        return RemoteStores(url, stores, offline=self.config.offline) if url else None

    def find(self, scans: Iterable[ScanFiles], recipe: Recipe) -> tuple[dict[str, Path], str]:
        """Return the finished stores, and why a shared one is not available, if so."""
        from verse_data.volumes.recipe import fingerprint
        from verse_data.volumes.store import find_store, store_path

        shared = self._shared()
        found: dict[str, Path] = {}
        damaged, lost = [], ""
        for scan in scans:
            name = fingerprint(self._keys(scan), recipe)
            try:
                store = shared.find(name) if shared else find_store(name, self.config.stores)
            except IntegrityError as error:
                if store_path(self.config.stores, name).is_dir():
                    raise  # the damaged store is this machine's own
                damaged.append(str(error))
            except Offline as error:
                lost = str(error)
            else:
                if store:
                    found[scan.scan_id] = store
        if damaged:
            what = counted(len(damaged), "shared store is", "shared stores are")
            lost = f"{what} damaged. {damaged[0]}"
            warn(UserWarning(lost))
        return found, lost

    def build(
        self,
        scans: Sequence[ScanFiles],
        recipe: Recipe,
        *,
        workers: int,
        client: Any = None,
        progress: Progress,
    ) -> dict[str, Path]:
        """Return the store of each of `scans`; a finished one needs no source files."""
        from verse_data.volumes.build import build_stores

        sources: list[ScanSource] = []
        faults: dict[str, VerseDataError] = {}
        for scan in scans:
            try:
                sources.append(self.source(scan))
            except FILE_FAULTS as error:
                faults[scan.scan_id] = error
        without = [scan for scan in scans if scan.scan_id in faults and "ct" in scan.files]
        finished, lost = self.find(without, recipe)
        for name, fault in faults.items():
            if name not in finished:
                with no_shared_store(lost):
                    raise fault
        return finished | build_stores(
            sources,
            recipe,
            self.config.stores,
            workers=workers,
            client=client,
            remote=self._shared(),
            progress=progress,
        )

    def require_room(self, scans: Iterable[ScanFiles], codec: str) -> None:
        """Raise `DiskFull` unless missing files and the stores made of them would fit on the disk."""
        files = [scan.files[role] for scan in scans for role in VOLUME_ROLES if role in scan.files]
        inflated = {".gz": _INFLATED} if codec == "none" else {}
        sizes = {
            self.files.path: sum(file.size for file in files if not self.files.has(file)),
            self.config.stores: int(
                sum(f.size * inflated.get(f.path[-3:], _COARSE_LEVELS) for f in files)
            ),
        }
        devices = {folder: nearest_existing(folder).stat().st_dev for folder in sizes}
        for folder, device in devices.items():
            needed = sum(sizes[other] for other in sizes if devices[other] == device)
            free = shutil.disk_usage(nearest_existing(folder)).free
            if needed * _HEADROOM > free:
                raise DiskFull(
                    f"{self.files.name} {self.version}: about {needed:,} bytes are needed on the disk of "
                    f"{folder}, for files and the stores made of them, and {free:,} are free. None of it "
                    f"was fetched. Free some room; or move releases and stores to a larger disk, and set "
                    f"VERSE_DATA_HOME to their new folder. Fewer scans need less: "
                    f"where=, or another split."
                )


@contextmanager
def no_shared_store(lost: str) -> Iterator[None]:
    """Add to an error of unavailable files why no shared store can be used instead."""
    try:
        yield
    except (IntegrityError, NetworkError) as error:
        if not lost:
            raise
        raise type(error)(f"{error}\n{lost}") from None


def make_recipe(spacing: Any, interpolation: str, codec: str) -> Recipe:
    """Return the recipe for a user's options; a single spacing applies to all three axes."""
    from verse_data.volumes.recipe import LARGEST_MM, SMALLEST_MM, Recipe

    chosen = {"interpolation": interpolation, "codec": codec}
    for name, value in chosen.items():
        one_of(name, value, get_args(Recipe.model_fields[name].annotation))
    sizes = (spacing,) * 3 if isinstance(spacing, Real) else spacing
    if isinstance(spacing, (bool, str)):
        sizes = ()  # which float() would accept
    try:
        sizes = None if sizes is None else tuple(map(float, sizes))
        return Recipe.model_validate({**chosen, "spacing": sizes})
    except (TypeError, ValueError):  # Pydantic's errors are ValueErrors
        raise UsageError(
            f"spacing={spacing!r}: give one voxel size in mm for all axes, such as 1, or three, such "
            f"as (1, 1, 3), each from {SMALLEST_MM:g} to {LARGEST_MM:g}."
        ) from None
