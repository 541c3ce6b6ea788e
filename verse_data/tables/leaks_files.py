"""Read somebody's split from the files that people keep splits in."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from verse_data.errors import UsageError, ValidationFailed
from verse_data.publishing import storage_errors
from verse_data.records.base import read_json
from verse_data.tables.folds_file import digest_of, parse_folds

Sides = dict[str, list[object]]

_NOT_ENTRIES: Final = frozenset({"fold", "label", "mask", "seg", "segmentation"})
HEADINGS: Final = (
    *("scan_id", "scan", "series_id", "series", "subject_id", "subject", "participant_id"),
    *("patient_id", "patient", "verse_id", "verse", "image", "images", "img", "ct"),
    *("image_path", "path", "file_path", "filepath", "file_name", "filename", "file", "files"),
    *("case_id", "case", "name", "id", "ids"),
)
"""Headings of the column that holds the entries, the first that is there; in small letters."""

_INDEX: Final = re.compile(r"(unnamed: ?[0-9]+)?")


def read_splits(specs: Sequence[str]) -> dict[str, Sides]:
    """Read one or more splits.

    Parameters
    ----------
    specs : sequence of str
        Either one JSON file, or two or more ``SIDE=FILE`` with an entry on each line (of a CSV
        file, in the column that its heading names, one of :data:`HEADINGS`). The JSON is an object
        of lists, a MONAI datalist, nnU-Net's ``splits_final.json`` (a list of such objects), or our
        ``folds.json``. Items of a datalist with a ``fold`` are divided by it: each value is a side
        of its own, such as ``training fold 0``.

    Returns
    -------
    dict
        Name of each split (``""`` for the only one) to its sides.

    Raises
    ------
    UsageError
        If a file is not there, or the arguments are neither of the two forms.
    ValidationFailed
        If a file is not one of the above.
    IntegrityError
        If a ``folds.json`` was changed since it was written.
    """
    pairs = [spec.partition("=") for spec in specs]
    if len(specs) >= 2 and all(side and path for side, _, path in pairs):
        if len({side for side, _, _ in pairs}) < len(pairs):
            raise UsageError("Two files are given for one side; give each side its own file.")
        return {"": {side: _list(Path(path)) for side, _, path in pairs}}
    if len(specs) == 1:
        path = Path(specs[0])
        value = read_json(_bytes(path), name=str(path))
        digest_of(value, name=str(path))  # refuses what could not be printed
        return _from_json(value, path)
    message = "Give one JSON file, or each side with its list: train=train.txt val=val.txt"
    raise UsageError(message)


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    with storage_errors(path):
        return path.read_bytes()


def _list(path: Path) -> list[object]:
    return list(_read_list(_bytes(path), name=str(path)))


def _from_json(value: Any, path: Path) -> dict[str, Sides]:
    if isinstance(value, dict) and value.get("kind") == "verse-data folds":
        parts = parse_folds(path).folds
        return {"": {f"fold {number}": list(part.scans) for number, part in enumerate(parts)}}
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        if any("fold" in part for part in value):
            return {"": _at_least_two(_by_fold("", value, path), value[0], path)}
        return {f"fold {number}": _sides(part, path) for number, part in enumerate(value)}
    if isinstance(value, dict):
        return {"": _sides(value, path)}
    message = f"{path}: not an object of lists such as {{'train': [...], 'val': [...]}}."
    raise ValidationFailed(message)


def _sides(value: Mapping[str, Any], path: Path) -> Sides:
    sides: Sides = {}
    for name, items in value.items():
        if isinstance(items, list):
            for side, entries in _by_fold(name, items, path).items():
                sides.setdefault(side, []).extend(entries)
    return _at_least_two(sides, value, path)


def _at_least_two(sides: Sides, keys: Iterable[str], path: Path) -> Sides:
    if len(sides) < 2:
        found = ", ".join(map(repr, keys)) or "nothing"
        raise ValidationFailed(f"{path}: fewer than two lists of entries; it holds {found}.")
    return sides


def _by_fold(side: str, items: Sequence[Any], path: Path) -> Sides:
    """Divide the items of a list by their fold; what has none stays under the list's own name.

    Cross-validation trains on all folds but one, so that any two of them are two sides.
    """
    sides: Sides = {} if items else {side: []}
    for item in items:
        fold = item.get("fold") if isinstance(item, dict) else None
        if isinstance(fold, bool | list | dict) or (isinstance(fold, float) and fold % 1):
            message = f"{path}: the fold {fold!r} of an entry of {side or 'the list'!r} is neither a whole number nor a name."
            raise ValidationFailed(message)
        number = int(fold) if isinstance(fold, float) else fold
        name = side if fold is None else f"{side} fold {number}".strip()
        sides.setdefault(name or "no fold", []).extend(_entries(item))
    return sides


def _entries(item: Any) -> list[object]:
    """Return the entries of one item; of a datalist's object, its image or images."""
    if isinstance(item, dict):
        by_name = {key.lower(): value for key, value in item.items()}
        texts = (v for k, v in by_name.items() if k not in _NOT_ENTRIES and isinstance(v, str))
        named = next((by_name[key] for key in HEADINGS if key in by_name), None)
        item = next(texts, None) if named is None else named
    # The channels of one image stand in a list.
    return list(item) if isinstance(item, list) and item else [item]


def _read_list(data: bytes, *, name: str) -> list[str]:
    """Return the entries of a list.

    Parameters
    ----------
    data : bytes
        UTF-8 text, with or without a byte order mark. Empty lines and those with ``#`` in front
        are left out. Columns are divided by comma, semicolon or tab. Where the first line is a
        heading, the entries are in the column of :data:`HEADINGS`; otherwise in the first column.
    name : str
        What the errors call the file.

    Raises
    ------
    ValidationFailed
        If it is no such text, or it cannot be told which column holds the entries.
    """
    rows = _rows(data, name)
    if not rows:
        return []
    first = [cell.lower() for cell in rows[0]]
    column = next((first.index(heading) for heading in HEADINGS if heading in first), None)
    if column is not None:
        return [row[column] if column < len(row) else "" for row in rows[1:]]
    if len(first) > 1 and (_INDEX.fullmatch(first[0]) or not re.search(r"[0-9]", "".join(first))):
        raise ValidationFailed(_unclear(name, rows[0]))
    entries = [row[0] for row in rows]
    if len(first) > 1 and len(rows) > 1 and entries == [str(place) for place in range(len(rows))]:
        message = (
            f"{name}: its first column counts 0, 1, 2 and so on: row numbers, not patients. "
            f"Write it without them (in pandas, to_csv(index=False)), or with a heading such as scan_id."
        )
        raise ValidationFailed(message)
    return entries


def _rows(data: bytes, name: str) -> list[list[str]]:
    """Return the cells of each line that holds something."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValidationFailed(f"{name}: not UTF-8 text with an entry on each line.") from None
    lines = [
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    mark = next((mark for mark in "\t;" if lines and mark in lines[0]), ",")
    try:
        rows = list(csv.reader(io.StringIO("\n".join(lines), newline=""), delimiter=mark))
    except csv.Error as error:
        raise ValidationFailed(f"{name}: not a list or CSV file: {error}.") from None
    return [[cell.strip() for cell in row] for row in rows]


def _unclear(name: str, heading: list[str]) -> str:
    shown = ", ".join(repr(cell[:40]) for cell in heading[:20])
    return (
        f"{name}: none of its headings ({shown}) says which column holds the scans or patients. "
        f"Name that column scan_id, subject_id, verse_ID or image; a column of row numbers is best "
        f"left out (in pandas, to_csv(index=False))."
    )
