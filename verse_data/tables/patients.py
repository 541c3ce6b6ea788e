"""The optional patient table: sex and contrast, which the published workbook does not hold.

A CSV file with a heading, UTF-8, one row a subject or one a series:

================================ =================================================================
column                           values
================================ =================================================================
``subject_id`` or ``subject_ID`` ``verse004``, ``sub-verse004`` or the bare number (``4``, ``004``, ``4.0``)
``sex`` or ``Sex``               ``F`` or ``M``; empty where unknown
``contrast`` or                  ``none``, ``arterial``, ``portal_venous``, or ``ce-no``, ``ce-art``,
``Contrast Enhancement``         ``ce-pv``; empty where unknown
================================ =================================================================

``sex`` and ``contrast`` may be missing as columns. Rows of one subject must agree; what one row leaves
empty, another may say. Other columns are neither read nor kept.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any, Final

from verse_data.errors import ValidationFailed
from verse_data.records.tables import PatientRow
from verse_data.tables.findings import Problem, raise_problems

_LIMIT: Final = 8 << 20
_NAMES: Final = {
    "subject_id": "subject_id",
    "subject_ID": "subject_id",
    "sex": "sex",
    "Sex": "sex",
    "contrast": "contrast",
    "Contrast Enhancement": "contrast",
}
_SUBJECT: Final = re.compile(
    r"(?:(?:sub-)?(verse[0-9]{3}|gl[0-9]{3})|(?!0+(?:\.|$))([0-9]{1,3})(?:\.0)?)"
)
_SEX: Final = {"F": "F", "M": "M"}
_CONTRAST: Final = {
    "none": "none",
    "arterial": "arterial",
    "portal_venous": "portal_venous",
    "ce-no": "none",
    "ce-art": "arterial",
    "ce-pv": "portal_venous",
}
_THEN: Final = "The columns are documented in verse_data.tables.patients."


def read_patients(path: Path, *, name: str | None = None) -> tuple[PatientRow, ...]:
    """Read a patient table; rows of one subject must agree.

    Returns
    -------
    tuple of PatientRow
        One a subject, in the order of first appearance.

    Raises
    ------
    ValidationFailed
        For all bad cells at once, with row, column and value.
    """
    called = name or path.name
    lines = _lines(path, called)
    heading = lines[0][1]
    chosen = {_NAMES[word]: place for place, word in enumerate(heading) if word in _NAMES}
    if "subject_id" not in chosen or not chosen.keys() & {"sex", "contrast"}:
        found = ", ".join(map(repr, heading[:20]))
        raise ValidationFailed(
            f"{called}, row 1: a column subject_id, and one of sex and contrast, are needed; "
            f"the columns are {found}. {_THEN}"
        )
    if len(chosen) < sum(word in _NAMES for word in heading):
        raise ValidationFailed(f"{called}, row 1: a column occurs twice. {_THEN}")
    problems: list[Problem] = []
    rows: dict[str, tuple[int, PatientRow]] = {}
    for number, fields in lines[1:]:
        if len(fields) != len(heading):
            rule = f"{len(fields)} fields where the heading has {len(heading)}"
            problems.append(Problem(file=called, row=number, rule=rule))
            continue
        row = _row(called, number, {key: fields[place] for key, place in chosen.items()}, problems)
        if row is None:
            continue
        first, known = rows.setdefault(row.subject_id, (number, row))
        merged = _merged(known, row)
        if merged is None:
            rule = f"row {first} says otherwise of {row.subject_id}"
            problems.append(Problem(file=called, row=number, rule=rule))
        else:
            rows[row.subject_id] = (first, merged)
    raise_problems(problems, what=called, then=_THEN)
    return tuple(row for _, row in rows.values())


def _merged(one: PatientRow, other: PatientRow) -> PatientRow | None:
    """Return what two rows of one subject say together, or None if they contradict each other."""
    sex, contrast = one.sex or other.sex, one.contrast or other.contrast
    if other.sex not in {sex, None} or other.contrast not in {contrast, None}:
        return None
    return PatientRow(subject_id=one.subject_id, sex=sex, contrast=contrast)


def _row(
    file: str, number: int, fields: dict[str, str], problems: list[Problem]
) -> PatientRow | None:
    values: dict[str, Any] = {"sex": None, "contrast": None}
    before = len(problems)
    for column, text in fields.items():
        if column == "subject_id":
            match = _SUBJECT.fullmatch(text)
            value = (match[1] or f"verse{int(match[2]):03d}") if match else None
            rule = "is no subject such as verse004 or 4"
        else:
            words = _SEX if column == "sex" else _CONTRAST
            value, rule = words.get(text), f"is none of {', '.join(words)}"
            if text == "":
                continue
        if value is None:
            problem = Problem(file=file, row=number, column=column, value=text, rule=rule)
            problems.append(problem)
        values[column] = value
    return PatientRow(**values) if len(problems) == before else None


def _lines(path: Path, name: str) -> list[tuple[int, list[str]]]:
    data = path.read_bytes()
    if len(data) > _LIMIT:
        raise ValidationFailed(f"{name}: {len(data):,} bytes are over the limit of {_LIMIT:,}.")
    try:
        text = data.decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [(reader.line_num, fields) for fields in reader if any(fields)]
    except UnicodeDecodeError as error:
        found = f"byte {error.start} is {data[error.start]:#04x}"
        raise ValidationFailed(f"{name}: not UTF-8: {found}. Save it as CSV UTF-8.") from None
    except csv.Error as error:
        raise ValidationFailed(f"{name}: not CSV: {error}. {_THEN}") from None
    if not lines:
        raise ValidationFailed(f"{name}: the file is empty. {_THEN}")
    return lines
