"""What a shell offers on Tab: names that are on this machine or in the catalog. It never fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import typer

Complete = Callable[[typer.Context, str], list[str]]


def completer(find: Callable[[dict[str, Any]], Iterable[str]], *, listed: bool = False) -> Complete:
    """Return what Typer calls for the words that `find` knows, given the arguments typed so far.

    `listed` says that the value is a list with commas, whose last word is completed.
    """

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if listed else ("", "", incomplete)
        try:
            words = sorted(set(find(_typed(ctx))))
        except Exception:  # noqa: BLE001 - a shell shows no error here, and none is needed
            return []
        return [f"{before}{comma}{word}" for word in words if word.startswith(last)]

    return complete


def _typed(ctx: typer.Context) -> dict[str, Any]:
    """Return the arguments so far. Those without a dash are left over where an option lacks its value."""
    found = {name: value for name, value in ctx.params.items() if value is not None}
    return {**found, **dict(zip(("release", "name"), ctx.args, strict=False))}


def words(*known: str, listed: bool = False) -> Complete:
    """Offer words that are always the same."""
    return completer(lambda _: known, listed=listed)


def _releases(typed: dict[str, Any]) -> Iterable[str]:
    from verse_data import config
    from verse_data.files import locate

    folder = config.resolve(root=typed.get("root")).releases
    here = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    known = [path.name for path in locate("catalog").iterdir() if path.is_dir()]
    return [*here, *known]


def _series(typed: dict[str, Any]) -> Any:
    """Return the series of a release by scan id; of one that is not here, those of the catalog."""
    from verse_data import api
    from verse_data.errors import UsageError
    from verse_data.releases.catalog import load_catalog

    name, version, root = typed["release"], typed.get("version"), typed.get("root")
    try:
        return api.open_release(name, version=version, root=root, offline=True, make=False).series
    except UsageError:
        return {series.scan_id: series for series in load_catalog(name).expected}


def _subjects(typed: dict[str, Any]) -> Iterable[str]:
    return [scan.subject_id for scan in _series(typed).values()]


def _versions(typed: dict[str, Any]) -> Iterable[str]:
    from verse_data.cli.dataset import open_dataset

    return open_dataset(typed["release"], typed.get("root")).versions()


def _columns(typed: dict[str, Any]) -> list[str]:
    from verse_data.records.base import Record
    from verse_data.records.tables import ScanRecord, SubjectRecord, VertebraRecord

    of_table: dict[str, type[Record]] = {
        "vertebrae": VertebraRecord,
        "scans": ScanRecord,
        "subjects": SubjectRecord,
    }
    return list(of_table[str(typed.get("table") or typed.get("name") or "vertebrae")].model_fields)


def condition(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the columns of the table, and levels within quotes, for the last word of a condition."""
    from verse_data.spine.levels import LEVELS

    last = re.search(r"[\w']*$", incomplete)
    word = last.group() if last else ""
    known = [f"'{level}'" for level in LEVELS] if word.startswith("'") else columns(ctx, word)
    before = incomplete.removesuffix(word)
    return [f"{before}{name}" for name in known if name.startswith(word)]


releases = completer(_releases)
scans = completer(_series, listed=True)
subjects = completer(_subjects, listed=True)
versions = completer(_versions)
columns = completer(_columns)
column_list = completer(_columns, listed=True)
