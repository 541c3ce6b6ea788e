"""Folds: grouped, balanced, the same everywhere, and checked when they are read back."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.catalogues import made_up_tables

from verse_data.errors import IntegrityError, UsageError, ValidationFailed
from verse_data.files import sha256_of_json
from verse_data.spine.levels import region
from verse_data.tables.folds import Folds, make_folds
from verse_data.tables.grading import read_grading
from verse_data.tables.splits import official_splits, subject_of_series


@pytest.fixture
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a made-up release of 30 subjects."""
    return made_up_tables(1, subjects=30)


def test_each_scan_lies_in_one_fold_with_all_of_its_subject(tables) -> None:
    """Folds divide the scans, and no subject has scans in two."""
    scans, vertebrae = tables
    folds = make_folds(scans, vertebrae, k=4, seed=3)

    assert sorted(scan for part in folds.parts for scan in part.scans) == sorted(scans["scan_id"])
    assert len(folds.parts) == 4
    assert (
        scans.groupby("subject_id")["scan_id"]
        .agg(lambda own: sum(not own[own.isin(part.scans)].empty for part in folds.parts))
        .eq(1)
        .all()
    )
    training, validation = folds.split(2)["training"], folds.split(2)["validation"]
    assert validation == folds.parts[2].scans
    assert sorted([*training, *validation]) == sorted(scans["scan_id"])


def test_same_input_same_folds_whatever_the_order_of_rows(tables) -> None:
    """Shuffled tables give the same digest; another seed gives other folds."""
    scans, vertebrae = tables
    folds = make_folds(scans, vertebrae, k=5, seed=7)
    shuffled = make_folds(
        scans.sample(frac=1, random_state=1), vertebrae.sample(frac=1, random_state=2), k=5, seed=7
    )

    assert shuffled == folds
    assert shuffled.digest == folds.digest
    assert make_folds(scans, vertebrae, k=5, seed=8).parts != folds.parts


def test_folds_are_the_same_on_every_platform(tables) -> None:
    """The digest of these folds is the one that was found when this test was written."""
    scans, vertebrae = tables

    assert make_folds(scans, vertebrae, k=5, seed=0).digest == (
        "a76b6215dcd7d713e142cca623ed77c582487e3bcad37c3757bcc43994541bb6"
    )


def test_thousands_of_subjects_are_divided_as_evenly_in_little_memory() -> None:
    """2,000 subjects need no table of each against each, and no count differs by more than one."""
    scans, vertebrae = made_up_tables(1, subjects=2000)
    tracemalloc.start()
    folds = make_folds(scans, vertebrae, k=5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 2000 * 2000 * 8
    assert folds.balance(scans, vertebrae)["spread"].max() <= 1


def test_balance_counts_every_value_and_combination(tables) -> None:
    """The report's totals are those of the table, missing values included."""
    scans, vertebrae = tables
    balance = make_folds(scans, vertebrae, k=3).balance(scans, vertebrae)

    assert balance["total"]["size", "scans"] == len(scans)
    assert balance["total"]["grade", "2"] == (vertebrae["grade"] == 2).sum()
    assert balance["total"]["grade", "missing"] == vertebrae["grade"].isna().sum()
    assert balance["total"]["foreign_material", "true"] == vertebrae["foreign_material"].sum()
    for axis in ("grade", "region", "foreign_material", "joint"):
        assert balance["total"][axis].sum() == len(vertebrae)
    folds = balance.drop(columns=["total", "spread"])
    assert (folds.sum(axis="columns") == balance["total"]).all()
    assert (folds.max(axis="columns") - folds.min(axis="columns") == balance["spread"]).all()


def test_some_scans_can_be_divided_alone(tables) -> None:
    """Folds of the training split leave the vertebrae of other scans out."""
    scans, vertebrae = tables
    training = scans[scans["split"] == "training"]
    folds = make_folds(training, vertebrae, k=3)

    held = vertebrae["scan_id"].isin(training["scan_id"]).sum()
    assert folds.balance(training, vertebrae)["total"]["grade"].sum() == held
    assert {scan for part in folds.parts for scan in part.scans} == {*training["scan_id"]}
    assert {name for part in folds.parts for name in part.subjects} == {*training["subject_id"]}


def test_other_columns_can_be_balanced(tables) -> None:
    """Any column with few values can be named; no column at all balances sizes alone."""
    scans, vertebrae = tables
    by_region = make_folds(scans, vertebrae, k=3, stratify=["region"])
    by_size = make_folds(scans, vertebrae, k=3, stratify=[])

    assert set(by_region.balance(scans, vertebrae).index.get_level_values(0)) == {"size", "region"}
    assert by_size.balance(scans, vertebrae)["spread"].max() <= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": 1}, "between 2 and"),
        ({"k": 31}, "number of subjects, 30"),
        ({"k": 5.0}, "k must be a whole number"),
        ({"k": "5"}, "k must be a whole number"),
        ({"k": True}, "k must be a whole number"),
        ({"k": 5, "seed": "a"}, "seed must be a whole number"),
        ({"k": 5, "seed": None}, "seed must be a whole number"),
        ({"k": 5, "seed": 1.5}, "seed must be a whole number"),
        ({"k": 5, "seed": 1 << 63}, "64 bits"),
        ({"k": 5, "stratify": [3]}, "a list of names"),
        ({"k": 5, "stratify": 3}, "a list of names"),
        ({"k": 5, "stratify": ["grad"]}, "no such column"),
        ({"k": 5, "stratify": "grade"}, "a list of names"),
        ({"k": 5, "stratify": ["number"]}, "different values"),
    ],
)
def test_options_that_cannot_be_used_are_told(tables, options, words: str) -> None:
    """A bad number of folds or column is a usage error that says what is possible."""
    scans, vertebrae = tables
    vertebrae["number"] = range(len(vertebrae))

    with pytest.raises(UsageError, match=words):
        make_folds(scans, vertebrae, **options)


