"""A release counted: patients, series, and vertebrae by split, status, grade and level."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import workbooks
from tests.support.releases import tables, write_scan
from tests.support.workbooks import row
from verse_data.tables.summary import Summary, summarize


@pytest.fixture
def summary(tmp_path: Path) -> Summary:
    """One patient of two series in training, one without a row in the workbook in test."""
    root = tmp_path / "tree"
    write_scan(root, "verse401_split-verse201", [17, 18, 19, 28, 20])
    write_scan(root, "verse401_split-verse253", [17, 18, 19, 20, 21, 22])
    write_scan(root, "verse012", [7, 8], split="test")
    rows = [
        row(201, subject=401, part="1 of 2"),
        row(253, subject=401, part="2 of 2", **{"L4_fx-g": "x", "L4_fx-s": "x"}),
    ]
    workbooks.write_csv(root / "grading.csv", rows)
    made = tables(root)
    return summarize(made.scans, made.vertebrae, release="lab", version="v1")


def test_patients_series_and_status_are_counted_by_split(summary: Summary) -> None:
    """A patient of two series counts once, each vertebra once a series, a blank as not assessed."""
    counts = summary.counts

    assert list(counts.columns) == ["training", "test", "all"]
    assert counts.loc["patients"].tolist() == [1, 1, 2]
    assert counts.loc["series"].tolist() == [2, 1, 3]
    assert counts.loc["vertebrae"].tolist() == [15, 2, 17]
    status = ["graded", "foreign material", "not assessed", "no mask"]
    assert counts.loc[status, "training"].tolist() == [10, 0, 1, 4]
    assert counts.loc[status, "test"].tolist() == [0, 0, 2, 0]
    assert counts.loc[status].sum().tolist() == counts.loc["vertebrae"].tolist()
    assert counts.loc[["fractures", "grade 2", "grade 0"], "all"].tolist() == [2, 2, 11]


def test_levels_stand_in_spine_order_with_their_grades(summary: Summary) -> None:
    """T13 is below T12; foreign material is no grade; each row adds up."""
    levels = summary.levels["all"]

    assert list(levels.index) == ["C7", "T1", "T10", "T11", "T12", "T13", "L1", "L2", "L3", "L4"]
    assert levels.loc["L1"].tolist() == [0, 0, 2, 0, 0, 0, 2]
    assert levels.loc["L4"].tolist() == [1, 0, 0, 0, 1, 0, 2]
    assert levels.loc["T13", "no grade"] == 1
    assert (levels.drop(columns="vertebrae").sum(axis=1) == levels["vertebrae"]).all()


def test_a_summary_is_text_json_and_a_table(summary: Summary) -> None:
    """All three say the same, and JSON has each split with names for programs."""
    value = json.loads(json.dumps(summary.as_json()))

    assert value["counts"]["training"]["no_mask"] == 4
    assert value["levels"]["test"]["C7"] == {
        "grade_0": 0, "grade_1": 0, "grade_2": 0, "grade_3": 0,
        "foreign_material": 0, "no_grade": 1, "vertebrae": 1,
    }  # fmt: skip
    assert repr(summary).startswith("<Summary of lab v1: 2 patients, 3 CT series, 17 vertebrae>")
    assert "T13" in str(summary)
    assert "T13" in summary._repr_html_()


def test_a_release_without_vertebrae_is_counted_too(tmp_path: Path) -> None:
    """Scans of which neither mask nor centroids nor grades are known have no levels."""
    write_scan(tmp_path, "verse012", [7])
    made = tables(tmp_path)
    empty = summarize(made.scans, made.vertebrae[:0], release="lab", version="v1")

    assert empty.counts.loc["vertebrae", "all"] == 0
    assert "T1" not in str(empty)
    assert "by level" not in empty._repr_html_()
