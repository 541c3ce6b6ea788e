"""The stores of a version's scans: what they are made from, which are finished, and whether there is room."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
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
    did_you_mean,
    warn,
)
from verse_data.progress import Progress
from verse_data.records.names import Role
from verse_data.records.source_file import SourceFile
from verse_data.releases.history import command, unless_newest
from verse_data.releases.repository import Repository
from verse_data.tables.index import ScanFiles, read_centroids, scan_file

if TYPE_CHECKING:
    from verse_data.volumes.recipe import CentroidPoint, Recipe, ScanSource, StoreKeys
    from verse_data.volumes.remote import RemoteStores

_HEADROOM: Final = 1.05
_COARSE_LEVELS: Final = 1.2
_INFLATED: Final = 4.0
"""What a store takes, as a multiple of the compressed volumes that it is made of."""

VOLUME_ROLES: tuple[Role, ...] = ("ct", "mask", "centroids")
"""What a store is made from."""


@dataclass(frozen=True)
class Stores:
    """Where the stores of one version are, and what they are made from."""

    files: Repository
    version: str
    config: Config
    licence: str

    def source(self, scan: ScanFiles) -> ScanSource:
        """Return what the store of `scan` is made from; its files must be here."""
        from verse_data.volumes.recipe import ScanSource

        if "ct" not in scan.files:
            raise ContentMissing(
                f"{self.files.name}: the lock lists no CT of scan {scan.scan_id}, so it cannot be served. "
                f"See what is missing upstream: {command(self.files, 'findings')}"
            )
        version = unless_newest(self.files, self.version)
        content = partial(self.files.source, version=version)
        files = {role: file for role in VOLUME_ROLES if (file := scan_file(scan, role, content))}
        points, axes = _centroids(files.get("centroids"))
        return ScanSource(
            scan_id=scan.scan_id,
            image=files["ct"],
            mask=files.get("mask"),
            centroids=points,
            centroids_key=files["centroids"].key if "centroids" in files else None,
            centroids_axes=axes,
            licence=self.licence,
        )

    def _keys(self, scan: ScanFiles) -> StoreKeys:
        """Return what the name of a scan's store follows from; its CT must be in the lock."""
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
        """Return the stores that machines share, if there are some."""
        from verse_data.volumes.remote import RemoteStores

        url, stores = self.config.stores_url, self.config.stores
        return RemoteStores(url, stores, offline=self.config.offline) if url else None

    def find(self, scans: Iterable[ScanFiles], recipe: Recipe) -> tuple[dict[str, Path], str]:
        """Return the stores that are finished, and why a shared one cannot be had, if so."""
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
                    raise  # it is this machine's own
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
        """Return the store of each of `scans`; a finished one needs no sound files here."""
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
        """Refuse what would not fit on the disk, files that are missing and stores together."""
        files = [
            (role, scan.files[role])
            for scan in scans
            for role in VOLUME_ROLES
            if role in scan.files
        ]
        compressed = sum(file.size for role, file in files if role != "centroids")
        needed = {
            self.files.path: sum(f.size for _, f in files if not self.files.has(f)),
            self.config.stores: int(
                compressed * (_INFLATED if codec == "none" else _COARSE_LEVELS)
            ),
        }
        _require_room(needed, what=f"{self.files.name} {self.version}")


@contextmanager
def no_shared_store(lost: str) -> Iterator[None]:
    """Add to an error of files that cannot be had why a shared store does not stand in for them."""
    try:
        yield
    except (IntegrityError, NetworkError) as error:
        if not lost:
            raise
        raise type(error)(f"{error}\n{lost}") from None


def _centroids(file: SourceFile | None) -> tuple[tuple[CentroidPoint, ...], str | None]:
    """Return the centroids that are voxel indices of a grid, and its axes; converting compares them.

    Files without a direction (MICCAI's 1 mm frame) are left out here, those with one that is not
    the CT's are left out of the store; the table of findings names both.
    """
    from verse_data.volumes.recipe import CentroidPoint

    said = read_centroids(file) if file else None
    if said is None or said.direction is None:
        return (), None
    return tuple(CentroidPoint(point.label, point.point) for point in said.points), said.direction


def _require_room(needed: Mapping[Path, int], *, what: str) -> None:
    """Raise DiskFull unless the bytes that are needed in each folder fit there, on one disk together."""
    by_disk: dict[int, dict[Path, int]] = defaultdict(dict)
    for folder, size in needed.items():
        by_disk[_existing(folder).stat().st_dev][folder] = size
    for folders in by_disk.values():
        free, total = shutil.disk_usage(_existing(next(iter(folders)))).free, sum(folders.values())
        if total * _HEADROOM > free:
            parts = " and ".join(
                f"{size:,} in {folder}" for folder, size in folders.items() if size
            )
            raise DiskFull(
                f"{what}: about {total:,} bytes are needed ({parts}), for files and the stores made "
                f"of them, and {free:,} are free. None of it was fetched. Free some room; or move the "
                f"folders releases and stores to a larger disk, and set VERSE_DATA_HOME to the folder "
                f"that they are in then. Fewer scans need less: where=, or another split."
            )


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def make_recipe(spacing: float | Sequence[float] | None, interpolation: str, codec: str) -> Recipe:
    """Return the recipe that a user's options mean; one spacing stands for all three axes."""
    from verse_data.volumes.recipe import Recipe

    chosen = {"interpolation": interpolation, "codec": codec}
    for name, word in chosen.items():
        known = get_args(Recipe.model_fields[name].annotation)
        if word not in known:
            raise UsageError(
                f"{name}={word!r} is none of {', '.join(known)}.{did_you_mean(word, known)}"
            )
    return Recipe.model_validate({**chosen, "spacing": _sizes(spacing)})


def _sizes(spacing: Any) -> tuple[float, ...] | None:
    """Return the voxel sizes that `spacing` means."""
    from verse_data.volumes.recipe import LARGEST_MM, SMALLEST_MM

    if spacing is None:
        return None
    one = isinstance(spacing, Real) and not isinstance(spacing, bool)
    given = [spacing] * 3 if one else spacing
    try:
        sizes = () if isinstance(given, str) else tuple(float(mm) for mm in given)
    except (TypeError, ValueError):
        sizes = ()
    if len(sizes) != 3 or not all(SMALLEST_MM <= mm <= LARGEST_MM for mm in sizes):
        raise UsageError(
            f"spacing={spacing!r}: give one voxel size in mm for all axes, such as 1, or three, such "
            f"as (1, 1, 3), each from {SMALLEST_MM:g} to {LARGEST_MM:g}."
        )
    return sizes
