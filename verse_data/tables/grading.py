"""From the cells of the workbook or list of grades to checked rows: all problems, then one error.

One strict parser per column defines what its cells may hold; nothing is coerced.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

from verse_data.errors import counted
from verse_data.problems import Problem, raise_problems
from verse_data.records.base import rule_of
from verse_data.records.names import is_scan_id
from verse_data.records.tables import (
    FRACTURE_TYPES,
    SPLIT_OF_DATASET,
    GradingRow,
    ListedGrades,
    pair_rule,
)
from verse_data.spine.levels import GRADED_LEVELS, LEVELS
from verse_data.tables.index import Index, ScanFiles, finder_of
from verse_data.tables.workbook import Sheet, SheetRow, read_sheet

_REMEDY: Final = (
    "Correct these cells in the file, or get it again from its source, and read it again."
)
_LABEL: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_SERIES: Final = re.compile(r"([1-9]) of ([1-9])")
_SCAN: Final = re.compile(r"[A-Za-z0-9]+(_[A-Za-z0-9]+-[A-Za-z0-9]+)*")
_FOREIGN: Final = {"true": True, "1": True, "false": False, "0": False}
_COUNTS: Final = {"foreign_material": "x", "N_Fx": ">0"}
"""What the workbook's own formulas count in the grades of their row."""
_SHARED: Final = (
    ("dataset", "split"),
    ("age_ct", "age_years"),
    ("BMD", "bmd_mg_cm3"),
    ("CT_device", "ct_device"),
    ("DXA T-value", "t_score"),
)
"""Heading and field of values that must be equal in all rows of a subject."""

Parse = Callable[[Any], Any]
"""Returns the value of a cell (None: blank), or raises ValueError with the rule of its column."""
_Known = Mapping[Any, set[str]]
"""The labels that a cell may mean: by the label itself, and by its number."""


@dataclass(frozen=True)
class GradedRow:
    """A row, its cells, and the headings of its invalid cells, whose fields are None.

    Of a list of grades, it stands for all lines of one scan, and `source` is the first of them.
    """

    row: GradingRow
    source: SheetRow
    bad: frozenset[str] = frozenset()
    listed_scan: str = ""

    @property
    def number(self) -> int:
        """Number of the row in the file."""
        return self.source.number

    @property
    def scan_id(self) -> str:
        """Id of the scan; the workbook names its series and its person."""
        return self.listed_scan or self.row.scan_id


@dataclass(frozen=True)
class Grading:
    """The grading workbook, read and checked; rows in the order of the file."""

    sheet: Sheet
    rows: tuple[GradedRow, ...]

    def by_scan(self, index: Index) -> dict[str, GradingRow]:
        """Return the row of each scan.

        The workbook names series: a row that could be of several scans is of none.
        """
        if self.sheet.is_list:
            return {graded.scan_id: graded.row for graded in self.rows}
        rows = {graded.row.series_id: graded.row for graded in self.rows}
        return {
            scan.scan_id: rows[scan.series_id]
            for scan in index.scans
            if scan.series_id in rows and scan.series_id not in index.shared_series
        }


def read_grading(path: Path, *, name: str | None = None) -> Grading:
    """Read and check the workbook at `path`, .xlsx or a CSV export; errors call it `name`."""
    return check_sheet(read_sheet(path, name=name))


def check_sheet(
    sheet: Sheet, scans: Sequence[ScanFiles] = (), *, without_t12: Collection[str] = ()
) -> Grading:
    """Return the rows of a sheet of `scans`, or raise ValidationFailed for all broken rules at once.

    Series in `without_t12` may have a blank T12 between graded levels.
    """
    grading, problems = examine(sheet, scans, without_t12=without_t12)
    raise_problems(problems, what=sheet.file, then=_REMEDY)
    rows = (replace(g, row=type(g.row).model_validate(dict(g.row))) for g in grading.rows)
    return Grading(sheet, tuple(rows))