def test_scans_listed_twice_or_without_subject_are_refused(tables) -> None:
    """What cannot be grouped is named."""
    scans, vertebrae = tables
    twice = pd.concat([scans, scans.iloc[:1]])
    nobody = scans.assign(subject_id=scans["subject_id"].where(scans.index > 0))

    with pytest.raises(ValidationFailed, match=f"twice: {scans['scan_id'][0]}"):
        make_folds(twice, vertebrae, k=5)
    with pytest.raises(ValidationFailed, match=f"no subject: {scans['scan_id'][0]}"):
        make_folds(nobody, vertebrae, k=5)


def test_there_are_k_folds_and_no_others(tables) -> None:
    """Asking for fold k, or a negative one, is a usage error."""
    folds = make_folds(*tables, k=3)

    for number in (3, -1):
        with pytest.raises(UsageError, match="folds are 0 to 2"):
            folds.split(number)


def test_file_round_trips(tables, tmp_path: Path) -> None:
    """What is written is read back the same, with release and lock."""
    folds = make_folds(*tables, k=3, release="phantom", lock="sha256:" + "0" * 64)
    folds.write(tmp_path / "folds.json")

    again = Folds.read(tmp_path / "folds.json", tables[0])
    assert again == folds
    assert again.digest == folds.digest
    assert [path.name for path in tmp_path.glob("*.json")] == ["folds.json"]


def test_changed_file_is_an_integrity_error(tables, tmp_path: Path) -> None:
    """Moving a subject by hand is noticed by the digest."""
    path = tmp_path / "folds.json"
    make_folds(*tables, k=3).write(path)
    value = json.loads(path.read_text())
    value["folds"][0]["subjects"].append(value["folds"][1]["subjects"].pop())
    path.write_text(json.dumps(value))

    with pytest.raises(IntegrityError, match="changed after it was written"):
        Folds.read(path, tables[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": "2.0.0"}, "schema_version is '2.0.0'"),
        ({"kind": "something"}, "not a folds file"),
        ({"k": 7}, "k is 7, and there are 3 folds"),
        ({"surprise": 1}, "surprise"),
        ({"seed": "0"}, "seed"),
    ],
)
def test_file_that_breaks_a_rule_is_refused(tables, tmp_path: Path, change, words: str) -> None:
    """A file with a right digest that is of another kind or version is refused by its field."""
    path = tmp_path / "folds.json"
    make_folds(*tables, k=3).write(path)
    value = json.loads(path.read_text()) | change
    del value["digest"]
    path.write_text(json.dumps({**value, "digest": sha256_of_json(value)}))

    with pytest.raises(ValidationFailed, match=words):
        Folds.read(path, tables[0])


