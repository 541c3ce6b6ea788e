"""The leak check: who is behind an entry, who sits on two sides, and what could not be read."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from verse_data.errors import UsageError, ValidationFailed
from verse_data.tables.leaks import assert_no_leak, find_leaks


@pytest.mark.parametrize(
    ("entry", "subject"),
    [
        (4, "verse004"),
        ("4", "verse004"),
        ("004", "verse004"),
        ("12.0", "verse012"),
        (12.0, "verse012"),
        (np.int64(253), "verse401"),
        (201, "verse401"),
        (253, "verse401"),
        (401, "verse401"),
        ("090", "verse400"),
        ("verse4", "verse004"),
        ("verse004", "verse004"),
        ("Verse004", "verse004"),
        ("verse_004", "verse004"),
        ("sub-verse004", "verse004"),
        (" verse004\n", "verse004"),
        ("verse253", "verse401"),
        ("sub-verse253", "verse401"),
        ("verse401", "verse401"),
        ("verse401_split-verse253", "verse401"),
        ("sub-verse401_split-verse253_ct.nii.gz", "verse401"),
        ("verse253.nii.gz", "verse401"),
        ("verse253_seg.nii.gz", "verse401"),
        ("verse400_verse090_CT-iso_seg.nii.gz", "verse400"),
        ("verse512_CT-iso.nii.gz", "verse512"),
        ("verse509_dir-iso", "verse509"),
        ("GL003.nii.gz", "gl003"),
        ("GL017_CT_ax-iso-ctd.json", "gl017"),
        ("GL090_CT-ax", "gl090"),
        ("GL017_CT_ax", "gl017"),
        ("01_training/GL003/GL003.nii.gz", "gl003"),
        ("verse082_CT-iso", "verse082"),
        ("verse405_verse259_CT-sag", "verse405"),
        ("verse512_CT-iso_iso-ctd.json", "verse512"),
        ("verse512_CT-iso-w.png", "verse512"),
        ("sub-verse401_split-verse253_ses-20190101_ce-pv_ct.nii.gz", "verse401"),
        ("verse509_dir-iso_seg-vert_snp.png", "verse509"),
        ("verse401_verse253_0000.nii.gz", "verse401"),
        ("verse_401_253", "verse401"),
        ("verse20_gl003", "gl003"),
        ("gl3", "gl003"),
        ("sub-gl003_dir-ax_ct.nii.gz", "gl003"),
        ("dataset-verse19training/rawdata/sub-verse004/sub-verse004_ct.nii.gz", "verse004"),
        ("/data/verse19/derivatives/sub-verse401/sub-verse401_split-verse201_seg-vert_msk.nii.gz", "verse401"),
        ("C:\\data\\VerSe20\\01_training\\verse512\\verse512_CT-iso.nii.gz", "verse512"),
        (Path("rawdata/sub-verse004"), "verse004"),
        ("rawdata/sub-verse004/", "verse004"),
        ("crops/verse004/T12.npy", "verse004"),
        ("crops/verse253/12.npy", "verse401"),
        ("crops/sub-verse401_split-verse253_T12.npz", "verse401"),
        ("imagesTr/verse004_0000.nii.gz", "verse004"),
        ("imagesTr/004.nii.gz", "verse004"),
        ("imagesTr/verse4.nii.gz", "verse004"),
        ("sub-verse4_ct.nii.gz", "verse004"),
        ("sub-004_ct.nii.gz", "verse004"),
        ("sub-4", "verse004"),
        ("sub-004/anat/T12.npy", "verse004"),
        ("sub-gl3_ct.nii.gz", "gl003"),
        ("sub-verse401_split-253_ct.nii.gz", "verse401"),
        ("sub-verse005_split-2_ct.nii.gz", "verse005"),
        ("verse19_004.nii.gz", "verse004"),
        ("VerSe20_500", "verse500"),
        ("verse2019-004", "verse004"),
        ("imagesTr/verse20_253_0000.nii.gz", "verse401"),
        ("verse19_004/T12.npy", "verse004"),
        ("verse19_seg.nii.gz", "verse019"),
        ("verse19", "verse019"),
        ("/data/verse19_160/sub-verse004_ct.nii.gz", "verse004"),
        ("/data/verse19_160/004.nii.gz", "verse004"),
    ],
)  # fmt: skip
def test_every_spelling_names_its_patient(entry: object, subject: str) -> None:
    """Ids, numbers, file names of both layouts and paths lead to the person."""
    report = find_leaks({"train": [entry], "val": [subject]})

    assert [leak.subject_id for leak in report.leaks] == [subject]
    assert report.unknown == ()


@pytest.mark.parametrize(
    "entry",
    [
        "", " ", "/", "nonsense", "verse", "/data/verse19/rawdata", "verse0041", "12345",
        "verse004a", "myverse004", "4.5", 4.5, -4, None, True, float("nan"), float("inf"), b"verse004",
        ["verse004"], {"image": "verse004"}, "verse004_verse005.npz", "sub-verse004/sub-verse005_ct.nii.gz",
        "verse\u0660\u0660\u0664", "verse\u0660\u0660\u0664.nii.gz", "\u0664", "verse004\u0664", "ver\u017fe004.nii.gz", "verse4_0000.nii.gz",
        "VerSe20_ax_500.npy", "verse19 004", "verse19_4", "sub-foo_ct.nii.gz", "sub-verse0004_ct.nii.gz",
        0, "000", "1234", "\ud800",
    ],
)  # fmt: skip
def test_what_names_nobody_or_several_is_reported(entry: object) -> None:
    """Such an entry is never dropped: it stands in the report with side and reason."""
    report = find_leaks({"train": [entry], "val": ["verse004"]})

    assert [(unknown.side, bool(unknown.reason)) for unknown in report.unknown] == [("train", True)]
    assert not report.is_clean


def test_every_leaking_patient_is_named_with_its_entries() -> None:
    """Two series of one patient, under whatever names, are found and shown as given."""
    report = find_leaks(
        {
            "train": [201, "sub-verse004_ct.nii.gz", "GL003.nii.gz", "verse005"],
            "val": ["verse401_split-verse253", "verse006"],
            "test": ["004", "gl003", "verse253_seg.nii.gz"],
        }
    )

    assert {leak.subject_id: dict(leak.entries) for leak in report.leaks} == {
        "gl003": {"train": ("GL003.nii.gz",), "test": ("gl003",)},
        "verse004": {"train": ("sub-verse004_ct.nii.gz",), "test": ("004",)},
        "verse401": {
            "train": ("201",),
            "val": ("verse401_split-verse253",),
            "test": ("verse253_seg.nii.gz",),
        },
    }
    assert report.patients == {"train": 4, "val": 2, "test": 3}
    assert "verse401: train (201) and val (verse401_split-verse253) and test" in str(report)


def test_spellings_that_once_hid_a_leak_are_found() -> None:
    """Unpadded and bare numbers in names of the layout, and the release in front of a number."""
    for train, val in [
        ("sub-verse4_ct.nii.gz", "verse004"),
        ("sub-004_ct.nii.gz", "sub-verse004"),
        ("verse19_004.nii.gz", "verse004"),
        ("VerSe20_500", "sub-verse500"),
        ("sub-foo_ct.nii.gz", "derivatives/sub-foo_seg-vert_msk.nii.gz"),
    ]:
        assert len(find_leaks({"train": [train], "val": [val]}).leaks) == 1
    assert not find_leaks({"train": ["verse19_004.nii.gz"], "val": ["verse019"]}).leaks


def test_names_of_another_laboratory_are_known_by_its_table() -> None:
    """With a table of scans its own names are read, whatever they look like."""
    scans = pd.DataFrame(
        {
            "scan_id": ["LabA-1_split-1", "LabA-1_split-2", "b7", "004", "x_split-1"],
            "subject_id": ["LabA-1", "LabA-1", "b7", "004", "x"],
            "series_label": ["1", "2", None, None, "1"],
        }
    )
    report = find_leaks(
        {
            "train": ["LabA-1_split-1", "sub-b7_ct.nii.gz", "/data/004/T12.npy", "sub-x"],
            "val": ["laba-1", "b7.nii.gz", "sub-004_ct.nii.gz", "sub-x_split-1_ct.nii.gz"],
        },
        scans=scans,
    )

    assert [leak.subject_id for leak in report.leaks] == ["004", "LabA-1", "b7", "x"]
    assert report.unknown == ()
    stranger = find_leaks({"train": ["sub-b8_ct.nii.gz", 1], "val": ["b7"]}, scans=scans)
    assert [unknown.entry for unknown in stranger.unknown] == ["sub-b8_ct.nii.gz", "1"]


def test_entries_cannot_steer_the_terminal() -> None:
    """What is not printable is shown as a replacement."""
    text = str(find_leaks({"train": ["verse004\x1b[31m"], "val": ["verse004"]}))

    assert "verse004\ufffd[31m" in text
    odd = find_leaks({"\ud800": ["verse004"], "val": ["\ud801"]})
    assert "\ufffd: " not in str(odd)
    str(odd).encode()


def test_numbers_come_with_the_rule_that_read_them() -> None:
    """A number could be a gl scan or a patient's own number; the report says how it was taken."""
    assert "never gl" in find_leaks({"train": [4], "val": ["verse005"]}).notes[0]
    assert find_leaks({"train": ["verse004"], "val": ["verse005"]}).notes == ()