def examine(
    sheet: Sheet, scans: Sequence[ScanFiles] = (), *, without_t12: Collection[str] = ()
) -> tuple[Grading, list[Problem]]:
    """Return the rows of `sheet` whose cells are all good, and every broken rule, in row order.

    Rules between cells and between rows look at all good cells, those of rows with a bad one too.
    A number in a cell means the label among `scans` that has it, else a published one.
    """
    problems: list[Problem] = []
    if sheet.is_list:
        return Grading(sheet, tuple(_listed_rows(sheet, scans, problems))), problems
    known = labels(scans)
    rows = [read_cells(sheet, source, problems, known) for source in sheet.rows]
    for graded in rows:
        excused = graded.row.series_id in without_t12
        for headings, rule in graded.row.broken_rules(may_lack_t12=excused):
            # The meaning of an invalid cell is not known.
            if graded.bad.isdisjoint(headings):
                problems.append(_problem(sheet, graded.source, headings[0], rule))
    for graded, heading, rule in _between_rows(rows):
        problems.append(_problem(sheet, graded.source, heading, rule))
    if not rows:
        rule = "no row below the heading"
        problems.append(Problem(file=sheet.file, sheet=sheet.sheet, rule=rule))
    problems.sort(key=lambda problem: problem.row or 0)
    return Grading(sheet, tuple(graded for graded in rows if not graded.bad)), problems


def _problem(sheet: Sheet, row: SheetRow, heading: str, rule: str) -> Problem:
    return Problem(
        file=sheet.file,
        sheet=sheet.sheet,
        row=row.number,
        column=sheet.column(heading),
        value=row.cells.get(heading),
        rule=rule,
    )


def read_cells(sheet: Sheet, source: SheetRow, problems: list[Problem], known: _Known) -> GradedRow:
    """Return the values of a row's valid cells, and add each invalid one to `problems`."""
    bad: set[str] = set()

    def take(heading: str, parse: Parse) -> Any:
        value = source.cells.get(heading)
        if value is None and heading in sheet.blank:
            return None
        if heading in _COUNTS and isinstance(value, str):
            # The counts of the workbook's own formulas are recomputed; CSV has other row numbers.
            row = source.number if sheet.sheet else "([0-9]+)"
            formula = rf'=COUNTIF\(\$?M\$?{row}:\$?AD\$?{row},\s*"{_COUNTS[heading]}"\)'
            value = None if re.fullmatch(formula, value) else value
        try:
            return parse(value)
        except ValidationError as error:
            rule = rule_of(error.errors()[0])
        except ValueError as error:
            rule = str(error)
        bad.add(heading)
        problems.append(_problem(sheet, source, heading, rule))
        return None

    number, count = take("CT_image_series", _k_of_n) or (None, None)
    identify = partial(identifier, known)
    values = {field: take(heading, parse or identify) for field, heading, parse in FIELDS}
    values |= {"series_number": number, "series_count": count}
    for field, letter in (("grades", "g"), ("shapes", "s")):
        marks = {level: take(f"{level}_fx-{letter}", _mark) for level in GRADED_LEVELS}
        values[field] = {level: mark for level, mark in marks.items() if mark is not None}
    # Not validated here: rules between cells are checked where the row is known, for the message.
    return GradedRow(GradingRow.model_construct(**values), source, frozenset(bad))


_Seen = Iterator[tuple[GradedRow, str, str]]
"""Row, heading and broken rule."""


def _between_rows(rows: Sequence[GradedRow]) -> _Seen:
    """Yield duplicate series, and values that differ between rows of one person."""
    first: dict[str, GradedRow] = {}
    persons: dict[str, list[GradedRow]] = defaultdict(list)
    for graded in rows:
        if "verse_ID" not in graded.bad:
            known = first.setdefault(graded.row.series_id, graded)
            if known is not graded:
                yield graded, "verse_ID", f"row {known.number} has this series already"
                # A row that was copied whole is one mistake, not several.
                if _part(known) == _part(graded):
                    continue
        if "subject_ID" not in graded.bad:
            persons[graded.row.subject_id].append(graded)
    unassigned = sum("subject_ID" in graded.bad for graded in rows)
    for subject, own in persons.items():
        yield from _of_one_person(subject, own, unassigned)