def test_file_in_which_somebody_sits_twice_is_refused(tables, tmp_path: Path) -> None:
    """Also a right digest does not excuse a subject in two folds."""
    path = tmp_path / "folds.json"
    make_folds(*tables, k=3).write(path)
    value = json.loads(path.read_text())
    value["folds"][0]["subjects"].append(value["folds"][1]["subjects"][0])
    del value["digest"]
    path.write_text(json.dumps({**value, "digest": sha256_of_json(value)}))

    with pytest.raises(ValidationFailed, match="subjects in two places"):
        Folds.read(path, tables[0])


@pytest.fixture
def two_folds() -> tuple[Folds, pd.DataFrame]:
    """Return folds of scans that carry their subject's name, and the scans."""
    names = ["verse911", "verse912", "verse913", "verse914"]
    scans = pd.DataFrame({"scan_id": names, "subject_id": names})
    graded = pd.DataFrame({"scan_id": names, "grade": [0, 1, 0, 1]})
    return make_folds(scans, graded, k=2, stratify=["grade"]), scans


def tampered(folds: Folds, path: Path, change) -> Path:
    """Write `folds` after `change`, with a right digest."""
    folds.write(path)
    value = json.loads(path.read_text())
    change(value["folds"])
    del value["digest"]
    path.write_text(json.dumps({**value, "digest": sha256_of_json(value)}))
    return path


def test_scan_outside_the_fold_of_its_subject_is_refused(two_folds, tmp_path: Path) -> None:
    """Also where scan and subject have one name, and the digest is right."""
    folds, scans = two_folds
    moved = folds.parts[1].scans[0]

    def move(parts) -> None:
        parts[0]["scans"].append(parts[1]["scans"].pop(0))

    def swap(parts) -> None:
        parts[0]["subjects"], parts[1]["subjects"] = parts[1]["subjects"], parts[0]["subjects"]

    with pytest.raises(ValidationFailed, match=f"not in the fold of their subject: {moved}"):
        Folds.read(tampered(folds, tmp_path / "moved.json", move), scans)
    with pytest.raises(ValidationFailed, match=f"their subject: {', '.join(scans['scan_id'])}"):
        Folds.read(tampered(folds, tmp_path / "swapped.json", swap), scans)


def test_folds_of_another_lock_are_refused_where_the_lock_is_given(two_folds, tmp_path) -> None:
    """Release and lock are compared if both sides name them; the scans alone can be asked for."""
    folds, scans = two_folds
    path = tmp_path / "folds.json"
    tables = scans, scans.assign(grade=0)
    make_folds(*tables, k=2, stratify=["grade"], release="verse19", lock="sha256:aa").write(path)

    assert Folds.read(path, scans, release="verse19", lock="sha256:aa").lock == "sha256:aa"
    assert Folds.read(path, scans).lock == "sha256:aa"
    with pytest.raises(
        ValidationFailed, match="another release: verse19, and this one's is phantom"
    ):
        Folds.read(path, scans.iloc[:1], release="phantom", lock="sha256:aa")
    with pytest.raises(
        ValidationFailed, match="another lock: sha256:aa, and this one's is sha256:bb"
    ):
        Folds.read(path, scans, release="verse19", lock="sha256:bb")
    folds.write(path)
    assert Folds.read(path, scans, release="verse19", lock="sha256:bb").lock is None


def test_half_a_surrogate_pair_is_a_broken_rule(two_folds, tmp_path: Path) -> None:
    """A text that is no UTF-8 cannot have a digest, and is told."""
    path = tmp_path / "folds.json"
    two_folds[0].write(path)
    path.write_text(path.read_text().replace("verse911", "\\ud800"))

    with pytest.raises(ValidationFailed, match=r"not JSON: .* hex escape"):
        Folds.read(path, two_folds[1])


def test_whole_numbers_of_numpy_are_numbers(tables, tmp_path: Path) -> None:
    """k, seed and the number of a fold may come out of an array."""
    folds = make_folds(*tables, k=np.int64(3), seed=np.int64(4))

    assert folds == make_folds(*tables, k=3, seed=4)
    assert folds.digest == make_folds(*tables, k=3, seed=4).digest
    assert folds.split(np.int32(1)) == folds.split(1)
    for fold in (1.0, "1", None, True):
        with pytest.raises(UsageError, match="fold must be a whole number"):
            folds.split(fold)


