"""Vertebra rows that a user gives, such as a CSV of last year, held against a version's own table.

Rows choose vertebrae by ``scan_id`` and ``level``. All that is served of them is the version's own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import pandas as pd

from verse_data.errors import UsageError, counted
from verse_data.problems import shown
from verse_data.tables.columns import columns
from verse_data.tables.index import ScanFiles

_CHOOSING: Final = ["scan_id", "level"]
_BLANK: Final = {"", "NA", "N/A", "NaN", "nan", "None", "null", "<NA>"}
_TRUTH: Final = {"true": "1", "false": "0"}
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
    unknown = list(wanted[~wanted.isin(known)])
    repeated = list(wanted[wanted.duplicated()].unique())
    if unknown:
        raise UsageError(
            f"{counted(len(unknown), 'vertebra', 'vertebrae')} that {version} does not have: "
            f"{'; '.join(shown(unknown))}. Rows of another version are served with that version; else take "
            f"the rows of this one, out of release.vertebrae or release.select(…)."
        )
    if repeated:
        raise UsageError(
            f"{counted(len(repeated), 'vertebra is', 'vertebrae are')} given more than once: "
            f"{'; '.join(shown(repeated))}. Give each once, with rows.drop_duplicates(['scan_id', 'level']). "
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
        (row, f"{place}: {name} is {value}, not {'blank' if _plain(said) is None else said}")
        for name in (column.name for column in columns("vertebrae"))
        if name not in _CHOOSING and name in given and name in own
        for row, (place, value, said) in enumerate(zip(places, given[name], own[name], strict=True))
        if _contradicts(name, value, said)
    ]
    if found:
        rows = len({row for row, _ in found})
        words = [words for _, words in sorted(found, key=lambda item: item[0])]
        raise UsageError(
            f"{counted(rows, 'given row')} with {counted(len(found), 'value')} that {version} does "
            f"not have: {'; '.join(shown(words))}. Rows of another version are served with that "
            f"version, open_release(…, version=…). To serve these with what {version} says of them, "
            f"give rows[{choosing!r}]."
        )


def _plain(value: object) -> str | float | None:
    """Return `value` as a number, if a file may have made one of it, or as a text; None for a blank."""
    text = str(value).strip()
    if text in _BLANK:
        return None
    try:
        return float(_TRUTH.get(text.lower(), text))
    except ValueError:
        return text


def _contradicts(column: str, value: object, own: object) -> bool:
    """Whether the given `value` is another than the version's own; a blank claims nothing."""
    found, said = _plain(value), _plain(own)
    if found is None or found == said:
        return False
    if column == "grade_status":
        # What could be said before workbook or mask were on the machine; their own columns tell.
        return found != "not_assessed" and said != "no_mask"
    if column == "split":
        return said is not None  # where nothing is published, a split is the user's own column
    if isinstance(found, float) and isinstance(said, float):
        return not abs(found - said) <= _ROUNDING + 1e-6 * abs(said)
    return True


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
