"""Tables of patients as CSV files: what a grading workbook does not say, or a lab has no workbook for.

UTF-8, with a heading; one row a subject, or several that agree, where one may say what another
leaves empty. ``n/a`` counts as empty.

================================ =================================================================
column                           values
================================ =================================================================
``subject_id`` or ``subject_ID`` ``verse004``, ``sub-verse004`` or the bare number (``4``, ``004``, ``4.0``)
``sex`` or ``Sex``               ``F`` or ``M``
``contrast`` or                  ``none``, ``arterial``, ``portal_venous``, or ``ce-no``, ``ce-art``,
``Contrast Enhancement``         ``ce-pv``
``age_years`` or ``age``         years
``bmd_mg_cm3``                   lumbar bone mineral density in mg/cm3
``t_score``                      lower DXA T-score of spine and hip
================================ =================================================================

``patients.csv`` in a release fills age, sex, density and T-score of its tables. For
`report --patients`, only sex and contrast are read; other columns are not kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from verse_data.errors import ValidationFailed
from verse_data.files import read_given
from verse_data.problems import Problem, raise_problems
from verse_data.records.base import read_csv, rule_of
from verse_data.records.source_file import SourceFile
from verse_data.records.tables import PatientRow
from verse_data.tables.findings import Finding
from verse_data.tables.grading import identifier, labels
from verse_data.tables.index import Index, ScanFiles, read_small

FILLED: Final = ("age_years", "bmd_mg_cm3", "t_score")
"""What ``patients.csv`` says in place of the grading workbook."""
_FIELDS: Final = ("subject_id", "sex", *FILLED)
_PUBLISHED_FIELDS: Final = ("subject_id", "sex", "contrast")
_NAMES: Final = {
    "subject_ID": "subject_id",
    "Sex": "sex",
    "Contrast Enhancement": "contrast",
    "age": "age_years",
    **{name: name for name in PatientRow.model_fields},
}
_SUBJECT: Final = re.compile(
    r"(?:(?:sub-)?(verse[0-9]{3}|gl[0-9]{3})|(?!0+(?:\.|$))([0-9]{1,3})(?:\.0)?)"
)
_NUMBER: Final = re.compile(r"-?[0-9]{1,6}(\.[0-9]{1,17})?")
_SEXES: Final = {"F": "F", "M": "M"}
_CONTRASTS: Final = {
    **{word: word for word in ("none", "arterial", "portal_venous")},
    "ce-no": "none",
    "ce-art": "arterial",
    "ce-pv": "portal_venous",
}
_THEN: Final = "Correct these in the file, and run the command again."
_Identify = Callable[[str], str]


def read_patients(path: Path) -> tuple[PatientRow, ...]:
    """Read the patients of a published release; one row per subject, by first appearance."""
    columns, rows = _rows(read_given(path), str(path), _PUBLISHED_FIELDS)
    return _patients(str(path), columns, rows, _published_subject)


def read_own_patients(file: SourceFile, scans: Iterable[ScanFiles]) -> tuple[PatientRow, ...]:
    """Read ``patients.csv`` of a release with `scans`; a column of another meaning is an error."""
    known = labels([*scans])
    columns, rows = _rows(read_small(file), file.name, _FIELDS, only=True)

    def subject(text: str) -> str:
        number = re.fullmatch(r"([0-9]+)(\.0)?", text)
        is_number = number and text not in known
        return identifier(known, int(number[1]) if number and is_number else text)

    return _patients(file.name, columns, rows, subject)


def patient_findings(patients: Mapping[str, PatientRow], index: Index) -> Iterator[Finding]:
    """Yield the rows of ``patients.csv`` whose subject the release does not have."""
    known = {scan.own_subject for scan in index.listed}
    for subject in patients.keys() - known if index.patients else ():
        yield Finding(
            rule="patient-without-scan",
            subject_id=subject,
            file=index.patients.path if index.patients else "",
            message="the table of patients has a row of this subject, and the release no scan",
        )


def _patients(
    name: str, columns: dict[str, str], rows: list[tuple[int, dict[str, str]]], identify: _Identify
) -> tuple[PatientRow, ...]:
    """Return one row per subject, or raise for all that is wrong."""
    problems = list[Problem]()
    people: dict[str, dict[str, Any]] = {}
    first: dict[str, int] = {}
    for number, row in rows:
        problem = partial(Problem, file=name, row=number)
        values: dict[str, Any] = {}
        faults = len(problems)
        for column, heading in columns.items():
            text = "" if row[heading] == "n/a" else row[heading]
            try:
                values[column] = _value(column, text, identify)
            except ValueError as error:
                rule = str(error)
                if isinstance(error, ValidationError):
                    rule = rule_of(error.errors()[0])
                problems.append(problem(column=heading, value=text or None, rule=rule))
        if len(problems) > faults:
            continue
        subject = values["subject_id"]
        known = people.setdefault(subject, {})
        first.setdefault(subject, number)
        filled = {column: value for column, value in values.items() if value is not None}
        for column, value in filled.items():
            if known.setdefault(column, value) != value:
                rule = f"row {first[subject]} has another value for {subject}"
                text = row[columns[column]]
                problems.append(problem(column=columns[column], value=text, rule=rule))
    raise_problems(problems, what=name, then=_THEN)
    return tuple(PatientRow.model_validate(values) for values in people.values())


def _value(column: str, text: str, identify: _Identify) -> Any:
    """Return the value of a field, None where it is empty; raise ValueError with the rule."""
    if column == "subject_id":
        return identify(text)
    if not text:
        return None
    if column in FILLED:
        if not _NUMBER.fullmatch(text):
            raise ValueError("is not a number with a decimal point")
        row = PatientRow.model_validate({"subject_id": "one", column: float(text)})
        return getattr(row, column)
    words = _SEXES if column == "sex" else _CONTRASTS
    if text not in words:
        raise ValueError(f"is not one of {', '.join(words)}")
    return words[text]


def _published_subject(text: str) -> str:
    match = _SUBJECT.fullmatch(text)
    if match is None:
        raise ValueError("is not a subject such as verse004 or 4")
    return match[1] or f"verse{int(match[2]):03d}"


def _rows(
    data: bytes, name: str, fields: Collection[str], *, only: bool = False
) -> tuple[dict[str, str], list[tuple[int, dict[str, str]]]]:
    """Return the heading of each of `fields`, and number and fields of each row.

    With `only`, any other column is an error: it may hold a name, and a release is handed on.
    """
    (_, given), *rows = read_csv(data, name=name)
    words = ["age" if field == "age_years" else field for field in fields]
    headings = [heading for heading in given if _NAMES.get(heading) in fields]
    columns = {_NAMES[heading]: heading for heading in headings}
    if "subject_id" not in columns or not 1 < len(columns) == len(headings):
        found = ", ".join(map(repr, given[:20]))
        raise ValidationFailed(
            f"{name}, row 1: a column subject_id, and one of {', '.join(words[1:-1])} and {words[-1]}, "
            f"are needed, each once; the columns are {found}. {_THEN}"
        )
    others = [heading for heading in given if heading not in headings]
    if only and others:
        raise ValidationFailed(
            f"{name}, row 1: other columns than {', '.join(words)}: {', '.join(map(repr, others))}. "
            f"Remove them: the file becomes part of the release as it is."
        )
    return columns, [(row, dict(zip(given, cells, strict=True))) for row, cells in rows]
