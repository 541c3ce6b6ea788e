"""Problems of a table or tree: all are collected, then 20 are shown and the rest are counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from verse_data.errors import FILE_FAULTS, ValidationFailed, VerseDataError, counted

SHOWN: Final = 20


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One broken rule in a file: `row` as the spreadsheet numbers it, `column` with its letter."""

    file: str
    rule: str
    sheet: str = ""
    row: int | None = None
    column: str = ""
    value: Any = None

    def __str__(self) -> str:
        """Return file, sheet, row, column, value and rule in one line."""
        where = [self.file]
        where += [f"sheet {self.sheet}"] if self.sheet else []
        where += [f"row {self.row}"] if self.row is not None else []
        where += [f"column {self.column}"] if self.column else []
        shown = "" if self.value is None else f" {_short(self.value)}:"
        return f"{', '.join(where)}:{shown} {self.rule}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def shown(things: Sequence[object], *, indent: str = "", most: int = SHOWN) -> list[str]:
    """Return the first of `things`, one per line, and how many more there are."""
    lines = [f"{indent}{thing}" for thing in things[:most]]
    if len(things) > most:
        lines.append(f"{indent}and {len(things) - most:,} more")
    return lines


def listed(things: Sequence[object], *, most: int = SHOWN) -> str:
    """Return the first of `things` in one line, and how many more there are."""
    return ", ".join(shown(things, most=most))


def raise_problems(problems: Sequence[Problem], *, what: str, then: str) -> None:
    """Raise one ValidationFailed for all `problems`, or return if there are none."""
    if problems:
        head = f"{what}: {counted(len(problems), 'problem')}:"
        raise ValidationFailed("\n".join([head, *shown(problems, indent="  "), then]))


def raise_faults(errors: Sequence[VerseDataError], *, head: str = "", then: str = "") -> None:
    """Raise one error for all `errors` of files, of the gravest kind, or return if there are none."""
    if errors:
        gravest = next(e for kind in FILE_FAULTS for e in errors if isinstance(e, kind))
        raise type(gravest)("\n".join(filter(None, [head, *shown(errors), then])))
