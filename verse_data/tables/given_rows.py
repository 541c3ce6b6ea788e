"""Rows that a user passes in, such as an old CSV file, compared with a version's own tables.

They select vertebrae by ``scan_id`` and ``level``; all values that are used are the version's own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import pandas as pd

from verse_data.errors import UsageError, counted
from verse_data.problems import shown
from verse_data.tables.columns import columns
from verse_data.tables.index import ScanFiles

_KEY: Final = ["scan_id", "level"]
_BLANK: Final = {"", "NA", "N/A", "NaN", "nan", "None", "null", "<NA>"}
_BOOLEANS: Final = {"true": "1", "false": "0"}
_TOLERANCE: Final = 0.01
"""Allowed difference of a number, in its unit: table files are often rounded to two digits."""


def own_rows(given: pd.DataFrame, own: pd.DataFrame, *, version: str) -> pd.DataFrame:
    """Return the rows of `own` that `given` selects, in the order of `given`.

    Blanks in `given` are not compared, and columns that the table does not have are ignored.
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
            f"{'; '.join(shown(unknown))}. Use rows of another version with that version; or take "
            f"the rows of this one from release.vertebrae or release.select(…)."
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
    _refuse_contradictions(wanted, given, chosen, version, key=_KEY)
    return chosen


def check_scans(given: pd.DataFrame, known: Mapping[str, ScanFiles], *, version: str) -> None:
    """Raise `UsageError` if rows of the scans table give a scan another subject or split."""
    scans = [known[scan_id] for scan_id in given["scan_id"]]
    own = pd.DataFrame(
        {name: [getattr(s, name) for s in scans] for name in ("subject_id", "split")}
    )
    _refuse_contradictions(given["scan_id"], given, own, version, key="scan_id")


def _refuse_contradictions(
    places: Iterable[str],
    given: pd.DataFrame,
    own: pd.DataFrame,
    version: str,
    *,
    key: str | list[str],
) -> None:
    """Raise `UsageError` for the values of `given` that differ from those of `own`."""
    found = [
        (row, f"{place}: {name} is {value}, not {'blank' if _plain(said) is None else said}")
        for name in (column.name for column in columns("vertebrae"))
        if name not in _KEY and name in given and name in own
        for row, (place, value, said) in enumerate(zip(places, given[name], own[name], strict=True))
        if _contradicts(name, value, said)
    ]
    if found:
        rows = len({row for row, _ in found})
        words = [words for _, words in sorted(found, key=lambda item: item[0])]
        raise UsageError(
            f"{counted(rows, 'given row')} with {counted(len(found), 'value')} that {version} does "
            f"not have: {'; '.join(shown(words))}. Use rows of another version with that version, "
            f"open_release(…, version=…). To use the values that {version} has for these rows, "
            f"give rows[{key!r}]."
        )


def _plain(value: object) -> str | float | None:
    """Return `value` as a number if its text reads as one, else as text; None for a blank."""
    text = str(value).strip()
    if text in _BLANK:
        return None
    try:
        return float(_BOOLEANS.get(text.lower(), text))
    except ValueError:
        return text


def _contradicts(column: str, value: object, own: object) -> bool:
    """Return whether the given `value` differs from the version's own; a blank does not."""
    found, said = _plain(value), _plain(own)
    if found is None or found == said:
        return False
    if column == "grade_status":
        # The rows may be older than workbook or mask here; grade and mask are compared too.
        return found != "not_assessed" and said != "no_mask"
    if column == "split":
        return said is not None  # without a published split, the column is the user's own
    if isinstance(found, float) and isinstance(said, float):
        return not abs(found - said) <= _TOLERANCE + 1e-6 * abs(said)
    return True


def with_scan_ids(given: pd.DataFrame, known: Collection[str]) -> pd.DataFrame:
    """Return `given` with scan ids as text again where a file made numbers of them (001 to 1)."""
    twice = given.columns[given.columns.duplicated()]
    if len(twice):
        raise UsageError(f"The rows that were passed in have the column {twice[0]!r} twice.")
    numbers = {name: int(name) for name in known if name.isdecimal()}

    def original(value: Any) -> Any:
        if isinstance(value, str) or pd.isna(value):
            return value
        fits = [name for name, number in numbers.items() if number == value] or [value]
        if len(fits) > 1:
            raise UsageError(
                f"The scan id {value} may be any of {', '.join(fits)}: the ids were read "
                f"from a file as numbers. Read it again with dtype={{'scan_id': str}}."
            )
        return fits[0]

    return given.assign(scan_id=[original(value) for value in given["scan_id"]])
