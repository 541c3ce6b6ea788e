"""Vertebra rows that a user gives, such as a CSV of last year, held against a version's own table.

Rows choose vertebrae by ``scan_id`` and ``level``. All that is served of them is the version's own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import pandas as pd

from verse_data.errors import UsageError, counted
from verse_data.tables.columns import Column, columns
from verse_data.tables.scan_paths import ScanNames

Key = tuple[str, str]
"""``scan_id`` and ``level``."""

_CHOOSING: Final = frozenset({"scan_id", "level"})
_BLANK: Final = frozenset({"", "NA", "N/A", "NaN", "nan", "None", "null", "<NA>"})
_TRUTH: Final = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
_ROUNDING: Final = 0.01
"""How far a measure may be off, in its unit: files of tables are often rounded to two digits."""

_SHOWN: Final = 5


def own_rows(given: pd.DataFrame, own: pd.DataFrame, *, version: str) -> pd.DataFrame:
    """Return the rows of `own` that `given` chooses, in the order of `given`.

    A blank in `given` claims nothing, and columns that the table does not have are ignored.
    """
    wanted, known = _keys(given), {key: place for place, key in enumerate(_keys(own))}
    _refuse_unknown([key for key in wanted if key not in known], version)
    _refuse_repeated([key for key, count in Counter(wanted).items() if count > 1])
    chosen = own.iloc[[known[key] for key in wanted]]
    found = _contradictions([" ".join(key) for key in wanted], given, chosen)
    _refuse_contradictions(found, version, choosing="rows[['scan_id', 'level']]")
    return chosen


def check_scans(given: pd.DataFrame, known: Mapping[str, ScanNames], *, version: str) -> None:
    """Raise `UsageError` if rows of the scans table give a scan another subject or split."""
    own = pd.DataFrame(
        [(known[scan_id].subject_id, known[scan_id].split) for scan_id in given["scan_id"]],
        columns=["subject_id", "split"],
    )
    found = _contradictions(list(given["scan_id"]), given, own)
    _refuse_contradictions(found, version, choosing="rows['scan_id']")


def _keys(rows: pd.DataFrame) -> list[Key]:
    return list(zip(map(str, rows["scan_id"]), map(str, rows["level"]), strict=True))


def _refuse_unknown(unknown: Sequence[Key], version: str) -> None:
    if unknown:
        raise UsageError(
            f"{counted(len(unknown), 'vertebra', 'vertebrae')} that {version} does not have: "
            f"{_listed(map(' '.join, unknown), len(unknown))}. Rows of another version are served "
            f"with that version; else take the rows of this one, out of release.vertebrae or "
            f"release.select(…)."
        )


def _refuse_repeated(repeated: Sequence[Key]) -> None:
    if repeated:
        raise UsageError(
            f"{counted(len(repeated), 'vertebra is', 'vertebrae are')} given more than once: "
            f"{_listed(map(' '.join, repeated), len(repeated))}. Give each once, with "
            f"rows.drop_duplicates(['scan_id', 'level']). To draw some more often than others: "
            f"dataset.loader(sampler=BalancedSampler(dataset, grade_weights=…)), or "
            f"torch.utils.data.Subset(dataset, numbers) with repeated numbers."
        )


def _contradictions(
    places: Sequence[str], given: pd.DataFrame, own: pd.DataFrame
) -> list[tuple[int, str]]:
    """Return the row and the words of each value of `given` that is not what `own` says."""
    found = []
    for column in columns("vertebrae"):
        if column.name in _CHOOSING or not {column.name} <= {*given.columns} & {*own.columns}:
            continue
        pairs = zip(given[column.name], own[column.name], strict=True)
        for row, (value, said) in enumerate(pairs):
            if _contradicts(column, value, said):
                words = "blank" if _plain(column, said) is None else str(said)
                found.append((row, f"{places[row]}: {column.name} is {value}, not {words}"))
    return sorted(found, key=lambda item: item[0])


def _refuse_contradictions(
    found: Sequence[tuple[int, str]], version: str, *, choosing: str
) -> None:
    if found:
        rows = len({row for row, _ in found})
        raise UsageError(
            f"{counted(rows, 'given row')} with {counted(len(found), 'value')} that {version} does "
            f"not have: {_listed((words for _, words in found), len(found), '; ')}. Rows of another "
            f"version are served with that version, open_release(…, version=…). To serve these with "
            f"what {version} says of them, give {choosing}."
        )


def _listed(words: Iterable[str], count: int, between: str = ", ") -> str:
    shown = between.join(word for word, _ in zip(words, range(_SHOWN), strict=False))
    return shown if count <= _SHOWN else f"{shown}{between}and {count - _SHOWN:,} more"


def _plain(column: Column, value: Any) -> str | bool | float | None:
    """Return `value` as what its column holds, whichever type a file has made of it."""
    text = str(value).strip()
    if text in _BLANK:
        return None
    if column.dtype in {"string", "category"}:
        return text
    if column.dtype == "boolean":
        return _TRUTH.get(text.lower(), text)
    try:
        return float(text)
    except ValueError:
        return text


def _contradicts(column: Column, value: object, own: object) -> bool:
    """Whether the given `value` is another than the version's own; a blank claims nothing."""
    found, said = _plain(column, value), _plain(column, own)
    if found is None or found == said:
        return False
    if column.name == "grade_status":
        # What could be said before workbook or mask were on the machine; their own columns tell.
        return found != "not_assessed" and said != "no_mask"
    if column.name == "split":
        return said is not None  # where nothing is published, a split is the user's own column
    if column.dtype == "Float64" and isinstance(found, float) and isinstance(said, float):
        return not abs(found - said) <= _ROUNDING + 1e-6 * abs(said)
    return isinstance(value, str) or not _read_as_number(value, said)


def _read_as_number(value: object, name: object) -> bool:
    """Whether `value` is what a file makes of the name `name`: 1 of 001."""
    return isinstance(name, str) and name.isdecimal() and float(name) == value


def with_scan_ids(given: pd.DataFrame, known: Collection[str]) -> pd.DataFrame:
    """Return `given` with the `known` scan ids that a file has made numbers of (001 read back as 1)."""
    twice = given.columns[given.columns.duplicated()]
    if len(twice):
        raise UsageError(f"The rows that are to be served have the column {twice[0]!r} twice.")
    names: defaultdict[int, list[str]] = defaultdict(list)
    for name in known:
        if name.isdecimal():
            names[int(name)].append(name)

    def original(value: Any) -> Any:
        if isinstance(value, str) or pd.isna(value) or value != int(value):
            return value
        fits = names.get(int(value), [value])
        if len(fits) > 1:
            raise UsageError(
                f"The scan id {value} may be any of {', '.join(fits)}: a file has made numbers of the ids. "
                f"Read it again with dtype={{'scan_id': str}}."
            )
        return fits[0]

    return given.assign(scan_id=[original(value) for value in given["scan_id"]])
