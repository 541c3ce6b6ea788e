"""Both editions in the catalog: which series, patients and splits, and whose terms are not known."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

import verse_data as vd
from verse_data.cli.main import app
from verse_data.records.catalog import CatalogEntry, ExpectedSeries
from verse_data.records.lock import LockedFile, LockSource, ReleaseLock
from verse_data.records.names import SUBJECT_OF_SERIES, parse_path, split_of
from verse_data.releases.catalog import known_series, load_catalog
from verse_data.tables.findings import index_findings
from verse_data.tables.index import Index, index_scans

VERSE19, VERSE20 = load_catalog("verse19"), load_catalog("verse20")
BOTH: tuple[ExpectedSeries, ...] = (*VERSE19.expected, *VERSE20.expected)


@pytest.fixture
def listed(shared: Path) -> list[dict[str, str]]:
    """The public list of all series with their real paths."""
    with (shared / "data/lists/scans.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_374_real_paths_are_the_series_of_the_catalog(listed: list[dict[str, str]]) -> None:
    """Scan, patient, split and direction in each path are those of the catalog, for CT and mask."""
    expected = {series.scan_id: series for series in BOTH}
    seen = set()
    for row in listed:
        for role in ("ct", "mask"):
            name = parse_path(row[role])
            assert name is not None
            series = expected[name.scan_id]
            assert (name.role, name.subject_id, name.series_id) == (
                role,
                series.subject_id,
                series.series_id,
            )
            assert split_of(row[role]) == series.split == row["split"]
            assert series.direction == row["dir_entity"]
        in_editions = [f"verse{n}" for n in (19, 20) if row[f"in_verse{n}"] == "1"]
        assert series.edition == "+".join(in_editions)
        seen.add(series.scan_id)
    assert seen == expected.keys()
    assert len(seen) == len(listed) == 374


def test_the_numbers_of_the_two_editions_and_of_their_union() -> None:
    """160 and 214 series; 105 in both; 141, 120 and 113 series of 355 patients in the three splits."""
    assert (len(VERSE19.expected), len(VERSE20.expected)) == (160, 214)
    assert Counter(series.edition for series in BOTH) == {
        "verse19": 55,
        "verse19+verse20": 105,
        "verse20": 214,
    }
    assert Counter(series.split for series in BOTH) == {
        "training": 141,
        "validation": 120,
        "test": 113,
    }
    assert len({series.subject_id for series in BOTH}) == 355
    assert len({(series.subject_id, series.split) for series in BOTH}) == 355, (
        "nobody in two splits"
    )
    assert known_series(VERSE20).keys() == {series.series_id for series in BOTH}


def test_the_published_numbers_of_the_edition_are_those_of_the_lists() -> None:
    """319 series of 300 patients: 214 here, and the 105 of verse19 that belong to both editions."""
    whole = [series for series in BOTH if "verse20" in str(series.edition)]
    found = {}
    for group in ("all", "training", "validation", "test"):
        own = [series for series in whole if group in {"all", series.split}]
        found["CT series", group] = len(own)
        found["patients", group] = len({series.subject_id for series in own})
    published = {
        (one.what, one.group): one.number for one in VERSE20.counts if one.edition == "verse20"
    }

    assert published.items() >= found.items()
    assert (found["CT series", "all"], found["patients", "all"]) == (319, 300)


def test_the_imaging_of_gl_series_has_unconfirmed_terms() -> None:
    """They come from another collection; all others are under the release's licence."""
    unconfirmed = {series.scan_id for series in BOTH if series.terms}

    assert len(unconfirmed) == 30
    assert unconfirmed == {series.scan_id for series in BOTH if series.subject_id.startswith("gl")}
    assert {series.terms for series in BOTH} == {None, "unconfirmed"}


def test_scans_that_others_speak_of_are_in_the_release() -> None:
    """Each is told by its id, and each report names rules and source."""
    ids = {series.scan_id for series in VERSE20.expected}

    for report in VERSE20.reported:
        assert ids.issuperset(report.scan_ids)
        assert report.source


def test_a_release_says_where_the_series_of_its_edition_lie() -> None:
    """Why VerSe'20 is 214 series here, and 319 in the paper: in Python, as text and as JSON."""
    found = vd.describe_release("verse20")
    said = CliRunner().invoke(app, ["releases", "show", "verse20"])
    plain = CliRunner().invoke(app, ["releases", "show", "verse20", "--json"])

    assert found.series == {
        "verse20": {"training": 61, "validation": 80, "test": 73, "all": 214},
        "verse19": {"training": 52, "validation": 23, "test": 30, "all": 105},
        "edition": {"training": 113, "validation": 103, "test": 103, "all": 319},
    }
    assert found.patients["edition"]["all"] == 300
    assert len(found.terms["unconfirmed"]) == 30
    assert said.stdout == f"{found}\n"
    assert "The paper says 319 CT series of verse20: 214 here and 105 in verse19." in said.stdout
    assert "The paper says 374 CT series of verse19+verse20: 214 here and 160" in said.stdout
    assert json.loads(plain.stdout)["series"] == found.series
    assert "105 series belong to another edition" in str(vd.describe_release("verse19"))
    unknown = CliRunner().invoke(app, ["releases", "show", "verse21"])
    assert "it knows phantom, verse19, verse20" in str(unknown.exception)


# --- the MICCAI layout ----------------------------------------------------------------------------