def _of_one_person(subject: str, own: list[GradedRow], unassigned: int) -> _Seen:
    """Yield where a person's rows differ or are not 1 to n of n; `unassigned` ones may fit."""
    for heading, field in _SHARED:
        good = [graded for graded in own if heading not in graded.bad]
        for graded in good[1:]:
            first = getattr(good[0].row, field)
            if getattr(graded.row, field) != first:
                rule = f"row {good[0].number} has {first!r} for the same subject {subject}"
                yield graded, heading, rule
    seen: dict[int, int] = {}
    for graded in own:
        if "CT_image_series" in graded.bad:
            continue
        number, count = _part(graded)
        rule = f"subject {subject} has {counted(len(own), 'row')}"
        if number in seen:
            rule = f"row {seen[number]} has the same number for subject {subject}"
        if number in seen or not len(own) <= count <= len(own) + unassigned:
            yield graded, "CT_image_series", rule
        seen[number] = graded.number


def _part(graded: GradedRow) -> tuple[Any, Any]:
    return graded.row.series_number, graded.row.series_count


def _listed_rows(
    sheet: Sheet, scans: Sequence[ScanFiles], problems: list[Problem]
) -> Iterator[GradedRow]:
    """Yield a row for each scan of a list of grades, and add each invalid cell to `problems`."""
    find = finder_of(scans)
    first: dict[tuple[str, str], int] = {}
    marks = defaultdict[str, dict[str, tuple[Any, Any]]](dict)
    sources: dict[str, SheetRow] = {}
    for line in sheet.rows:
        faults: dict[str, str] = {}
        scan_id, level = _listed_scan(find, line.cells.get("scan_id")), line.cells.get("level")
        if scan_id is None:
            faults["scan_id"] = "is not the id of a scan, such as lab001 or lab002_split-lab102"
        if level not in LEVELS:
            faults["level"] = f"is not a level from {LEVELS[0]} to {LEVELS[-1]}, such as T12"
        grade, shape = _listed_marks(line.cells, faults)
        if not faults:
            number = first.setdefault((str(scan_id), str(level)), line.number)
            if number != line.number:
                faults["level"] = f"row {number} has {level} of {scan_id} already"
        problems += [_problem(sheet, line, heading, rule) for heading, rule in faults.items()]
        if not faults:
            sources.setdefault(str(scan_id), line)
            marks[str(scan_id)][str(level)] = grade, shape
    for scan_id, source in sources.items():
        subject, _, series = scan_id.partition("_split-")
        scan, found = find(scan_id), marks[scan_id]
        values: dict[str, Any] = dict.fromkeys(ListedGrades.model_fields)
        values["subject_id"] = scan.own_subject if scan else subject.partition("_")[0]
        values["series_id"] = scan.series_id if scan else series or values["subject_id"]
        values["grades"] = {x: grade for x, (grade, _) in found.items() if grade is not None}
        values["shapes"] = {x: shape for x, (_, shape) in found.items() if shape is not None}
        yield GradedRow(ListedGrades.model_construct(**values), source, listed_scan=scan_id)


def _listed_scan(find: Callable[[str], ScanFiles | None], value: Any) -> str | None:
    """Return the scan id in a cell, or None if it cannot be one."""
    name = str(value).removeprefix("sub-")
    if scan := find(name):
        return scan.scan_id
    return name if is_scan_id(name) and _SCAN.fullmatch(name) else None


def _listed_marks(cells: Mapping[str, Any], faults: dict[str, str]) -> tuple[Any, Any]:
    """Return grade and shape code in a line of a list, ``"x"`` or None, and add what is wrong."""
    grade, shape, foreign = (
        cells.get(heading) for heading in ("grade", "fracture_type", "foreign_material")
    )
    try:
        grade = _mark(grade)
    except ValueError as error:
        faults["grade"] = str(error)
    if (is_foreign := _FOREIGN.get(str(foreign).lower())) is None and foreign is not None:
        faults["foreign_material"] = "is not true or false"
    if not faults and (
        (is_foreign and grade is not None) or (is_foreign is False and grade == "x")
    ):
        faults["foreign_material"] = "a vertebra has a grade or foreign material, not both"
    grade = "x" if is_foreign else grade
    if shape is None:
        return grade, grade if grade in {0, "x"} else None
    if shape not in FRACTURE_TYPES:
        faults["fracture_type"] = f"is not one of {', '.join(FRACTURE_TYPES)}"
        return grade, None
    code = FRACTURE_TYPES.index(shape)
    rule = "foreign material goes without a fracture type" if grade == "x" else None
    if "grade" not in faults and (rule := rule or pair_rule(grade, code)):  # type: ignore[arg-type]
        faults["fracture_type"] = rule
    return grade, code


