"""What file names of both layouts say."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from verse_data.records.names import SUBJECT_OF_SERIES, parse_path, split_of

SUFFIX = {
    "ct": "_ct.nii.gz",
    "ct_json": "_ct.json",
    "mask": "_seg-vert_msk.nii.gz",
    "centroids": "_seg-subreg_ctd.json",
    "snapshot": "_seg-vert_snp.png",
}


def listed(shared: Path) -> list[dict[str, str]]:
    """Return the 374 real series of VerSe'19 and '20."""
    with (shared / "data" / "lists" / "scans.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_all_real_names_are_read(shared: Path) -> None:
    """Each real CT and mask name gives its subject, entities and split."""
    rows = listed(shared)
    assert len(rows) == 374
    for row in rows:
        for role in ("ct", "mask"):
            name = parse_path(row[role])
            assert name is not None
            assert name.role == role
            assert name.subject_id == row["subject"]
            assert (name.series_label or "") == row["split_entity"]
            assert dict(name.entities).get("dir", "") == row["dir_entity"]
            assert split_of(row[role]) == row["split"]


def test_real_names_give_the_published_counts(shared: Path) -> None:
    """Per tree: scans, subjects and make-up of facts; 355 subjects, none of them in two splits."""
    names = [(row["tree"], row["split"], parse_path(row["ct"])) for row in listed(shared)]
    scans = Counter(tree for tree, _, _ in names)
    subjects = defaultdict(set)
    splits = defaultdict(set)
    for tree, split, name in names:
        assert name is not None
        subjects[tree].add(name.subject_id)
        splits[name.subject_id].add(split)

    assert scans == {
        "dataset-verse19training": 80,
        "dataset-verse19validation": 40,
        "dataset-verse19test": 40,
        "dataset-01training": 61,
        "dataset-02validation": 80,
        "dataset-03test": 73,
    }
    assert {tree: len(found) for tree, found in subjects.items()} == {
        "dataset-verse19training": 67,
        "dataset-verse19validation": 37,
        "dataset-verse19test": 37,
        "dataset-01training": 61,
        "dataset-02validation": 80,
        "dataset-03test": 73,
    }
    assert len(splits) == 355
    assert all(len(found) == 1 for found in splits.values())
    with_label = [name for _, _, name in names if name and name.series_label]
    directions = Counter(
        dict(n.entities)["dir"] for _, _, n in names if n and "dir" in dict(n.entities)
    )
    assert len(with_label) == 37
    assert directions == {"ax": 63, "iso": 59, "sag": 17}


def test_the_series_map_agrees_with_the_real_names(shared: Path) -> None:
    """The 37 series of the 18 multi-series subjects are those of the real list."""
    real = {row["split_entity"]: row["subject"] for row in listed(shared) if row["split_entity"]}

    assert real == SUBJECT_OF_SERIES
    assert len(set(SUBJECT_OF_SERIES.values())) == 18


@pytest.mark.parametrize("role", SUFFIX)
def test_every_role_has_its_suffix(role: str) -> None:
    """CT, sidecar, mask, centroids and snapshot of a series are told apart."""
    name = parse_path(f"x/sub-verse401_split-verse253{SUFFIX[role]}")

    assert name is not None
    assert (name.role, name.scan_id) == (role, "verse401_split-verse253")
    assert (name.subject_id, name.series_label, name.series_id) == (
        "verse401",
        "verse253",
        "verse253",
    )


@pytest.mark.parametrize(
    ("name", "scan_id"),
    [
        ("sub-verse004_seg-vb_ctd.json", "verse004"),
        ("verse000_dir-orient_seg-vert_snp.png", "verse000_dir-orient"),
        ("sub-x01_ses-20200101_ce-no_ct.nii.gz", "x01_ses-20200101_ce-no"),
        ("sub-verse401_dir-ax_split-verse253_ct.nii.gz", "verse401_split-verse253_dir-ax"),
        ("sub-verse004_acq-low_ct.json", "verse004_acq-low"),
    ],
)
def test_odd_names_are_read(name: str, scan_id: str) -> None:
    """Older suffixes, snapshots without sub-, unknown entities and any order are read."""
    parsed = parse_path(name)

    assert parsed is not None
    assert parsed.scan_id == scan_id


def test_the_order_of_entities_does_not_change_the_scan() -> None:
    """split- and dir- in either order name the same scan."""
    one = parse_path("sub-verse401_dir-ax_split-verse253_ct.nii.gz")
    other = parse_path("sub-verse401_split-verse253_dir-ax_seg-vert_msk.nii.gz")

    assert one
    assert other
    assert one.scan_id == other.scan_id == "verse401_split-verse253_dir-ax"


@pytest.mark.parametrize(
    ("name", "role", "scan_id"),
    [
        ("verse014.nii.gz", "ct", "verse014"),
        ("verse014_seg.nii.gz", "mask", "verse014"),
        ("verse014_ctd.json", "centroids", "verse014"),
        ("verse014_snapshot.png", "snapshot", "verse014"),
        ("verse201.nii.gz", "ct", "verse401_split-verse201"),
        ("verse253_seg.nii.gz", "mask", "verse401_split-verse253"),
        ("verse512_CT-iso.nii.gz", "ct", "verse512_dir-iso"),
        ("verse512_CT-iso_seg.nii.gz", "mask", "verse512_dir-iso"),
        ("verse512_CT-iso_iso-ctd.json", "centroids", "verse512_dir-iso"),
        ("verse512_CT-iso.png", "snapshot", "verse512_dir-iso"),
        ("verse512_CT-iso-w.png", "snapshot", "verse512_dir-iso"),
        ("verse400_verse090_CT-iso.nii.gz", "ct", "verse400_split-verse090"),
        ("GL003.nii.gz", "ct", "gl003"),
        ("GL090_CT-ax.nii.gz", "ct", "gl090_dir-ax"),
        ("GL017_CT_ax.nii.gz", "ct", "gl017_dir-ax"),
        ("GL124_CT_ax-iso-ctd.json", "centroids", "gl124_dir-ax"),
        ("GL018-GL016.nii.gz", "ct", "gl016"),
        ("GL018-GL017_seg.nii.gz", "mask", "gl017"),
        ("GL018-GL017_iso-ctd.json", "centroids", "gl017"),
        ("GL018-GL016-w.png", "snapshot", "gl016"),
        ("verse500.nii.gz", "ct", "verse500"),
    ],
)
def test_miccai_names_with_their_irregularities(name: str, role: str, scan_id: str) -> None:
    """MICCAI names give the person too: verse201 and verse253 are one."""
    parsed = parse_path(f"01_training/{name}")

    assert parsed is not None
    assert (parsed.role, parsed.scan_id, parsed.layout) == (role, scan_id, "miccai")


@pytest.mark.parametrize(
    "name",
    ["readme.txt", "sub-ct_seg-subreg_label-22_msk.nii.gz", "verse2011.nii.gz", "verse4.nii.gz",
     "sub-verse004_seg-vert_seg-vert_msk.nii.gz", "sub-verse004_dir-ax_dir-ax_ct.nii.gz", "_ct.nii.gz",
     "~$phantom_grading.xlsx", "._grading.xlsx", "grading.docx", "~lock.grading.csv",
     "verse\u0660\u0660\u0664.nii.gz", "ver\u017fe004.nii.gz", "gl\u0660\u0660\u0664_seg.nii.gz",
     "sub-verse\u0660_ct.nii.gz", "verse014_other.nii.gz", "sub-_ct.nii.gz", "sub-verse004_ct.nii.gz.part", ""],
)  # fmt: skip
def test_unknown_names_have_no_role(name: str) -> None:
    """A name that fits neither layout is None, never a guess."""
    assert parse_path(name) is None


def test_the_workbook_belongs_to_no_scan() -> None:
    """Any workbook, and a CSV export of a known name, may be the grading."""
    names = "ryai190138_AppendixE1.xlsx", "scores.xlsx", "ryai190138_appendixe1.csv"
    for name in (*names, "lab.XLSM", "lab.xls", "lab.ods"):
        parsed = parse_path(f"folder/{name}")
        assert parsed is not None
        assert (parsed.role, parsed.subject_id, parsed.scan_id) == ("grading", "", "")
    assert parse_path("measurements.csv") is None


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("dataset-verse19training/rawdata/sub-verse004/x", "training"),
        ("dataset-02validation/rawdata/x", "validation"),
        ("03_test/x", "test"),
        ("training/rawdata/x", "training"),
        ("dataset-phantomtest/rawdata/x", "test"),
        ("dataset-verse19training/dataset-verse19training/rawdata/x", "training"),
        ("rawdata/sub-verse004/x", None),
        ("latest/x", None),
        ("dataset-latest/x", None),
        ("dataset-contest/rawdata/x", None),
        ("dataset-labtraining/rawdata/x", "training"),
        ("dataset-verse19te\u017ft/rawdata/x", None),
        ("dataset-mylabtest/rawdata/x", "test"),
        ("dataset-verse19training-miccai/x", "training"),
        ("train/x", "training"),
        ("VAL/x", "validation"),
        ("my_test_set/x", "test"),
        ("latest_training/x", "training"),
        ("training/rawdata/sub-test/x", "training"),
        ("training/rawdata/sub-1/ses-val/x", "training"),
        ("train_and_val/x", None),
        ("strain/x", None),
        ("dataset-interval/x", None),
        ("evaluation/x", None),
        ("mylabtest/x", None),
        ("Ba\u0308test/x", None),
        ("test", None),
    ],
)
def test_the_split_is_read_from_the_folders(path: str, split: str | None) -> None:
    """All known root names say their split, doubled ones too; others say nothing."""
    assert split_of(path) == split