def test_entry_that_the_release_lacks_is_told_and_still_compared() -> None:
    """With a release's scans, a stranger is reported, and found if on both sides."""
    scans = pd.DataFrame(
        {"scan_id": ["verse004", "verse005"], "subject_id": ["verse004", "verse005"]}
    )
    report = find_leaks({"train": ["verse004", "verse003"], "val": ["verse005", "3"]}, scans=scans)

    assert [leak.subject_id for leak in report.leaks] == ["verse003"]
    assert [unknown.entry for unknown in report.unknown] == ["verse003", "3"]
    assert all("the release does not have" in unknown.reason for unknown in report.unknown)


def test_series_of_any_release_are_known_by_its_table() -> None:
    """The series map comes from the release's scans, not only from VerSe's own list."""
    scans = pd.DataFrame(
        {
            "scan_id": ["verse902_split-verse951", "verse902_split-verse952"],
            "subject_id": ["verse902", "verse902"],
            "series_label": ["verse951", "verse952"],
        }
    )
    report = find_leaks({"train": [951], "val": ["verse952.nii.gz"]}, scans=scans)

    assert [leak.subject_id for leak in report.leaks] == ["verse902"]
    assert not report.unknown


def test_series_map_is_learned_from_the_entries_themselves() -> None:
    """A name that says whose series it is explains the same series' bare name elsewhere."""
    report = find_leaks({"train": ["verse902_split-verse951"], "val": ["verse951.nii.gz"]})

    assert [leak.subject_id for leak in report.leaks] == ["verse902"]
    assert not report.unknown


