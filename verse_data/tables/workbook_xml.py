"""Streams one XML member of a workbook through expat, and refuses what openpyxl would take silently.

openpyxl reads with expat too, so that what is seen here is what it sees: attributes spelled with
character references, in any order, and cells of any case. It keeps the last of two cells in one
place, drops a row that comes again, and reads ``0_2`` as 2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from verse_data.errors import SheetRefused, ValidationFailed

MAX_ROW, MAX_COLUMN = 20_000, 200
MAX_ELEMENTS: Final = 500_000
"""Of all members together; the real workbook has 20,000. A bomb of as many takes half a second."""
_MAX_DEPTH: Final = 100
_LONGEST_TAG: Final = 1 << 16
_MAX_MARKS: Final = 1_000

_MAIN: Final = "http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_ROW, _CELL, _VALUE, _MERGE = (_MAIN + word for word in ("row", "c", "v", "mergeCell"))
_PLACE: Final = re.compile(r"([A-Z]{1,3})([1-9][0-9]{0,6})")
_NUMBER_OF_ROW: Final = re.compile(r"[1-9][0-9]{0,6}")
_NUMBER: Final = re.compile(r"(?!-0$)-?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]+)?")
_WRITTEN: Final = {"n": _NUMBER, "s": re.compile(r"0|[1-9][0-9]*"), "b": re.compile(r"[01]")}
"""How the value of a cell of each type is written: number, number of a shared text, truth value."""


@dataclass
class Marks:
    """What one sheet holds that its cells alone do not tell.

    Attributes
    ----------
    merged : list of str
        Ranges of merged cells.
    odd : dict
        By row and column: values that are not written as spreadsheets write them.
    """

    merged: list[str] = field(default_factory=list)
    odd: dict[tuple[int, int], str] = field(default_factory=dict)


class XmlScan:
    """Looks through one XML member, block by block.

    Parameters
    ----------
    where : str
        What errors call the member.
    elements : int
        How many elements it may have.
    """

    def __init__(self, where: str, *, elements: int = MAX_ELEMENTS) -> None:
        self.where, self.left = where, elements
        self.marks = Marks()
        self._stack: list[str] = []
        self._fed, self._row, self._column = 0, 0, 0
        self._type, self._value, self._formula = "n", "", False
        self._values = 0
        self._parser = expat.ParserCreate(namespace_separator="}")
        self._parser.StartElementHandler = self._open
        self._parser.EndElementHandler = self._close
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.XmlDeclHandler = self._declared

    def feed(self, block: bytes) -> None:
        """Check the next block.

        Raises
        ------
        SheetRefused, ValidationFailed
            As :func:`verse_data.tables.workbook_guard.check_workbook`.
        """
        if not self._fed and (block[:2] in {b"\xff\xfe", b"\xfe\xff"} or b"\x00" in block[:64]):
            raise SheetRefused(f"{self.where} is not UTF-8.")
        self._parse(block, end=False)
        self._fed += len(block)
        # A tag or comment that goes on and on would be held whole.
        if self._fed - self._parser.CurrentByteIndex > len(block) + _LONGEST_TAG:
            raise SheetRefused(f"{self.where} has a tag of more than {_LONGEST_TAG >> 10} KiB.")

    def end(self) -> Marks:
        """Check that the member is whole, and return what it holds."""
        self._parse(b"", end=True)
        return self.marks

    def _parse(self, block: bytes, *, end: bool) -> None:
        try:
            self._parser.Parse(block, end)
        except expat.ExpatError as error:
            raise ValidationFailed(f"{self.where} is not well-formed XML: {error}.") from None

    def _doctype(self, *_: object) -> None:
        raise SheetRefused(f"{self.where} declares a document type or entities.")

    def _declared(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding and encoding.lower() not in {"utf-8", "us-ascii", "ascii"}:
            raise SheetRefused(f"{self.where} says that it is {encoding[:40]!r}, not UTF-8.")

    def _open(self, tag: str, attributes: dict[str, str]) -> None:
        self.left -= 1
        if self.left < 0 or len(self._stack) > _MAX_DEPTH:
            raise SheetRefused(f"{self.where} has too many elements, or too many in each other.")
        parent = self._stack[-1] if self._stack else ""
        self._stack.append(tag)
        if parent == _ROW:
            self._open_cell(tag, attributes)
        elif parent == _VALUE or (tag == _ROW and _ROW in self._stack[:-1]):
            raise SheetRefused(f"{self.where}, row {self._row:,}: an element where none belongs.")
        elif tag == _ROW:
            self._open_row(attributes.get("r"))
        elif parent == _CELL and self._stack[-3] == _ROW:
            self._open_part(tag)
        elif tag == _MERGE:
            self._mark(len(self.marks.merged))
            self.marks.merged.append(attributes.get("ref", ""))

    def _open_row(self, number: str | None) -> None:
        if number is not None and not _NUMBER_OF_ROW.fullmatch(number):
            raise SheetRefused(f"{self.where} has a row {number[:20]!r}.")
        row = int(number) if number else self._row + 1
        self._place(row, 0, behind=row <= self._row)

    def _open_cell(self, tag: str, attributes: dict[str, str]) -> None:
        place = attributes.get("r")
        match = _PLACE.fullmatch(place) if place is not None else None
        if tag != _CELL or (place is not None and (match is None or int(match[2]) != self._row)):
            raise SheetRefused(
                f"{self.where}, row {self._row:,}: a cell {(place or tag)[:80]!r} that is none of it."
            )
        column = _column(match[1]) if match else self._column + 1
        self._place(self._row, column, behind=column <= self._column)
        self._type, self._value, self._formula = attributes.get("t", "n"), "", False
        self._values = 0

    def _open_part(self, tag: str) -> None:
        """Note a part of a cell: its value or formula, or inline text."""
        if tag == _VALUE:
            self._values += 1
            self._parser.CharacterDataHandler = self._text
        elif tag == _MAIN + "f":
            self._formula = True

    def _text(self, text: str) -> None:
        self._value += text[: 64 - len(self._value)]

    def _close(self, tag: str) -> None:
        self._stack.pop()
        if tag == _VALUE:
            self._parser.CharacterDataHandler = None
        elif tag == _CELL and self._stack and self._stack[-1] == _ROW:
            if self._values > 1:
                raise SheetRefused(f"{self.where}, row {self._row:,}: a cell with two values.")
            written = _WRITTEN.get(self._type)
            if self._value and not self._formula and written and not written.fullmatch(self._value):
                self._mark(len(self.marks.odd))
                self.marks.odd[self._row, self._column] = self._value

    def _mark(self, so_far: int) -> None:
        if so_far >= _MAX_MARKS:
            raise SheetRefused(f"{self.where} has more than {_MAX_MARKS:,} odd or merged cells.")

    def _place(self, row: int, column: int, *, behind: bool) -> None:
        """Check that a row or cell is near enough, and stands after the one before it."""
        if row > MAX_ROW or column > MAX_COLUMN:
            raise SheetRefused(
                f"{self.where} has a cell at row {row:,}, column {column:,}; the limits are {MAX_ROW:,} rows "
                f"and {MAX_COLUMN} columns."
            )
        if behind:
            raise SheetRefused(
                f"{self.where} has row {row:,} or one of its cells twice, or out of order."
            )
        self._row, self._column = row, column


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    return number
