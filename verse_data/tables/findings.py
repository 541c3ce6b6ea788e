"""Problems, which stop a table from being read, and findings, which are kept and listed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from verse_data.errors import ValidationFailed, counted

SHOWN: Final = 20
Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One broken rule in a file.

    Attributes
    ----------
    file : str
        Name of the file.
    rule : str
        What should have been.
    sheet, row, column : str, int, str
        Where in a table: sheet, row as the spreadsheet numbers it, column letter and heading.
    value : object
        What stood there.
    """

    file: str
    rule: str
    sheet: str = ""
    row: int | None = None
    column: str = ""
    value: Any = None

    def __str__(self) -> str:
        """Say file, sheet, row, column, value and rule in one line."""
        where = [self.file]
        where += [f"sheet {self.sheet}"] if self.sheet else []
        where += [f"row {self.row}"] if self.row is not None else []
        where += [f"column {self.column}"] if self.column else []
        shown = "" if self.value is None else f" {_short(self.value)}:"
        return f"{', '.join(where)}:{shown} {self.rule}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def raise_problems(problems: Sequence[Problem], *, what: str, then: str) -> None:
    """Raise one error for all `problems`, or return if there are none.

    Raises
    ------
    ValidationFailed
        With the first 20, and the number of the rest.
    """
    if not problems:
        return
    lines = [f"  {problem}" for problem in problems[:SHOWN]]
    more = [f"  and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    count = counted(len(problems), "problem")
    raise ValidationFailed("\n".join([f"{what}: {count}:", *lines, *more, then]))


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One disagreement or oddity that a reader of the tables should know, with its place.

    Attributes
    ----------
    rule : str
        Short name of the kind, such as ``"bmd-zero"``.
    message : str
        What was seen.
    severity : str
        ``"error"`` where a file cannot be read, ``"warning"`` where data disagree or are missing,
        ``"note"`` where they are merely odd.
    scan_id, subject_id, level : str
        What it is about; empty where it is about more.
    file, place : str
        Path in the release, and the place in the file.
    """

    rule: str
    message: str
    severity: Severity = "warning"
    scan_id: str = ""
    subject_id: str = ""
    level: str = ""
    file: str = ""
    place: str = ""


FINDING_COLUMNS: Final = tuple(field.name for field in fields(Finding))


def as_rows(findings: Iterable[Finding]) -> list[dict[str, str]]:
    """Return findings as plain rows, each once, in the order of scan, then as found."""
    unique = dict.fromkeys(findings)
    rows = [{name: getattr(finding, name) for name in FINDING_COLUMNS} for finding in unique]
    return sorted(rows, key=lambda row: (row["scan_id"] == "", row["scan_id"]))
