"""Labels that do not follow one another down the spine are findings, and bent spines are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.releases import centre, tables, write_scan
from verse_data import phantom
from verse_data.spine.levels import LABEL_OF_LEVEL
from verse_data.tables.anatomy import disorders

T10_TO_L4 = ("T10", "T11", "T12", "L1", "L2", "L3", "L4")


def column(levels: tuple[str, ...], degrees: npt.ArrayLike) -> dict[str, npt.NDArray[np.float64]]:
    """Return levels 30 mm apart; each step leads that far from straight down, to the front."""
    turned = np.radians(degrees)
    steps = 30 * np.stack([0 * turned, np.sin(turned), -np.cos(turned)], axis=1)
    return dict(zip(levels, np.cumsum([np.zeros(3), *steps], axis=0), strict=True))


def swapped(one: str, other: str) -> dict[str, npt.NDArray[np.float64]]:
    """Return a straight spine in which two levels bear each other's name."""
    straight = column(T10_TO_L4, np.zeros(6))
    return straight | {one: straight[other], other: straight[one]}


@pytest.mark.parametrize(
    ("one", "other", "levels"),
    [
        ("T11", "L3", ["T12", "L3"]),
        ("T12", "L1", ["L1"]),
        ("T10", "T11", ["T11"]),
        ("L3", "L4", ["L4"]),
        ("T10", "L4", ["T11", "L4"]),
    ],
)
def test_two_levels_that_bear_each_others_name_are_found(
    one: str, other: str, levels: list[str]
) -> None:
    """Wherever they lie, each step back is told with the level that it leads to."""
    assert [level for level, _ in disorders(swapped(one, other))] == levels


def test_a_spine_that_is_labelled_upside_down_is_found_once() -> None:
    """No step turns back, but the whole runs from foot to head; two levels are enough to tell."""
    upside_down = column(T10_TO_L4, np.full(6, 180))

    ((_, message),) = disorders(upside_down)
    assert "from foot to head" in message
    assert len([*disorders({level: upside_down[level] for level in ("T10", "T11")})]) == 1


def test_a_thirteenth_thoracic_vertebra_below_lumbar_ones_is_found() -> None:
    """T13 belongs between T12 and L1, although its label is the highest."""
    lumbar = column(("L1", "L2", "L3", "T13"), np.zeros(3))

    assert [level for level, _ in disorders(lumbar)] == ["L1"]
    assert not [*disorders(column(("T12", "T13", "L1", "L2"), np.zeros(3)))]


def test_two_levels_in_one_place_are_found() -> None:
    """A step of no length leads nowhere."""
    straight = column(T10_TO_L4, np.zeros(6))

    assert [level for level, _ in disorders(straight | {"L1": straight["T12"]})] == ["L1"]


@pytest.mark.parametrize(
    "degrees",
    [
        [0, 60, 0, -60, 0, 60],
        [-30, 30, -30, 30, -30, 30],
        [60, 60, 0, 0, -60, -60],
        [-60, -30, 0, 30, 60, 100],
        [80, 60, 20, -20, -60, -80],
    ],
)
@pytest.mark.parametrize("side", [1, -1])
def test_bent_spines_are_in_order(degrees: list[int], side: int) -> None:
    """Kyphosis, lordosis and scoliosis with 60 degrees between neighbouring steps give no finding."""
    bent = column(T10_TO_L4, side * np.array(degrees))

    assert not [*disorders(bent)]
    turned = {level: point[[1, 0, 2]] for level, point in bent.items()}
    assert not [*disorders(turned)], "the same to the side"


def test_one_level_or_none_has_no_order() -> None:
    """Nothing can be told of them."""
    assert not [*disorders({})]
    assert not [*disorders({"L1": [0, 0, 0]})]


def test_a_mask_and_a_centroid_file_with_swapped_labels_are_a_finding(tmp_path: Path) -> None:
    """Both files agree, and the finding names scan, file, both levels and both positions in mm."""
    labels = [LABEL_OF_LEVEL[level] for level in T10_TO_L4]
    labels[1], labels[5] = labels[5], labels[1]
    write_scan(tmp_path / "tree", "verse004", labels)
    made = tables(tmp_path / "tree").findings

    found = made[made["rule"] == "levels-out-of-order"]
    assert list(found["level"]) == ["T12", "L3"]
    assert set(found["severity"]) == {"warning"}
    assert set(found["scan_id"]) == {"verse004"}
    assert found["file"].str.endswith("_ctd.json").all()
    first = found["message"].iloc[0]
    assert "T11 lies at (" in first
    assert "T12 lies at (0.0, 4.5, 7.5) mm" in first
    assert not (made["rule"] == "centroid-outside-mask").any(), "the two files agree"


def test_a_centroid_with_the_label_of_another_level_is_a_finding(tmp_path: Path) -> None:
    """Label 28 on what lies below L4 is told; without a grid nothing is."""
    labels = [LABEL_OF_LEVEL[level] for level in (*T10_TO_L4, "T13")]
    points = [
        {"label": label, **dict(zip("XYZ", centre(place), strict=True))}
        for place, label in enumerate(labels)
    ]
    write_scan(tmp_path / "tree", "verse004", labels, points=points)
    made = tables(tmp_path / "tree").findings
    assert list(made[made["rule"] == "levels-out-of-order"]["level"]) == ["L1"]

    blind = tables(tmp_path / "tree", without=".nii.gz").findings
    assert not (blind["rule"] == "levels-out-of-order").any()


def test_a_phantom_and_the_real_files_are_in_order(tmp_path: Path, shared: Path) -> None:
    """No finding where the labels are right: transitional vertebrae and oblique grids included."""
    phantom.write(tmp_path / "phantom", shape=(48, 96, 36))
    real = tables(shared / "data/verse19", derived=tmp_path / "derived").findings
    made = tables(tmp_path / "phantom").findings

    for findings in (real, made):
        assert not (findings["rule"] == "levels-out-of-order").any()


@pytest.mark.parametrize(
    ("labels", "rule", "skipped"),
    [
        ([20, 22], "level-skipped", ["L2"]),
        ([3, 6], "level-skipped", ["C4", "C5"]),
        ([17, 20], "level-skipped", ["T11", "T12"]),
        ([18, 28, 20], "level-skipped", ["T12"]),
        ([23, 25], "level-skipped", ["L5"]),
        ([18, 20], "no-t12", ["T12"]),
        ([18, 19, 20], "level-skipped", []),
        ([19, 28, 20], "level-skipped", []),
        ([23, 24], "level-skipped", []),
    ],
)
@pytest.mark.parametrize("without", ["no file", "_msk.nii.gz", "_ctd.json"])
def test_a_level_that_is_skipped_is_a_finding(
    tmp_path: Path, labels: list[int], rule: str, skipped: list[str], without: str
) -> None:
    """By mask, by centroids or by both, without a workbook; T13 is rare, and T12 may be absent."""
    write_scan(tmp_path / "tree", "verse004", labels)
    for path in [path for path in tmp_path.rglob("*.*") if path.name.endswith(without)]:
        path.unlink()

    found = tables(tmp_path / "tree").findings

    told = found[found["rule"].isin(["level-skipped", "no-t12"])]
    assert list(told["level"]) == skipped
    assert set(told["rule"]) <= {rule}
    assert told["message"].str.contains(" follows ").all()
