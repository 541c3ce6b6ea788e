"""Where the grades of a release come from: its workbook, and what is said where that is not here."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from verse_data.errors import ContentMissing
from verse_data.releases.commands import command

if TYPE_CHECKING:
    from verse_data.release.locked import LockedRelease

_E1: Final = (
    "supplement E1 of Löffler et al. 2020, Radiology: Artificial Intelligence, "
    "https://doi.org/10.1148/ryai.2020190138"
)
_HOLDS: Final = "fracture grades, foreign material, bone density, ages"


def is_here(release: LockedRelease) -> bool:
    """Whether the grading workbook of a release is on this machine."""
    return any(release.files.has(file) for file in release.index.grading)


def can_be_fetched(release: LockedRelease) -> bool:
    """Whether an address, or a sibling in a folder, may give the workbook."""
    listed = release.index.grading
    return bool(listed) and (
        bool(release.files.siblings()) or any(release.files.addresses(file) for file in listed)
    )


def absent(release: LockedRelease) -> str:
    """Return what the workbook is that is not here, where it is found, and what to type then."""
    supplements = release.catalog.supplements if release.catalog else ()
    published = {extra.sha256: extra.path for extra in supplements}
    for file in release.index.grading:
        told = f"The grading workbook {file.path} ({_HOLDS}) is not on this machine"
        if can_be_fetched(release):
            return f"{told}. Fetch it: {_typed(release, 'get', '--role', 'grading')}"
        adopt = _typed(release, "adopt", file.path.rsplit("/", 1)[-1])
        if file.sha256 in published:
            return f"{told}. It is {_E1}; OSF does not have it. Download it there, then: {adopt}"
        return f"{told}. Bring it from where the release was made: {adopt}"
    told = f"{release.name} {release.version} lists no grading workbook ({_HOLDS})"
    if later := _later(release):
        newest = later == release.files.resolve()
        way = "leave version= (--version) out, or open the release again"
        return f"{told}. {later} lists one: {way if newest else f'open version={later!r}'}"
    if published:
        adopt = command(release.files, "adopt", *map(shlex.quote, published.values()))
        return f"{told}. It is {_E1}. Download it there, then: {adopt}"
    adopt = command(release.files, "adopt", "WORKBOOK.xlsx")
    return f"{told}. One has the sheet and headings of {_E1}. If you have one: {adopt}"


def _later(release: LockedRelease) -> str:
    """Return the newest of the later versions that lists a workbook; empty if none does."""
    from verse_data.tables.index import index_scans

    versions = release.files.versions()
    later = versions[versions.index(release.version) + 1 :]
    listing = (name for name in reversed(later) if index_scans(release.files.lock(name)).grading)
    return next(listing, "")


def _typed(release: LockedRelease, verb: str, *words: str) -> str:
    return command(
        release.files, verb, *map(shlex.quote, words), version=release.version_for_commands
    )


def of_workbook(columns: Iterable[str]) -> list[str]:
    """Return those of `columns` that the grading workbook alone fills."""
    from verse_data.tables.columns import workbook_columns

    return [name for name in columns if name in workbook_columns()]


def require(release: LockedRelease, columns: Sequence[str], *, asked: str) -> None:
    """Raise `ContentMissing` if one of `columns` comes from the workbook, and that is not here.

    Without it every such cell is missing, and whatever is `asked` of it would come back empty.
    """
    blind = of_workbook(columns)
    if blind and not is_here(release):
        raise ContentMissing(
            f"{asked} needs {' and '.join(blind)}, which only the grading workbook holds. "
            f"{absent(release)}"
        )


def require_obtainable(release: LockedRelease, *, asked: str) -> None:
    """Raise `ContentMissing` if the version lists a workbook that is neither here nor to be had."""
    if release.index.grading and not (is_here(release) or can_be_fetched(release)):
        raise ContentMissing(f"{asked} needs the grades of the vertebrae. {absent(release)}")


def require_listed(
    releases: Sequence[LockedRelease], unit: str, options: Mapping[str, Any]
) -> None:
    """Raise `ContentMissing` if none lists a workbook, and nothing is served without its grades."""
    if any(release.index.grading for release in releases):
        return
    if unit == "vertebra" and "not_assessed" not in options.get("include", ("graded",)):
        asked, way = "unit='vertebra'", "include=('graded', 'not_assessed') serves vertebrae"
    elif unit == "patch" and options.get("sampling") == "grade":
        asked, way = "sampling='grade'", "sampling='level' serves patches"
    else:
        return
    raise ContentMissing(
        f"{asked} needs the grades of the vertebrae, so there is nothing to serve. {way} without them. "
        f"{absent(releases[0])}"
    )


def without_grades(release: LockedRelease, columns: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Return those of `columns` that do not come from the workbook, and what is to be said of the others."""
    from verse_data.tables.columns import workbook_columns

    left = tuple(name for name in columns if name not in workbook_columns())
    lost = " and ".join(name for name in columns if name not in left)
    sentence = (
        f"Folds are balanced over {' and '.join(left)} alone, not over {lost}. {absent(release)}"
    )
    return left, sentence
