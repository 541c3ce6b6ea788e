"""Which scans, roles and files the options ``--split``, ``--subject``, ``--scan``, ``--role`` mean."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any

from verse_data.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from verse_data.records.lock import LockedFile
    from verse_data.release import Release

Given = list[list[str]] | None
"""An option that may be repeated, each time with a list."""


def chosen_scans(
    release: Release, *, splits: Given, subjects: Given, scans: Given
) -> list[str] | None:
    """Return the ids of the scans that the options mean, or None if there are no options."""
    if not (splits or subjects or scans):
        return None
    wanted = release.known_scans(_flat(scans))
    people = {scan.subject_id for scan in release.series.values()}
    patients = _known_subjects(release, people, _flat(subjects))
    chosen = [
        scan_id
        for scan_id, scan in release.series.items()
        if (not splits or scan.split in _flat(splits))
        and (not subjects or scan.subject_id in patients)
        and (not scans or scan_id in wanted)
    ]
    if not chosen:
        raise UsageError(
            f"{release.name} {release.version} has no scan that fits all of --split, --subject and --scan "
            f"as they were given. Leave one out."
        )
    return chosen


def _flat(given: Given) -> list[str]:
    return list(chain.from_iterable(given or ()))


def _known_subjects(release: Release, people: Iterable[str], given: list[str]) -> list[str]:
    wanted = [name.removeprefix("sub-") for name in given]
    for name in wanted:
        if name not in people:
            raise UsageError(f"{release.name} has no subject {name!r}.{did_you_mean(name, people)}")
    return wanted


def chosen_roles(given: Given) -> list[Any] | None:
    """Return the roles that the options name, or None if there are no options."""
    return _flat(given) or None


def chosen_files(
    release: Release, scan_ids: list[str] | None, roles: list[Any] | None
) -> list[LockedFile]:
    """Return the locked files of these scans and roles; without either, all of the version."""
    if scan_ids is None and roles is None:
        return list(release.lock.files)
    return release.locked(scan_ids, roles)