def test_name_that_contradicts_the_known_series_is_reported() -> None:
    """253 is a series of verse401; a name that gives it to verse402 is not believed."""
    report = find_leaks({"train": ["verse402_split-verse253"], "val": ["verse005"]})

    assert [unknown.entry for unknown in report.unknown] == ["verse402_split-verse253"]
    assert "verse401, verse402" in report.unknown[0].reason


def test_what_is_no_split_is_a_usage_error() -> None:
    """A text is not a list of letters, one side is no split, and empty sides prove nothing."""
    with pytest.raises(UsageError, match="'train' is a str"):
        find_leaks({"train": "verse004", "val": ["verse005"]})
    with pytest.raises(UsageError, match="at least two sides"):
        find_leaks({"train": ["verse004"]})
    with pytest.raises(UsageError, match="these are empty: val"):
        find_leaks({"train": ["verse004"], "val": []})


def test_assertion_passes_clean_splits_and_names_what_is_not() -> None:
    """A clean split passes; leaks and unreadable entries raise, the first 20 of each by name."""
    assert_no_leak({"train": ["verse004"], "val": ["verse005"]})
    with pytest.raises(ValidationFailed) as refusal:
        assert_no_leak({"train": [*range(1, 31), "what"], "val": range(1, 31)})

    text = str(refusal.value)
    assert "30 patients on two sides, 1 entry that" in text
    assert "verse001: train (1) and val (1)" in text
    assert "and 10 more" in text
    assert "train: 'what' holds no id" in text
    assert "release.folds()" in text


def test_official_splits_of_both_editions_do_not_leak(shared: Path) -> None:
    """All 374 real paths, by published split: 355 patients, nobody on two sides."""
    with (shared / "data" / "lists" / "scans.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    sides = {
        split: [row[column] for row in rows if row["split"] == split for column in ("ct", "mask")]
        for split in ("training", "validation", "test")
    }
    report = find_leaks(sides)

    assert report.is_clean
    assert sum(report.patients.values()) == 355


def test_grouping_by_series_number_leaks_and_is_found(shared: Path) -> None:
    """Odd and even verse_IDs, as a notebook might cut them: 11 patients are on both sides."""
    with (shared / "data" / "lists" / "scans.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["in_verse19"] == "1"]
    series = {row["split_entity"] or row["subject"]: row["subject"] for row in rows}
    numbers = {int(name.removeprefix("verse")): subject for name, subject in series.items()}
    odd = {subject for number, subject in numbers.items() if number % 2}
    even = {subject for number, subject in numbers.items() if not number % 2}
    report = find_leaks(
        {"odd": [n for n in numbers if n % 2], "even": [n for n in numbers if not n % 2]}
    )

    assert {leak.subject_id for leak in report.leaks} == odd & even
    assert len(report.leaks) > 5
