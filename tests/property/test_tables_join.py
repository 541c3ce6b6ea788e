"""The join of grades, masks and centroids, against a few lines that say the same in words."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from verse_data.records.centroids import Centroid, CentroidFile
from verse_data.records.tables import GradingRow
from verse_data.spine.levels import GRADED_LEVELS, LABEL_OF_LEVEL, LEVELS
from verse_data.tables.findings import scan_findings
from verse_data.tables.index import ScanFiles
from verse_data.tables.join import ScanSources, scan_record, subject_records, vertebra_records
from verse_data.volumes.mask_facts import LabelFacts, VolumeFacts

AFFINE = (
    (0.0, 0.0, 2.0, -5.0),
    (-1.0, 0.0, 0.0, 10.0),
    (0.0, -1.0, 0.0, 20.0),
    (0.0, 0.0, 0.0, 1.0),
)
SOME_LEVELS = st.sets(st.sampled_from(LEVELS))
PAIRS = st.sampled_from([(0, 0), (1, 1), (2, 2), (3, 3), ("x", "x")])


def facts(levels: set[str], points: set[str]) -> VolumeFacts:
    """Return facts of a mask with one voxel a level, at its centroid."""
    one = LabelFacts(
        voxels=1, start=(1, 1, 1), stop=(2, 2, 2), centre_ijk=(1.0, 1.0, 1.0), crumbs=0
    )
    labels = {LABEL_OF_LEVEL[level]: one for level in levels}
    at = {f"{LABEL_OF_LEVEL[level]},1,1": LABEL_OF_LEVEL[level] for level in points}
    return VolumeFacts(shape=(40, 40, 40), affine=AFFINE, dtype="uint8", labels=labels, at=at)


def centroids(levels: set[str]) -> CentroidFile:
    """Return a centroid file with a point for each level."""
    points = tuple(
        Centroid(label=LABEL_OF_LEVEL[x], X=float(LABEL_OF_LEVEL[x]), Y=1.0, Z=1.0) for x in levels
    )
    return CentroidFile(direction="PIR", points=points)


def grading(pairs: dict[str, tuple[Any, Any]]) -> GradingRow:
    """Return a workbook row with these pairs of grade and shape."""
    return GradingRow(
        series_id="verse004",
        subject_id="verse004",
        split="training",
        age_years=60.0,
        ct_device=1,
        resolution_mm=1.0,
        bmd_mg_cm3=0.0,
        t_score=None,
        series_number=1,
        series_count=1,
        n_vertebrae=9,
        foreign_material=None,
        n_fractures=None,
        grades={level: grade for level, (grade, _) in pairs.items()},
        shapes={level: shape for level, (_, shape) in pairs.items()},
    )


@st.composite
def runs(draw: st.DrawFn) -> dict[str, tuple[Any, Any]]:
    """Draw a run of graded levels without a gap."""
    first = draw(st.integers(0, 17))
    last = draw(st.integers(first, 18))
    return {level: draw(PAIRS) for level in GRADED_LEVELS[first:last]}


@given(
    st.one_of(st.none(), SOME_LEVELS),
    st.one_of(st.none(), SOME_LEVELS),
    st.one_of(st.none(), runs()),
)
@settings(max_examples=200, deadline=None)
def test_the_join_loses_and_invents_nothing(
    masked: set[str] | None, pointed: set[str] | None, pairs: dict[str, tuple[Any, Any]] | None
) -> None:
    """One row a level that anything speaks of, head to foot, with the status that the words define."""
    mask = None if masked is None else facts(masked, pointed or set())
    sources = ScanSources(
        scan=ScanFiles("verse004", "verse004", None, "verse004", "training", {}),
        centroids=None if pointed is None else centroids(pointed),
        mask=mask,
    )
    row = None if pairs is None else grading(pairs)
    records = vertebra_records(sources, row)
    known, seen, marks = set(masked or ()), set(pointed or ()), pairs or {}

    assert [record.level for record in records] == [
        x for x in LEVELS if x in known | seen | set(marks)
    ]
    for record in records:
        mark = marks.get(record.level, (None, None))[0]
        has = None if masked is None else record.level in masked
        assert record.has_mask is has
        assert record.has_centroid is (None if pointed is None else record.level in pointed)
        assert record.grade == (mark if mark in {0, 1, 2, 3} else None)
        assert record.foreign_material is (None if mark is None else mark == "x")
        if mark is None:
            assert record.grade_status == "not_assessed"
        elif has is False:
            assert record.grade_status == "no_mask"
        else:
            assert record.grade_status == ("foreign_material" if mark == "x" else "graded")
        assert (record.centroid_i is not None) is (record.level in seen)

    scan = scan_record(sources, row, None)
    assert scan.n_graded == (None if pairs is None else sum(g != "x" for g, _ in pairs.values()))
    (subject,) = subject_records([scan], records, {})
    assert (subject.n_levels, subject.n_graded) == (len(records), scan.n_graded or 0)
    if masked is not None and pairs is not None:
        rules = {(found.rule, found.level) for found in scan_findings(sources, row)}
        assert {x for rule, x in rules if rule == "grade-without-mask"} == set(pairs) - known
        blank = (known & set(GRADED_LEVELS)) - set(pairs)
        assert {x for rule, x in rules if rule == "mask-without-grade"} == blank