ENDS = {"ct": ".nii.gz", "mask": "_seg.nii.gz", "centroids": "_iso-ctd.json", "snapshot": ".png"}
IRREGULAR = {
    "gl003_dir-ax": ["GL003.nii.gz", "GL003_seg.nii.gz", "GL003_iso-ctd.json", "GL003-w.png"],
    "gl017": ["GL017_CT_ax.nii.gz", "GL017_CT_ax_seg.nii.gz", "GL017_CT_ax_iso-ctd.json"],
    "gl124_dir-ax": ["GL124_CT-ax.nii.gz", "GL124_CT-ax_seg.nii.gz", "GL124_CT_ax-iso-ctd.json"],
    "gl240_dir-ax": ["GL240_CT-ax.nii.gz", "GL240_CT-ax_seg.nii.gz", "GL240_CT_ax-iso-ctd.json"],
    "gl016_dir-ax": ["GL018-GL016.nii.gz", "GL018-GL016_seg.nii.gz", "GL018-GL016_iso-ctd.json"],
    "verse500_dir-ax": ["verse500.nii.gz", "verse500_seg.nii.gz", "verse500_iso-ctd.json"],
    "verse512_dir-iso": ["verse512_CT-iso.nii.gz", "verse512_CT-iso_seg.nii.gz",
                         "verse512_CT-iso_iso-ctd.json", "verse512_CT-iso.png", "verse512_CT-iso-w.png"],
    "verse539_dir-ax": ["verse539_CT-iso.nii.gz", "verse539_CT-iso_seg.nii.gz"],
    "verse505": ["verse505_CT-sag.nii.gz", "verse505_CT-sag_seg.nii.gz"],
    "verse400_split-verse090": ["verse400_verse090_CT-iso.nii.gz", "verse400_verse090_CT-iso_seg.nii.gz"],
    "verse400_split-verse155": ["verse400_verse155_CT-iso.nii.gz"],
    "verse082": ["verse082_CT-iso.nii.gz", "verse082_CT-iso_iso-ctd.json"],
}  # fmt: skip
"""Names of the MICCAI layout of VerSe'20, by the scan of the subject-based layout that they are of."""


def index_of(paths: list[str], entry: CatalogEntry) -> Index:
    """Return the index of made-up files at these paths."""
    files = (
        LockedFile(path=path, size=1, sha256=f"{number:064x}", md5=f"{number:032x}")
        for number, path in enumerate(sorted(paths))
    )
    lock = ReleaseLock(release=entry.name, source=LockSource(kind="tree"), files=tuple(files))
    return index_scans(lock, catalog=entry)


def test_irregular_miccai_names_are_the_published_scans() -> None:
    """Whatever the middle of a name says, series, patient and split are those of the catalog."""
    paths = {
        f"folder/{name.split('_')[0].split('.')[0]}/{name}": scan_id
        for scan_id, names in IRREGULAR.items()
        for name in names
    }
    index = index_of([*paths], VERSE20)

    assert dict(index.scan_ids) == paths
    assert {scan.scan_id for scan in index.scans} == IRREGULAR.keys()
    published = {series.scan_id: series for series in BOTH}
    for scan in index.scans:
        series = published[scan.scan_id]
        assert scan.published == series
        assert (scan.subject_id, scan.split) == (series.subject_id, series.split)
        assert not scan.spare
    rules = {found.rule for found in index_findings(index)}
    assert rules == {"missing-file", "missing-scan", "terms"}, "no name is unknown or out of place"


def test_all_names_of_a_public_list_of_training_scans_are_mapped(shared: Path) -> None:
    """Payer's 113 names of the challenge are the 113 training series of the edition."""
    with (shared / "data/lists/folds/payer2020.csv").open(newline="", encoding="utf-8") as stream:
        stems = {row["name"] for row in csv.DictReader(stream)}
    paths = [f"01_training/x/{stem}{end}" for stem in stems for end in ENDS.values()]
    index = index_of(paths, VERSE20)

    assert {scan.scan_id for scan in index.scans} == {
        series.scan_id
        for series in BOTH
        if series.split == "training" and "verse20" in str(series.edition)
    }
    assert len({scan.subject_id for scan in index.scans}) == 100
    assert all(scan.files.keys() == ENDS.keys() for scan in index.scans)


def test_the_flat_names_of_the_first_edition_group_the_series_of_one_patient() -> None:
    """verse201 and verse253 are one patient: the 37 series of 18 patients, in any layout."""
    paths = [
        f"training/{series.series_id}{end}"
        for series in VERSE19.expected
        for end in (".nii.gz", "_seg.nii.gz", "_ctd.json", "_snapshot.png")
    ]
    index = index_of(paths, VERSE19)

    assert {scan.scan_id for scan in index.scans} == {one.scan_id for one in VERSE19.expected}
    assert len({scan.subject_id for scan in index.scans}) == 141
    several = {s.series_id: s.subject_id for s in index.scans if s.series_id != s.subject_id}
    assert several == SUBJECT_OF_SERIES
    assert (len(several), len(set(several.values()))) == (37, 18)


def test_files_of_both_layouts_beside_each_other_are_one_scan() -> None:
    """A MICCAI name without direction is not a second scan of the subject-based one."""
    subject = "01_training/rawdata/sub-gl003/sub-gl003_dir-ax_ct.nii.gz"
    index = index_of([subject, "01_training/GL003/GL003.nii.gz"], VERSE20)

    (scan,) = index.scans
    assert (scan.scan_id, scan.files["ct"].path) == ("gl003_dir-ax", subject)
    assert [role for role, _ in scan.spare] == ["ct"]
