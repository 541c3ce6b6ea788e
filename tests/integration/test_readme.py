"""README says what the catalog and the benchmarks say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from verse_data.releases.catalog import load_catalog

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/tutorials/*.md")]
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


def test_the_chart_is_that_of_the_numbers(tmp_path: Path) -> None:
    """README's chart of speed is what its script draws out of the table in docs/benchmarks.md."""
    drawn = tmp_path / "chart.svg"
    subprocess.run([sys.executable, ROOT / "benchmarks" / "chart.py", drawn], check=True)

    assert (ROOT / "docs/images/loader-speed.svg").read_text() == drawn.read_text()


def test_every_page_is_in_the_contents_of_the_site() -> None:
    """No page of docs can be reached by its address alone: each is in a toctree."""
    trees = [
        tree
        for page in [*ROOT.glob("docs/*.md"), ROOT / "docs/reference/index.md"]
        for tree in re.findall(r"```\{toctree\}(.*?)```", page.read_text(), re.DOTALL)
    ]
    listed = {line.removeprefix("../") for tree in trees for line in tree.splitlines()}

    assert {page.stem for page in ROOT.glob("docs/*.md")} - listed == {"index"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_are_here(page: Path) -> None:
    """A page can be read in the repository too: no link to what is only generated for the site."""
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [link for link in links if not link.startswith(("https:", "mailto:"))]

    assert [
        link for link in local if "generated" in link or not (page.parent / link).exists()
    ] == []


def test_every_page_with_blocks_is_run_with_the_suite() -> None:
    """Nothing keeps pytest from the pages of docs, as a plugin of DataLad once did without a word."""
    asked = [sys.executable, "-m", "pytest", "-n0", "--collect-only", "-qq", "docs"]
    found = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    blocks = {
        f"docs/{page.name}"
        for page in ROOT.glob("docs/*.md")
        if re.search(r"^```(python|console)$", page.read_text(), re.MULTILINE)
    }

    assert len(blocks) > 20
    assert {line.partition(":")[0] for line in found.splitlines() if line} >= blocks