def test_tables_without_ids_are_told(tables) -> None:
    """Without scan_id or subject_id there is nothing to group by."""
    scans, vertebrae = tables
    with pytest.raises(UsageError, match="vertebrae has no column scan_id"):
        make_folds(scans, vertebrae.drop(columns="scan_id"), k=3)
    with pytest.raises(UsageError, match="scans has no column subject_id"):
        make_folds(scans.drop(columns="subject_id"), vertebrae, k=3)


def test_folds_of_another_release_are_refused(tables, tmp_path: Path) -> None:
    """Missing, extra and reassigned scans are named, each with its kind."""
    scans, vertebrae = tables
    path = tmp_path / "folds.json"
    make_folds(scans, vertebrae, k=3).write(path)
    other = scans.copy()
    other.loc[0, "scan_id"] = "verse999"
    other.loc[5, "subject_id"] = "verse998"

    with pytest.raises(ValidationFailed) as refusal:
        Folds.read(path, other)
    text = str(refusal.value)
    assert f"only in the folds: {scans['scan_id'][0]}" in text
    assert "only in the release: verse999" in text
    assert f"not in the fold of their subject: {scans['scan_id'][5]}" in text


def test_missing_file_says_how_to_write_one(tables, tmp_path: Path) -> None:
    """The error for a file that is not there names the command."""
    with pytest.raises(UsageError, match="verse-data folds RELEASE --out"):
        Folds.read(tmp_path / "folds.json", tables[0])


def test_real_workbook_is_divided_almost_evenly(shared: Path) -> None:
    """On VerSe'19, five folds differ by at most 1 on each axis, and by at most 2 jointly."""
    workbook = shared / "data" / "verse19" / "ryai190138_AppendixE1.xlsx"
    rows = [graded.row for graded in read_grading(workbook).rows]
    scans = pd.DataFrame(
        [(row.scan_id, row.subject_id, row.split) for row in rows],
        columns=["scan_id", "subject_id", "split"],
    )
    vertebrae = pd.DataFrame(
        [
            (row.scan_id, None if mark == "x" else mark, region(level), mark == "x")
            for row in rows
            for level, mark in row.grades.items()
        ],
        columns=["scan_id", "grade", "region", "foreign_material"],
    ).astype({"grade": "Int8"})
    balance = make_folds(scans, vertebrae, k=5, seed=0).balance(scans, vertebrae)

    assert balance["total"]["size"].to_dict() == {"subjects": 141, "scans": 160}
    assert balance["total"]["grade"].to_dict() == {
        "0": 1180, "1": 142, "2": 96, "3": 51, "missing": 31,
    }  # fmt: skip
    assert balance["spread"].drop("joint", level="axis").max() <= 1
    assert balance["spread"]["joint"].max() <= 2
    parts = official_splits(scans)
    assert {name: (len(part.scans), len(part.subjects)) for name, part in parts.items()} == {
        "training": (80, 67), "validation": (40, 37), "test": (40, 37),
    }  # fmt: skip


def test_series_map_names_the_eighteen_patients_with_several_series() -> None:
    """37 series belong to 18 subjects of other names."""
    series = subject_of_series()

    assert len(series) == 37
    assert len(set(series.values())) == 18
    assert series["verse201"] == series["verse253"] == "verse401"


def test_published_split_with_a_subject_on_two_sides_is_refused(tables) -> None:
    """A table that contradicts itself is not served as an official split."""
    scans, _ = tables
    several = scans[scans["subject_id"].duplicated(keep=False)]
    first = several.index[0]
    scans.loc[first, "split"] = "test" if scans["split"][first] != "test" else "training"

    with pytest.raises(ValidationFailed, match="two published splits"):
        official_splits(scans)


def test_a_subject_spelled_in_two_ways_is_on_both_sides(tables) -> None:
    """Names that differ in case alone hide no leak."""
    scans, _ = tables
    names = scans["subject_id"].unique()[:2]
    renamed = scans["subject_id"].replace({names[0]: "GL003", names[1]: "gl003"})
    split = pd.Series("training", index=scans.index).where(renamed != "gl003", "test")

    with pytest.raises(ValidationFailed, match="GL003 in training and gl003 in test"):
        official_splits(scans.assign(subject_id=renamed, split=split))


def test_scans_without_a_published_split_are_in_none(tables) -> None:
    """A missing split is not guessed."""
    scans, _ = tables
    single = scans[~scans["subject_id"].duplicated(keep=False)].index[0]
    scans.loc[single, "split"] = None
    parts = official_splits(scans)

    assert sum(len(part.scans) for part in parts.values()) == len(scans) - 1
