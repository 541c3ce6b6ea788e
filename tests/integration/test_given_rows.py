"""Rows that a user gives choose vertebrae; what is served of them is what the version says."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import verse_data as vd
from verse_data.api import lock_tree
from verse_data.errors import UsageError
from verse_data.phantom import write as write_phantom
from verse_data.release import Release
from verse_data.training import VertebraDataset

pytestmark = pytest.mark.usefixtures("one_core")

CROPS: dict[str, Any] = {"unit": "vertebra", "crop_size_mm": 16.0}
GRADED = "split == 'training' and grade_status == 'graded'"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A small phantom."""
    folder = tmp_path_factory.mktemp("rows")
    tree = write_phantom(folder / "tree", n_subjects=8, shape=(40, 88, 32), seed=11)
    return lock_tree("phantom", tree, root=folder / "home")


@pytest.fixture
def rows(release: Release) -> pd.DataFrame:
    """Graded vertebrae of the training split."""
    return release.select(GRADED)


def facts(data: Any) -> list[dict[str, Any]]:
    """Return what the samples say, but for the volumes."""
    names = ("scan_id", "subject_id", "split", "level", "vertebra_label", "grade", "fracture_type")
    return [{name: data[n][name] for name in names} for n in range(len(data))]


def with_value(column: str, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Return what puts `value` into `column` of the third row."""

    def change(rows: pd.DataFrame) -> pd.DataFrame:
        changed = rows.astype({column: object})
        changed.iloc[2, changed.columns.get_loc(column)] = value
        return changed

    return change


WRONG = {
    "grade": lambda row: (int(row["grade"]) + 1) % 4,
    "grade beyond 3": lambda _: 7,
    "grade below 0": lambda _: -1,
    "grade in words": lambda _: "severe",
    "grade that wraps around": lambda row: int(row["grade"]) + 256,
    "fracture_type": lambda row: "crush" if row["fracture_type"] != "crush" else "wedge",
    "foreign_material": lambda _: True,
    "grade_status": lambda _: "foreign_material",
    "label": lambda row: int(row["label"]) - 1,
    "region": lambda _: "cervical",
    "subject_id": lambda _: "verse998",
    "split": lambda _: "test",
    "centroid_x": lambda row: float(row["centroid_x"]) + 0.5,
    "centroid_k": lambda row: float(row["centroid_k"]) - 3,
    "has_mask": lambda _: False,
    "voxels": lambda row: int(row["voxels"]) + 1,
    "bmd_mg_cm3": lambda _: 300.0,
    "age_years": lambda _: 20.0,
}
"""By column, with a remark where a column stands twice: another value than that of `row`."""


CASES = [("vertebra", case) for case in WRONG] + [("patch", "grade"), ("scan", "subject_id")]


@pytest.mark.parametrize(("unit", "case"), CASES)
def test_a_value_that_the_version_does_not_have_is_refused(
    release: Release, rows: pd.DataFrame, unit: str, case: str
) -> None:
    """The error names scan, level, column, the value found, the version's own, and what to give."""
    column, third = case.split(maxsplit=1)[0], rows.iloc[2]
    value = WRONG[case](third)

    with pytest.raises(UsageError) as caught:
        release.dataset(with_value(column, value)(rows), unit=unit)

    text = str(caught.value)
    place = f"{third['scan_id']} {third['level']}: {column} is {value}, not {third[column]}"
    assert "1 given row with 1 value that phantom v1 does not have" in text
    assert place in text
    assert "rows[['scan_id', 'level']]" in text


def test_a_blank_where_the_version_has_no_grade_is_no_grade(release: Release) -> None:
    """A grade for a vertebra that this version has not assessed is refused."""
    rows = release.select("split == 'training' and missing(grade)")
    assert len(rows) > 2

    with pytest.raises(UsageError, match="grade is 0, not blank"):
        release.dataset(with_value("grade", 0)(rows), **CROPS, include=("not_assessed",))


def test_only_the_first_contradictions_are_shown_and_all_are_counted(
    release: Release, rows: pd.DataFrame
) -> None:
    """A file of another version has hundreds: twenty are shown, in the order of the rows."""
    moved = rows.assign(centroid_y=rows["centroid_y"] + 9)

    with pytest.raises(UsageError, match=rf"{len(rows)} given rows with {len(rows)} values") as e:
        release.dataset(moved, **CROPS)

    assert str(e.value).count("centroid_y is") == 20
    assert f"and {len(rows) - 20} more" in str(e.value)


def test_vertebrae_that_the_version_lacks_are_refused(release: Release, rows: pd.DataFrame) -> None:
    """A level that the scan does not show, and one that does not exist, are named with the scan."""
    scan_id = rows["scan_id"].iloc[0]
    for level in ("C1", "T14"):
        extra = pd.DataFrame([{"scan_id": scan_id, "level": level}])
        with pytest.raises(
            UsageError, match=rf"1 vertebra that phantom v1 does not have: {scan_id} {level}"
        ):
            release.dataset(pd.concat([rows.astype(object), extra]), **CROPS)


def test_the_id_of_another_scan_on_a_row_is_refused(release: Release, rows: pd.DataFrame) -> None:
    """A row that was moved to another scan is told by what it says of the vertebra."""
    first, other = rows["scan_id"].iloc[0], rows["scan_id"].iloc[-1]
    assert first != other
    shared = set(rows.loc[rows["scan_id"] == other, "level"])
    row = rows[(rows["scan_id"] == first) & rows["level"].isin(shared)].head(1)

    with pytest.raises(
        UsageError, match=f"{other} .*subject_id is {row['subject_id'].iloc[0]}, not"
    ):
        release.dataset(row.assign(scan_id=other), **CROPS)


def test_a_vertebra_given_twice_is_refused_with_how_to_draw_it_more_often(
    release: Release, rows: pd.DataFrame
) -> None:
    """Repeated rows would count twice in an evaluation; samplers are how to draw more often."""
    twice = pd.concat([rows, rows.head(2)])

    with pytest.raises(UsageError, match=r"2 vertebrae are given more than once(.|\n)*Balanced"):
        release.dataset(twice, **CROPS)
    assert len(release.dataset(twice.drop_duplicates(["scan_id", "level"]), **CROPS)) == len(rows)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(lambda rows: pd.read_csv(io.StringIO(rows.to_csv())), id="csv"),
        pytest.param(
            lambda rows: pd.read_csv(io.StringIO(rows.to_csv()), dtype=str, keep_default_na=False),
            id="csv as text",
        ),
        pytest.param(
            lambda rows: pd.read_csv(io.StringIO(rows.to_csv(float_format="%.2f"))), id="rounded"
        ),
        pytest.param(lambda rows: rows.astype({"grade": float, "label": float}), id="floats"),
        pytest.param(lambda rows: rows.astype(object), id="objects"),
        pytest.param(lambda rows: rows.astype(str), id="texts"),
        pytest.param(lambda rows: rows[["scan_id", "level"]], id="keys"),
        pytest.param(lambda rows: rows.assign(weight=2.0, fold="a"), id="own columns"),
        pytest.param(lambda rows: rows.assign(grade=np.nan, has_mask=None), id="blanks"),
    ],
)
def test_rows_that_went_through_a_file_are_served_as_the_version_has_them(
    release: Release, rows: pd.DataFrame, changed: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    """Lost types, rounding, blanks and columns of the user's own change nothing of the samples."""
    shuffled = rows.sample(frac=1, random_state=3)
    want = release.dataset(shuffled, **CROPS)

    data = release.dataset(changed(shuffled), **CROPS)

    assert facts(data) == facts(want)
    assert data.fingerprint == want.fingerprint
    own = {(r["scan_id"], r["level"]): r for _, r in release.vertebrae.iterrows()}
    for sample in facts(data):
        assert sample["grade"] == own[sample["scan_id"], sample["level"]]["grade"]


def test_rows_of_a_dataset_choose_again(release: Release, rows: pd.DataFrame) -> None:
    """The table of a dataset, without the centroids, serves the same vertebrae."""
    data = release.dataset(rows, **CROPS)
    assert isinstance(data, VertebraDataset)

    assert release.dataset(data.vertebrae, **CROPS).fingerprint == data.fingerprint


def test_rows_of_scans_with_another_subject_or_split_are_refused(release: Release) -> None:
    """Rows of the scans table are held against the names of the files."""
    scans = release.scans[release.scans["split"] == "training"]
    assert len(release.dataset(scans)) > 0

    for column, value in (("subject_id", "verse998"), ("split", "validation")):
        with pytest.raises(UsageError, match=rf"{column} is {value}, not .*rows\['scan_id'\]"):
            release.dataset(with_value(column, value)(scans))


@pytest.mark.filterwarnings("ignore::verse_data.errors.IncompleteTable")
def test_names_of_digits_survive_a_file(tmp_path: Path) -> None:
    """Scan and subject 007, which a CSV gives back as 7, are found again."""
    tree = write_phantom(tmp_path / "tree", n_subjects=4, shape=(40, 88, 32), seed=2)
    (tree / "dataset-phantomtraining").rename(tmp_path / "training")
    old = next((tmp_path / "training").rglob("*_ct.nii.gz")).parent.name
    for path in sorted((tmp_path / "training").rglob(f"*{old}*"), reverse=True):
        path.rename(path.with_name(path.name.replace(old, "sub-007")))
    for path in (tmp_path / "training").rglob("sub-*"):
        if path.is_file() and "sub-007" not in path.name:
            path.unlink()
    lab = lock_tree("lab", tmp_path / "training", root=tmp_path / "home", check=False)
    rows = lab.vertebrae
    assert set(rows["scan_id"]) == {"007"}

    back = pd.read_csv(io.StringIO(rows.to_csv()))

    assert back["scan_id"].tolist() == [7] * len(rows)
    data = lab.dataset(back, **CROPS, include=("not_assessed",))
    assert {data[n]["scan_id"] for n in range(len(data))} == {"007"}


@pytest.mark.filterwarnings("ignore::verse_data.errors.IncompleteTable")
def test_rows_selected_before_the_masks_came_are_served(tmp_path: Path) -> None:
    """What was missing when rows were selected may be there when they are served."""
    tree = write_phantom(tmp_path / "tree", n_subjects=4, shape=(40, 88, 32), seed=5)
    lab = lock_tree("phantom", tree, root=tmp_path / "home")
    masks = [(f, lab.files.object_path(f)) for f in lab.locked(roles=("mask",))]
    for number, (_, path) in enumerate(masks):
        path.parent.chmod(0o755)
        path.rename(tmp_path / f"mask{number}")
    early = lab.select("split == 'training' and grade_status == 'graded'")
    assert early["has_mask"].isna().all()
    for number, (_, path) in enumerate(masks):
        (tmp_path / f"mask{number}").rename(path)

    data = vd.open_release("phantom", root=tmp_path / "home").dataset(early, **CROPS)

    assert len(data) + len(data.excluded) == len(early)
    assert set(data.excluded["reason"]) <= {"no_mask", "no_ct"}
