"""Both editions in the catalog: which series, patients and splits, and whose terms are not known."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from verse_data.records.catalog import ExpectedSeries
from verse_data.records.names import parse_path, split_of
from verse_data.releases.catalog import known_series, load_catalog

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
