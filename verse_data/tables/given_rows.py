"""Vertebra rows that a user gives, such as a CSV of last year, held against a version's own table.

Rows choose vertebrae by ``scan_id`` and ``level``. All that is served of them is the version's own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import pandas as pd

from verse_data.errors import UsageError, counted
from verse_data.problems import shown
from verse_data.tables.columns import Column, columns
from verse_data.tables.index import ScanFiles

_CHOOSING: Final = ["scan_id", "level"]
_BLANK: Final = {"", "NA", "N/A", "NaN", "nan", "None", "null", "<NA>"}
_TRUTH: Final = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
_ROUNDING: Final = 0.01
"""How far a measure may be off, in its unit: files of tables are often rounded to two digits."""


def own_rows(given: pd.DataFrame, own: pd.DataFrame, *, version: str) -> pd.DataFrame:
    """Return the rows of `own` that `given` chooses, in the order of `given`.

    A blank in `given` claims nothing, and columns that the table does not have are ignored.
    """
    wanted, known = (
        pd.Index(rows["scan_id"].astype(str) + " " + rows["level"].astype(str))
        for rows in (given, own)
    )
    unknown, repeated = wanted[~wanted.isin(known)], wanted[wanted.duplicated()].unique()
    if len(unknown):
        raise UsageError(
            f"{counted(len(unknown), 'vertebra', 'vertebrae')} that {version} does not have: "
            f"{_listed(unknown)}. Rows of another version are served with that version; else take "
            f"the rows of this one, out of release.vertebrae or release.select(…)."
        )
    if len(repeated):
        raise UsageError(
            f"{counted(len(repeated), 'vertebra is', 'vertebrae are')} given more than once: "
            f"{_listed(repeated)}. Give each once, with rows.drop_duplicates(['scan_id', 'level']). "
            f"To draw some more often than others: "
            f"dataset.loader(sampler=BalancedSampler(dataset, grade_weights=…)), or "
            f"torch.utils.data.Subset(dataset, numbers) with repeated numbers."
        )
    chosen = own.iloc[known.get_indexer(wanted)]
    _refuse_contradictions(wanted, given, chosen, version, choosing=_CHOOSING)
    return chosen


def check_scans(given: pd.DataFrame, known: Mapping[str, ScanFiles], *, version: str) -> None:
    """Raise `UsageError` if rows of the scans table give a scan another subject or split."""
    scans = [known[scan_id] for scan_id in given["scan_id"]]
    own = pd.DataFrame(
        {name: [getattr(s, name) for s in scans] for name in ("subject_id", "split")}
    )
    _refuse_contradictions(given["scan_id"], given, own, version, choosing="scan_id")


def _refuse_contradictions(
    places: Iterable[str],
    given: pd.DataFrame,
    own: pd.DataFrame,
    version: str,
    *,
    choosing: str | list[str],
) -> None:
    """Raise `UsageError` for the values of `given` that are not what `own` says."""
    found = [
        (row, f"{place}: {column.name} is {value}, not {_shown(column, said)}")
        for column in columns("vertebrae")
        if column.name not in _CHOOSING and column.name in given and column.name in own
        for row, (place, value, said) in enumerate(
            zip(places, given[column.name], own[column.name], strict=True)
        )
        if _contradicts(column, value, said)
    ]
    if found:
        rows = len({row for row, _ in found})
        words = [words for _, words in sorted(found, key=lambda item: item[0])]
        raise UsageError(
            f"{counted(rows, 'given row')} with {counted(len(found), 'value')} that {version} does "
            f"not have: {_listed(words)}. Rows of another version are served with that version, "
            f"open_release(…, version=…). To serve these with what {version} says of them, give "
            f"rows[{choosing!r}]."
        )


def _listed(words: Collection[str]) -> str:
    return "; ".join(shown(list(words)))


def _shown(column: Column, value: Any) -> str:
    return "blank" if _plain(column, value) is None else str(value)


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
    # A file makes the number 1 of the name 001.
    was_name = isinstance(said, str) and said.isdecimal() and not isinstance(value, str)
    return not (was_name and float(str(said)) == value)


def with_scan_ids(given: pd.DataFrame, known: Collection[str]) -> pd.DataFrame:
    """Return `given` with the `known` scan ids that a file has made numbers of (001 read back as 1)."""
    twice = given.columns[given.columns.duplicated()]
    if len(twice):
        raise UsageError(f"The rows that are to be served have the column {twice[0]!r} twice.")
    numbers = {name: int(name) for name in known if name.isdecimal()}

    def original(value: Any) -> Any:
        if isinstance(value, str) or pd.isna(value):
            return value
        fits = [name for name, number in numbers.items() if number == value] or [value]
        if len(fits) > 1:
            raise UsageError(
                f"The scan id {value} may be any of {', '.join(fits)}: a file has made numbers of "
                f"the ids. Read it again with dtype={{'scan_id': str}}."
            )
        return fits[0]

    return given.assign(scan_id=[original(value) for value in given["scan_id"]])
