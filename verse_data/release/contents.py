"""What the store of one scan is made from, and what is said of a release wherever it goes."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from verse_data.errors import ContentMissing, DiskFull, UsageError, counted, did_you_mean
from verse_data.records.catalog import CatalogEntry, ExpectedSeries
from verse_data.records.lock import LockedFile
from verse_data.records.names import Role
from verse_data.records.source_file import SourceFile
from verse_data.releases.commands import command

if TYPE_CHECKING:
    from verse_data.releases.dataset import ReleaseDataset
    from verse_data.tables.index import ScanFiles
    from verse_data.volumes.recipe import CentroidPoint, Recipe, ScanSource, StoreKeys

_HEADROOM: Final = 1.05
_COARSE_LEVELS: Final = 1.2
_INFLATED: Final = 4.0
"""What a store takes, as a multiple of the compressed volumes that it is made of."""

VOLUME_ROLES: tuple[Role, ...] = ("ct", "mask", "centroids")
"""What a store is made from."""

TABLE_ROLES: tuple[Role, ...] = ("grading", "centroids", "ct_json", "mask")
"""What the tables are made from; of a CT they say no more than its grid, which its mask has too."""


def table_roles(*, graded: bool) -> tuple[Role, ...]:
    """Return the roles of the files that tables are made of, with those of the grades or without."""
    return TABLE_ROLES if graded else tuple(role for role in TABLE_ROLES if role != "grading")


def needs_ct(scan: ScanFiles) -> bool:
    """Whether nothing but the CT of a scan tells where its centroids lie."""
    return "ct" in scan.files and "centroids" in scan.files and "mask" not in scan.files


def published_scans(name: str) -> dict[str, ExpectedSeries]:
    """Return the series that the catalog expects of a release, by scan id."""
    from verse_data.releases import catalog

    if name not in catalog.names():
        return {}
    return {series.scan_id: series for series in catalog.load_catalog(name).expected}


def known_scans(wanted: Iterable[str], known: Iterable[str], dataset: ReleaseDataset) -> list[str]:
    """Return `wanted` as a list, if all of them are `known` scans of a release.

    Raises
    ------
    UsageError
        If one is not.
    """
    if isinstance(wanted, str):
        raise UsageError(f"{wanted!r} is one text, and a list of scan ids is meant: [{wanted!r}].")
    try:
        ids, here = list(dict.fromkeys(wanted)), list(known)
    except TypeError:
        raise UsageError(f"{wanted!r} is no list of scan ids such as ['verse004'].") from None
    unknown = sorted(map(repr, set(ids) - set(here)))
    lost = [name for name in ids if name not in here and name in published_scans(dataset.name)]
    if lost:
        raise UsageError(
            f"{lost[0]} was published in {dataset.name}, and the lock here lists no file of it: OSF had "
            f"lost it when the list was made. See all that is missing: {command(dataset, 'findings')}"
        )
    if unknown:
        raise UsageError(
            f"Release {dataset.name} has no scan {unknown[0]} ({counted(len(unknown), 'unknown id')})."
            f"{did_you_mean(unknown[0][1:-1], here)} Ids look like "
            f"{here[0] if here else 'verse004'!r}; list them: {command(dataset, 'table', 'scans')}"
        )
    return ids


def known_roles(wanted: Iterable[Role] | None) -> tuple[Role, ...] | None:
    """Return `wanted` as a tuple, or None for all roles; one text is no list of them.

    Raises
    ------
    UsageError
        If one of them is no role.
    """
    known = get_args(Role)
    if wanted is None:
        return None
    roles = tuple(wanted) if isinstance(wanted, Iterable) and not isinstance(wanted, str) else None
    if roles is None or not all(role in known for role in roles):
        raise UsageError(f"roles={wanted!r}: give a list of some of {', '.join(known)}.")
    return roles


def attribution(name: str, entry: CatalogEntry | None) -> dict[str, str]:
    """Return release, licence and attribution, as they are said of every scan that is opened."""
    said = entry.attribution if entry else f"Release {name!r}, locked by its user."
    return {
        "release": name,
        "licence": entry.licence if entry else "unknown",
        "attribution": said,
    }


def scan_source(
    dataset: ReleaseDataset,
    scan: ScanFiles,
    *,
    licence: str,
    version: str | None = None,
) -> ScanSource:
    """Return what the store of `scan` is made from; `version` is what commands in errors name.

    Raises
    ------
    ContentMissing
        If its CT is not in the lock, or one of its files is not on this machine.
    ContentCorrupt
        If its centroid file is not the locked one; its volumes are hashed when they are converted.
    """
    from verse_data.volumes.recipe import ScanSource

    if "ct" not in scan.files:
        raise ContentMissing(
            f"{dataset.name}: the lock lists no CT of scan {scan.scan_id}, so it cannot be served. "
            f"See what is missing upstream: {command(dataset, 'findings')}"
        )
    files = {
        role: dataset.source(scan.files[role], version=version)
        for role in VOLUME_ROLES
        if role in scan.files
    }
    points, axes = _centroids(files.get("centroids"))
    return ScanSource(
        scan_id=scan.scan_id,
        image=files["ct"],
        mask=files.get("mask"),
        centroids=points,
        centroids_key=files["centroids"].key if "centroids" in files else None,
        centroids_axes=axes,
        licence=licence,
    )


def store_keys(scan: ScanFiles, *, licence: str) -> StoreKeys:
    """Return what the name of a scan's store follows from; its CT must be in the lock."""
    from verse_data.volumes.recipe import StoreKeys

    keys = {role: file.annex_key for role, file in scan.files.items()}
    return StoreKeys(
        scan_id=scan.scan_id,
        image=keys["ct"],
        mask=keys.get("mask"),
        centroids=keys.get("centroids"),
        licence=licence,
    )


def _centroids(file: SourceFile | None) -> tuple[tuple[CentroidPoint, ...], str | None]:
    """Return the centroids that are voxel indices of a grid, and its axes; converting compares them.

    Files without a direction (MICCAI's 1 mm frame) are left out here, those with one that is not
    the CT's are left out of the store; the table of findings names both.
    """
    from verse_data.records.centroids import parse_centroids
    from verse_data.volumes.recipe import CentroidPoint

    said = parse_centroids(file.read(), name=file.name) if file else None
    if said is None or said.direction is None:
        return (), None
    return tuple(CentroidPoint(point.label, point.point) for point in said.points), said.direction


def store_bytes(files: Iterable[tuple[Role, LockedFile]], codec: str) -> int:
    """Estimate the bytes of the stores of volumes: about those of the volumes, or of what they inflate to."""
    compressed = sum(file.size for role, file in files if role != "centroids")
    return int(compressed * (_INFLATED if codec == "none" else _COARSE_LEVELS))


def require_room(needed: Mapping[Path, int], *, what: str) -> None:
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
    """Return the recipe that a user's options mean; one spacing stands for all three axes.

    Raises
    ------
    UsageError
        If an option is not one of a recipe.
    """
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