def labels(scans: Sequence[ScanFiles]) -> _Known:
    """Return the labels of series and persons that a cell may mean."""
    known = defaultdict[Any, set[str]](set)
    for label in {label for scan in scans for label in (scan.series_id, scan.own_subject)}:
        known[label].add(label)
        if match := re.fullmatch("(?:verse)?([0-9]+)", label):
            known[int(match[1])].add(label)
    return known


def identifier(known: _Known, value: Any) -> str:
    """Return the label of a series or person in a cell: a number, or as in file names."""
    key = value.removeprefix("sub-") if isinstance(value, str) else value
    meant = known.get(key) or set()
    if not meant and type(value) is int and 0 < value < 1000:
        meant = {f"verse{value:03d}"}
    elif not meant and isinstance(key, str) and _LABEL.fullmatch(key):
        meant = {key}
    if not meant or type(value) is bool:
        label = "a label as in file names, such as patient07"
        raise ValueError(f"is neither a whole number from 1 to 999 nor {label}")
    if len(meant) > 1:
        raise ValueError(f"may be {' or '.join(sorted(meant))}: write which, as a text")
    return min(meant)


def _split(value: Any) -> str:
    if value not in SPLIT_OF_DATASET:
        raise ValueError(f"is not one of {', '.join(map(repr, SPLIT_OF_DATASET))}")
    return SPLIT_OF_DATASET[value]


def _k_of_n(value: Any) -> tuple[int, int]:
    match = _SERIES.fullmatch(str(value))
    if match is None:
        raise ValueError("is not of the form '1 of 2'")
    return int(match[1]), int(match[2])


def _t_score(value: Any) -> Any:
    if value is None:
        raise ValueError("the cell is empty: write a number, or n/a")
    return None if value == "n/a" else _by_model("t_score")(value)


def _mark(value: Any) -> Any:
    """Return the grade or shape code in a cell, ``"x"``, or None for not assessed."""
    if value in {None, "x"} or (type(value) is int and 0 <= value <= 3):
        return value
    raise ValueError("only 0, 1, 2, 3, x or an empty cell may stand here")


def _by_model(field: str, *, may_be_empty: bool = False) -> Parse:
    """Return a parser that checks a cell by the model's rules for `field`."""
    info = GradingRow.model_fields[field]
    (value_type,) = {*get_args(info.annotation)} - {NoneType}
    kind: Any = Annotated[info.annotation if may_be_empty else value_type, info]
    adapter = TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False))

    def parse(value: Any) -> Any:
        if type(value) is bool:
            raise ValueError("is true or false where a number is needed")
        return adapter.validate_python(value)

    return parse


FIELDS: Final[tuple[tuple[str, str, Parse | None], ...]] = (
    ("series_id", "verse_ID", None),
    ("subject_id", "subject_ID", None),
    ("split", "dataset", _split),
    ("age_years", "age_ct", _by_model("age_years")),
    ("ct_device", "CT_device", _by_model("ct_device")),
    ("resolution_mm", "Res", _by_model("resolution_mm")),
    ("bmd_mg_cm3", "BMD", _by_model("bmd_mg_cm3")),
    ("t_score", "DXA T-value", _t_score),
    ("n_vertebrae", "N_vertebrae", _by_model("n_vertebrae")),
    ("foreign_material", "foreign_material", _by_model("foreign_material", may_be_empty=True)),
    ("n_fractures", "N_Fx", _by_model("n_fractures", may_be_empty=True)),
)
"""Field of the record, heading of the column, and parser of its cells; None parses an identifier."""
