"""Two versions compared: cells of the grading workbook, points of centroid files, and what is not here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from typer.testing import CliRunner

import verse_data as vd
from verse_data.api import lock_tree
from verse_data.cli.main import app
from verse_data.phantom import write
from verse_data.records.centroids import parse_centroids
from verse_data.release import Release

BOOK = "phantom_grading.xlsx"
FIRST = "dataset-phantomtraining/derivatives/sub-verse901/sub-verse901_seg-subreg_ctd.json"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write and lock a made-up release, once; tests change copies of it."""
    folder = tmp_path_factory.mktemp("built")
    made = write(folder / "tree", n_subjects=4, shape=(48, 96, 36))
    lock_tree("phantom", made, root=folder / "home")
    return folder


@pytest.fixture
def tree(built: Path, tmp_path: Path, home: Path) -> Path:
    """Copy the release, and return a copy of its files."""
    shutil.copytree(built / "home", home, symlinks=True)
    return Path(shutil.copytree(built / "tree", tmp_path / "changed"))


def change_cells(tree: Path, *cells: tuple[int, str, object]) -> None:
    """Write values into the workbook by series number and heading."""
    book = openpyxl.load_workbook(tree / BOOK)
    page = book["VerSe_dataset"]
    column = {cell.value: cell.column for cell in page[1]}
    line = {page.cell(number, 1).value: number for number in range(2, page.max_row + 1)}
    for series, heading, value in cells:
        page.cell(line[series], column[heading]).value = value
    book.save(tree / BOOK)


def change_points(tree: Path, change: Callable[[list[dict[str, float]]], object]) -> None:
    """Rewrite the centroid file of verse901."""
    entries = json.loads((tree / FIRST).read_text())
    change(entries)
    (tree / FIRST).write_text(json.dumps(entries))


def locked(tree: Path) -> Release:
    """Lock the changed tree as the next version."""
    return lock_tree("phantom", tree, check=False)


def diff(*words: str) -> str:
    """Return what ``verse-data diff phantom v1 v2`` prints."""
    answer = CliRunner().invoke(app, ["diff", "phantom", "v1", "v2", *words])
    assert answer.exit_code == 0
    return answer.stdout


def test_the_workbook_is_compared_by_cell(tree: Path) -> None:
    """A grade, a blanked level, a density and nothing else: what stood there, and what stands there."""
    rows = vd.open_release("phantom").vertebrae.set_index(["scan_id", "level"])
    assert rows.loc[("verse901", "L1"), "grade"] == 3
    change_cells(tree, (901, "L1_fx-g", 2), (901, "T11_fx-g", None), (901, "T11_fx-s", None))
    change_cells(tree, (903, "BMD", 99.5))

    found = locked(tree).diff("v1")

    assert {str(cell) for cell in found.cells} == {
        "verse901 L1: grade 3 -> 2",
        "verse901 T11: grade 0 -> blank",
        "verse901 T11: fracture_type none -> blank",
        f"verse903: bmd_mg_cm3 {rows.loc['verse903', 'bmd_mg_cm3'].iloc[0]:g} -> 99.5",
    }
    assert found.points == found.labels == found.not_compared == ()
    assert "verse901 L1: grade 3 -> 2\n" in diff()
    as_json = json.loads(diff("--json"))
    assert {
        "scan_id": "verse901",
        "level": "L1",
        "column": "grade",
        "kind": "changed",
        "old": 3,
        "new": 2,
    } in as_json["cells"]


