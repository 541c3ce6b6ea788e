"""Which scans, roles and files the options ``--split``, ``--subject``, ``--scan``, ``--role`` mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from verse_data.cli.common import SHOWN

if TYPE_CHECKING:
    from verse_data.records.lock import LockedFile
    from verse_data.release import Release


def chosen_scans(
    release: Release,
    *,
    splits: list[str] | None,
    subjects: list[str] | None,
    scans: list[str] | None,
) -> list[str] | None:
    """Return the ids of the scans that the options mean, or None if there are no options."""
    from verse_data.errors import UsageError
    from verse_data.records.names import SPLITS

    if not (splits or subjects or scans):
        return None
    for word, known in ((splits, set(SPLITS)), (scans, set(release.series))):
        wrong = [name for name in word or [] if name not in known]
        if wrong:
            raise UsageError(f"{wrong[0]!r} is none of {', '.join(sorted(known)[:SHOWN])}.")
    people = {scan.subject_id for scan in release.series.values()}
    wrong = [name for name in subjects or [] if name.removeprefix("sub-") not in people]
    if wrong:
        raise UsageError(f"{release.name} has no subject {wrong[0]!r}.")
    wanted = {name.removeprefix("sub-") for name in subjects or []}
    return [
        scan_id
        for scan_id, scan in release.series.items()
        if (not splits or scan.split in splits)
        and (not wanted or scan.subject_id in wanted)
        and (not scans or scan_id in scans)
    ]


def chosen_roles(text: str | None) -> list[Any] | None:
    """Return the roles in a list with commas, or None."""
    from typing import get_args

    from verse_data.errors import UsageError
    from verse_data.records.names import Role

    if text is None:
        return None
    roles = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [role for role in roles if role not in get_args(Role)]
    if wrong or not roles:
        raise UsageError(
            f"{(wrong or [text])[0]!r} is no role; roles are {', '.join(get_args(Role))}."
        )
    return roles


def chosen_files(
    release: Release, scan_ids: list[str] | None, roles: list[Any] | None
) -> list[LockedFile]:
    """Return the locked files of these scans and roles; without either, all of the version."""
    if scan_ids is None and roles is None:
        return list(release.lock.files)
    return release.locked(scan_ids, roles)
