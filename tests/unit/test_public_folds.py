"""Published fold lists of others: how many patients leak in each, as docs/folds.md says."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from pathlib import Path

import pytest

from verse_data.tables.leaks import LeakReport, find_leaks
from verse_data.tables.split_files import read_splits

DOCS = Path(__file__).parents[2] / "docs" / "folds.md"


@pytest.fixture
def folds(shared: Path) -> Path:
    """Folder of the lists, ids only."""
    return shared / "data" / "lists" / "folds"


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of one of the lists."""
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def reports(path: Path) -> list[LeakReport]:
    """Return what is found in each split of a file or folder."""
    return [find_leaks(sides) for sides in read_splits([str(path)]).values()]


def documented(name: str) -> list[int]:
    """Return the numbers in the last cell of the row of `docs/folds.md` that names a list."""
    (row,) = (line for line in DOCS.read_text("utf-8").splitlines() if name in line)
    return [int(number) for number in re.findall(r"\d+", row.split("|")[3])]


@pytest.mark.parametrize(
    ("name", "leaking", "row"),
    [
        ("payer2019.csv", [7, 5, 4], "`verse2019_dataset/setup/cv`"),
        ("payer2020.csv", [0, 0, 0], "`verse2020_dataset/setup/cv`"),
        ("vista3d.csv", [15], "`vista3d/data/jsons/VerSe_5_folds.json`"),
    ],
)
def test_public_lists_leak_as_the_docs_say(folds: Path, name: str, leaking, row: str) -> None:
    """Every entry of the list names a patient, and these many are on two sides of each split."""
    found = reports(folds / name)

    assert [len(report.leaks) for report in found] == leaking == documented(row)
    assert not any(report.unknown for report in found)


def test_a_folder_of_lists_leaks_as_its_table_does(folds: Path, tmp_path: Path) -> None:
    """Payer's own form, ``cv/0/train.txt``, gives the same patients as the table of them."""
    for row in rows_of(folds / "payer2019.csv"):
        path = tmp_path / "cv" / row["fold"] / f"{row['side']}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as stream:
            stream.write(f"{row['name']}\n")

    of_folder, of_table = reports(tmp_path), reports(folds / "payer2019.csv")
    assert [leaking(report) for report in of_folder] == [leaking(report) for report in of_table]


def test_vista3d_leaks_between_folds_and_into_testing(folds: Path, tmp_path: Path) -> None:
    """12 patients are in two folds, and 4 in a fold and in testing, also from the datalist itself."""
    lists: defaultdict[str, list[dict[str, object]]] = defaultdict(list)
    for row in rows_of(folds / "vista3d.csv"):
        is_test = row["fold"] == "testing"
        item = {"image": f"rawdata/sub-{row['scan_id']}_ct.nii.gz", "label": "x"}
        lists["testing" if is_test else "training"].append(
            item if is_test else {**item, "fold": int(row["fold"])}
        )
    path = tmp_path / "VerSe_5_folds.json"
    path.write_text(json.dumps(lists))
    (report,) = reports(path)

    sides = {leak.subject_id: {*leak.entries} for leak in report.leaks}
    assert sum(len(own - {"testing"}) > 1 for own in sides.values()) == 12
    assert {name for name, own in sides.items() if "testing" in own} == {
        "verse403", "verse405", "verse411", "verse412",
    }  # fmt: skip
    assert leaking(report) == leaking(reports(folds / "vista3d.csv")[0])


def leaking(report: LeakReport) -> list[str]:
    """Return the patients on two sides."""
    return [leak.subject_id for leak in report.leaks]