def test_centroids_are_compared_by_point(tree: Path) -> None:
    """Moved points are told in mm of the scan's own grid, beside those that came and went."""

    def change(entries: list[dict[str, float]]) -> None:
        entries[1]["X"] += 1
        entries[2]["label"] = 1

    before = parse_centroids((tree / FIRST).read_bytes(), name=FIRST).points
    change_points(tree, change)
    newer = locked(tree)
    spacing = newer.scans.set_index("scan_id").loc["verse901", "spacing_i"]

    moved, *others = sorted(newer.diff("v1").points, key=lambda point: point.kind != "moved")

    assert (moved.scan_id, moved.level, moved.unit) == ("verse901", before[0].level, "mm")
    assert moved.distance == pytest.approx(spacing, abs=1e-3)
    assert {(p.level, p.kind) for p in others} == {
        ("C1", "appeared"),
        (before[1].level, "disappeared"),
    }
    assert f"verse901 {moved.level}: centroid moved {spacing:.1f} mm\n" in diff()


def test_bytes_that_say_the_same_are_told_so(tree: Path) -> None:
    """A workbook that was saved again, and a centroid file that was written otherwise."""
    change_cells(tree)
    change_points(tree, list)
    (tree / FIRST).write_text((tree / FIRST).read_text() + "\n")
    found = locked(tree).diff("v1")

    assert found.cells == found.points == ()
    assert f"grading workbook {BOOK}: every cell says the same" in str(found)
    assert f"centroids {FIRST}: every point is the same" in str(found)


def test_what_is_not_here_is_named(tree: Path) -> None:
    """Contents of the older version that are gone are listed, with the line that brings them."""
    change_cells(tree, (901, "L1_fx-g", 2))
    change_points(tree, lambda entries: entries.pop())
    newer = locked(tree)
    words = ["drop", "phantom", "--version", "v1", "--role", "grading,centroids", "--unchecked"]
    CliRunner().invoke(app, words)

    found = newer.diff("v1")

    assert {change.role for change in found.files} == {"grading", "centroids"}
    assert found.cells == found.points == ()
    assert {(gap.path, gap.version) for gap in found.not_compared} >= {(BOOK, "v1"), (FIRST, "v1")}
    assert "verse-data adopt phantom PATH --version v1" in diff()


def test_rows_that_came_or_went_are_named(tree: Path, tmp_path: Path) -> None:
    """A row of a series that only one of the workbooks has is one change."""
    change_cells(tree, (903, "verse_ID", 999), (903, "subject_ID", 999))

    assert [str(cell) for cell in locked(tree).diff("v1").cells] == [
        "verse999: row of the grading workbook appeared",
        "verse903: row of the grading workbook disappeared",
    ]


def test_a_broken_workbook_is_named_with_its_bad_cell(tree: Path) -> None:
    """A workbook that breaks a rule is not compared; the reason says sheet, row, column and value."""
    change_cells(tree, (901, "L1_fx-g", 7))

    (gap,) = locked(tree).diff("v1").not_compared

    assert (gap.role, gap.version) == ("grading", "v2")
    assert "column Y (L1_fx-g): 7" in gap.reason


def test_points_without_a_grid_have_no_distance(tree: Path) -> None:
    """Where no volume is here, and where the points are written for other axes, none is made up."""

    def move(entries: list[dict[str, float]]) -> None:
        entries[1]["X"] += 2.5

    def turn(entries: list[dict[str, Any]]) -> None:
        entries[0]["direction"] = ["L", "A", "S"]

    change_points(tree, move)
    newer = locked(tree)
    change_points(tree, turn)
    assert [point.kind for point in locked(tree).diff("v2").points] == ["axes"]

    for file in newer.locked(["verse901"], roles=("ct", "mask")):
        newer.files.object_path(file).parent.chmod(0o755)
        newer.files.object_path(file).unlink()

    (unknown,) = newer.diff("v1").points
    assert "distances are not known" in str(unknown)


def test_points_of_miccai_files_are_compared_in_mm(tree: Path) -> None:
    """Without a direction, points lie in a frame with voxels of 1 mm."""
    change_points(tree, lambda entries: entries.pop(0))
    locked(tree)

    def move(entries: list[dict[str, float]]) -> None:
        entries[0]["X"] += 2.5

    change_points(tree, move)
    (moved,) = locked(tree).diff("v2").points

    assert str(moved).endswith("centroid moved 2.5 mm")
