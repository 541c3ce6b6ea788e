"""README says what the catalog says."""

from __future__ import annotations

import re
from pathlib import Path

from verse_data.releases.catalog import load_catalog

README = Path(__file__).parents[2] / "README.md"
COLUMNS = ("training", "validation", "test", "all")
FIGURES = {
    "CT series": ("scans",),
    "patients": ("patients",),
    "vertebrae": ("vertebrae",),
    "fractures, grade 1 / 2 / 3": ("grade_1", "grade_2", "grade_3"),
    "foreign material": ("foreign_material",),
}


def test_the_table_of_counts_is_the_catalogs() -> None:
    """Each number in README's table of the real release stands in the catalog's published figures."""
    published = {(f.figure, f.group): f.expected for f in load_catalog("verse19").figures}
    expected = {
        title: [" / ".join(published[figure, column] for figure in figures) for column in COLUMNS]
        for title, figures in FIGURES.items()
    }
    rows = [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in README.read_text().splitlines()
        if re.match(r"\| .* \|", line)
    ]

    assert {row[0]: row[1:] for row in rows if row[0] in FIGURES} == expected


def test_the_two_commands_are_named() -> None:
    """README names the command for the demo and the one for the tests."""
    text = README.read_text()

    assert "make demo" in text
    assert "make test" in text
