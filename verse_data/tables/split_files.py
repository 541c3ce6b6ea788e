"""Reads the split files that people write: sides, each with its entries.

They are nnU-Net's ``splits_final.json``, MONAI's datalists, objects of lists, folders of lists, CSV
files, and our ``folds.json``.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from verse_data.errors import UsageError, ValidationFailed
from verse_data.files import read_given, storage_errors
from verse_data.records.base import read_json
from verse_data.tables.folds import KIND, parse_folds

_HEADINGS: Final = (
    *("scan_id", "scan", "series_id", "series", "subject_id", "subject"),
    *("participant_id", "patient_id", "patient", "verse_id", "verse"),
    *("image", "images", "img", "ct", "image_path", "path", "file_path", "filepath"),
    *("file_name", "filename", "file", "files", "case_id", "case", "name", "id", "ids"),
)
"""Headings of a column of entries, in lower case and order of preference."""
_SIDE_HEADINGS: Final = ("split", "side", "set", "subset", "partition", "phase")
_FOLD_HEADINGS: Final = ("fold", "folds", "fold_id")
_NOT_ENTRIES: Final = frozenset({"fold", "label", "mask", "seg", "segmentation"})
_INDEX: Final = re.compile(r"(unnamed: ?[0-9]+)?")
# VerSe's own tables have a column "series" that counts those of a patient.
_COUNT: Final = re.compile(r"[1-9] of [1-9]")
_TABLES: Final = frozenset({".csv", ".tsv"})

Sides = dict[str, list[object]]
_Row = tuple[str, str, list[object]]
"""Fold (if it has one), side, and entries."""


def read_splits(specs: Sequence[str]) -> dict[str, Sides]:
    """Read splits from one file or folder, or one from several ``SIDE=FILE``; ``""`` names the only one.

    A JSON file is an object of lists, a MONAI datalist, nnU-Net's ``splits_final.json`` (a list of
    such objects) or our ``folds.json``; a CSV file has a column of entries and one of sides or
    folds; a folder holds a list for each side, or folders that do. A list has an entry on each line.
    """
    pairs = [spec.partition("=") for spec in specs]
    of_sides = len({side for side, _, path in pairs if side and path}) == len(specs)
    if of_sides and len(specs) > 1:
        return {"": {side: _read_list(path) for side, _, path in pairs}}
    if len(specs) != 1 or (of_sides and not Path(specs[0]).exists()):
        raise UsageError(
            "Give one JSON or CSV file, one folder of lists, or each side once with its list: "
            "train=train.txt val=val.txt"
        )
    (path,) = specs
    if Path(path).is_dir():
        return _read_folder(path)
    if Path(path).suffix.lower() in _TABLES:
        return _read_table(path)
    return _read_json(path)


# --- JSON -----------------------------------------------------------------------------------------


def _read_json(path: str) -> dict[str, Sides]:
    if Path(path).suffix.lower() == ".pkl":
        raise UsageError(
            f"{path}: a pickle can run programs when it is read, so it is not. If you trust it, load "
            f"it in Python and write it with json.dump; nnU-Net v2 has it as splits_final.json."
        )
    value = read_json(read_given(Path(path)), name=path)
    if isinstance(value, dict) and value.get("kind") == KIND:
        parts = parse_folds(Path(path)).parts
        return {"": {f"fold {number}": list(part.scans) for number, part in enumerate(parts)}}
    if isinstance(value, dict):
        return {"": _sides(value, path)}
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        if any("fold" in part for part in value):
            return {"": _sides({"": value}, path)}
        return {f"fold {number}": _sides(part, path) for number, part in enumerate(value)}
    raise ValidationFailed(
        f"{path}: not an object of lists such as {{'train': [...], 'val': [...]}}."
    )


def _sides(value: Mapping[str, Any], path: str) -> Sides:
    """Return the lists of an object; items with a ``fold`` are put into a side for that fold.

    Cross-validation trains on all folds but one, so any two folds are two sides.
    """
    rows: list[_Row] = []
    for side, items in value.items():
        if items == []:
            rows.append(("", side, []))
        for item in items if isinstance(items, list) else ():
            if isinstance(item, dict) and "_target_" in item:
                continue  # a transform, which MONAI's datalists may list beside the scans
            fold = item.get("fold") if isinstance(item, dict) else None
            if isinstance(fold, bool | list | dict):
                raise ValidationFailed(f"{path}: the fold {fold!r} is neither a number nor a name.")
            number = f"{fold:g}" if isinstance(fold, float) else "" if fold is None else str(fold)
            rows.append((number, side, _entries(item)))
    sides = _by_side(rows, "no fold")
    if len(sides) < 2:
        found = ", ".join(map(repr, sides if "" in value else value)) or "nothing"
        raise ValidationFailed(f"{path}: fewer than two lists of entries; it holds {found}.")
    return sides


def _entries(item: Any) -> list[object]:
    """Return the entries of one item; for an object of a datalist, its image or images."""
    if isinstance(item, dict):
        by_name = {key.lower(): value for key, value in item.items()}
        texts = [v for k, v in by_name.items() if k not in _NOT_ENTRIES and isinstance(v, str)]
        named = [by_name[key] for key in _HEADINGS if key in by_name]
        item = next(iter(named + texts), None)
    # A list holds the channels of one image.
    return list(item) if isinstance(item, list) and item else [item]


# --- CSV files, lists and folders of them ---------------------------------------------------------


def _read_table(path: str) -> dict[str, Sides]:
    """Return the splits of a CSV file with a column that names the side or the fold of each row.

    Where each fold has two sides and lists the same entries, as in repeated lists of training and
    validation, each fold is a split by itself. Else it is a side, as in a datalist.
    """
    heads, *rows = _rows(path) or [[]]
    entries = _column(heads, rows, _HEADINGS)
    sides, folds = (_column(heads, rows, names) for names in (_SIDE_HEADINGS, _FOLD_HEADINGS))
    if entries is None or (sides is None and folds is None):
        lacking = "scan_id" if entries is None else "split or fold"
        raise ValidationFailed(
            f"{path}: no column is called {lacking} or the like, so it does not say which scan is on "
            f"which side. Name the columns scan_id and split, or give a file for each side: "
            f"train=train.csv val=val.csv"
        )
    blank = [""] * len(rows)
    numbers = [re.sub(r"\.0+$", "", fold) for fold in folds or blank]
    whole = zip(numbers, sides or blank, entries, strict=True)
    table: list[_Row] = [(fold, side, [entry]) for fold, side, entry in whole]
    by_fold = {
        f"fold {number}": [("", side, entry) for fold, side, entry in table if fold == number]
        for number in sorted({*numbers} - {""})
    }
    contents = {frozenset(entry for *_, (entry,) in part) for part in by_fold.values()}
    if len(contents) == 1 and all(len({row[1] for row in part}) > 1 for part in by_fold.values()):
        # Rows without a fold, such as those of a test set, are held out of all of them.
        rest = [row for row in table if not row[0]]
        return {name: _by_side([*part, *rest], "no side") for name, part in by_fold.items()}
    found = _by_side(table, "no side")
    if len(found) < 2:
        raise ValidationFailed(f"{path}: all rows are on one side: {', '.join(found) or 'none'}.")
    return {"": dict(sorted(found.items()))}


def _by_side(rows: Iterable[_Row], blank: str) -> Sides:
    """Return the entries of each side; those of a fold are a side for that fold."""
    sides: Sides = {}
    for fold, side, entries in rows:
        name = f"{side} fold {fold}".strip() if fold else side
        sides.setdefault(name or blank, []).extend(entries)
    return sides


def _column(
    heads: Sequence[str], rows: Iterable[Sequence[str]], names: Iterable[str]
) -> list[str] | None:
    """Return the cells of the first of `names` among the headings; None if there is none."""
    known = [head.lower() for head in heads]
    for column in (known.index(name) for name in names if name in known):
        cells = [row[column] if column < len(row) else "" for row in rows]
        if not (cells and all(_COUNT.fullmatch(cell) for cell in cells)):
            return cells
    return None


def _rows(path: str) -> list[list[str]]:
    """Return the cells of a file; empty lines and those with ``#`` in front are left out.

    Comma, semicolon or tab divide columns.
    """
    try:
        lines = read_given(Path(path)).decode("utf-8-sig").splitlines()
        lines = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
        delimiter = next((mark for mark in "\t;" if lines and mark in lines[0]), ",")
        rows = list(csv.reader(lines, delimiter=delimiter, strict=False))
    except (UnicodeDecodeError, csv.Error) as error:
        why = f"not UTF-8 text or CSV with one entry per line: {error}"
        raise ValidationFailed(f"{path}: {why}.") from None
    return [[cell.strip() for cell in row] for row in rows]


def _read_list(path: str) -> list[object]:
    """Return the entries of a file: the column that its heading names, or the first of each line."""
    rows = _rows(path)
    if not rows:
        return []
    if (named := _column(rows[0], rows[1:], _HEADINGS)) is not None:
        return [*named]
    first = [cell.lower() for cell in rows[0]]
    entries = [row[0] for row in rows]
    numbered = len(rows) > 1 and entries == [str(place) for place in range(len(rows))]
    is_heading = _INDEX.fullmatch(first[0]) or not re.search(r"[0-9]", "".join(first))
    if len(first) > 1 and (numbered or is_heading):
        headings = ", ".join(repr(cell[:40]) for cell in rows[0][:20])
        raise ValidationFailed(
            f"{path}: none of its headings ({headings}) says which column holds the scans or patients, "
            f"and a column that counts 0, 1, 2 is one of row numbers. Name the column scan_id, "
            f"subject_id, verse_ID or image; leave row numbers out (in pandas, to_csv(index=False))."
        )
    return [*entries]


def _read_folder(path: str) -> dict[str, Sides]:
    """Return a split for each folder, at any depth, with two lists or more, such as ``cv/0/train.txt``.

    Lists are text files, or CSV files in a folder without any; other files are left alone.
    """
    lists: defaultdict[Path, dict[str, list[Path]]] = defaultdict(dict)
    with storage_errors(Path(path)):
        for file in sorted(Path(path).rglob("*")):
            if file.suffix.lower() in {".txt", ".csv"} and file.is_file():
                lists[file.parent].setdefault(file.suffix.lower(), []).append(file)
    chosen = {folder: kinds.get(".txt") or kinds[".csv"] for folder, kinds in lists.items()}
    chosen = {folder: files for folder, files in chosen.items() if len(files) > 1}
    if not chosen:
        raise ValidationFailed(
            f"{path}: no folder in it holds two lists or more, such as train.txt and val.txt."
        )
    return {
        "" if len(chosen) == 1 else folder.relative_to(path).as_posix(): {
            file.stem: _read_list(str(file)) for file in files
        }
        for folder, files in sorted(chosen.items())
    }
