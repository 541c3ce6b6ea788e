"""`vd.metrics` against implementations written here from the definitions, on cases made by hand."""

from __future__ import annotations

import math
import warnings

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nibabel.processing import resample_from_to

import verse_data as vd
from tests.support.scans import PIR, TILTED
from verse_data.errors import UsageError, ValidationFailed
from verse_data.metrics import Side
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVEL_OF_LABEL

SHAPE = (12, 40, 9)


def spine(*levels: str, shift: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
    """Return a mask of one box a level, from top to bottom along the second axis."""
    mask = np.zeros(SHAPE, np.uint8)
    for place, level in enumerate(levels):
        top = 2 + 6 * place
        mask[3:8, top : top + 4, 2:6] = LABEL_OF_LEVEL[level]
    return np.roll(mask, shift, (0, 1, 2))


def naive_dice(truth: np.ndarray, predicted: np.ndarray, level: str) -> float:
    """Compute Dice by its definition, over sets of voxels."""
    label = LABEL_OF_LEVEL[level]
    one, other = ({tuple(v) for v in np.argwhere(mask == label)} for mask in (truth, predicted))
    return 2 * len(one & other) / (len(one) + len(other))


def naive_surface(mask: np.ndarray, level: str, affine: np.ndarray) -> list[np.ndarray]:
    """Return the voxels of a label with a face neighbour outside it, in mm."""
    inside = {tuple(v) for v in np.argwhere(mask == LABEL_OF_LEVEL[level]).tolist()}
    steps = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
    return [
        affine[:3, :3] @ np.array(v) + affine[:3, 3]
        for v in inside
        if any((v[0] + a, v[1] + b, v[2] + c) not in inside for a, b, c in steps)
    ]


def naive_hausdorff(one: list[np.ndarray], other: list[np.ndarray]) -> tuple[float, float]:
    """Compute both distances from all pairs of points."""
    apart = np.array([[math.dist(a, b) for b in other] for a in one])
    directed = [apart.min(axis=1), apart.min(axis=0)]
    return max(d.max() for d in directed), max(np.percentile(d, 95) for d in directed)


def naive_hits(truth: dict, predicted: dict, limit: float, *, at_limit: bool) -> set[str]:
    """Return the levels whose predicted point has its own true point nearest, and near enough."""
    hits = set()
    for level, point in predicted.items():
        if level not in truth or any(map(math.isnan, point)):
            continue
        own = math.dist(point, truth[level])
        others = [math.dist(point, place) for name, place in truth.items() if name != level]
        if (own < limit or (at_limit and own == limit)) and all(own <= far for far in others):
            hits.add(level)
    return hits


# --- masks ----------------------------------------------------------------------------------------

THORACOLUMBAR = ("T11", "T12", "T13", "L1", "L2")
MASKS = {
    "perfect": spine(*THORACOLUMBAR),
    "moved by two voxels": spine(*THORACOLUMBAR, shift=(2, 1, 0)),
    "missing vertebra": spine("T11", "T12", "T13", "L1"),
    "additional vertebra": spine(*THORACOLUMBAR, "L3"),
    "labels off by one": spine("T12", "T13", "L1", "L2", "L3"),
    "empty": np.zeros(SHAPE, np.uint8),
}


@pytest.mark.parametrize("affine", [PIR, TILTED], ids=["1 mm", "oblique, 2 mm"])
@pytest.mark.parametrize("case", MASKS)
def test_dice_and_surface_distances_are_those_of_their_definitions(case, affine):
    """Each level has the Dice and the distances in mm that sets and pairs of voxels give."""
    truth, predicted = MASKS["perfect"], MASKS[case]
    rows = vd.metrics.score_scan(truth, predicted, affine).vertebrae.set_index("level")
    assert set(rows.index) == {LEVEL_OF_LABEL[v] for v in np.unique([truth, predicted]) if v}
    for level, row in rows.iterrows():
        assert row["dice"] == naive_dice(truth, predicted, level)
        surfaces = [naive_surface(mask, level, affine) for mask in (truth, predicted)]
        status = ("missing", "additional", "found")[
            all(surfaces) + (not surfaces[0] or all(surfaces))
        ]
        assert row["mask_status"] == status
        if all(surfaces):
            expected = naive_hausdorff(*surfaces)
            assert (row["hd_mm"], row["hd95_mm"]) == pytest.approx(expected, abs=1e-9)
        else:
            assert math.isnan(row["hd_mm"])


@pytest.mark.filterwarnings("ignore::FutureWarning")  # MONAI's own
def test_hausdorff_agrees_with_monai():
    """On a grid without tilt, MONAI's distances, which have the same definition, are the same."""
    with warnings.catch_warnings(action="ignore"):  # MONAI's own
        metrics = pytest.importorskip("monai.metrics")
    import torch

    rng = np.random.default_rng(0)
    truth = np.zeros((20, 18, 16), np.uint8)
    truth[4:14, 4:12, 3:11] = 20
    predicted = np.where(rng.random(truth.shape) < 0.9, np.roll(truth, (1, 2, 1), (0, 1, 2)), 0)
    spacing = (0.5, 1.0, 2.0)
    row = vd.metrics.score_scan(truth, predicted, np.diag([*spacing, 1.0])).vertebrae.iloc[0]
    pair = [torch.as_tensor(mask == 20)[None, None] for mask in (predicted, truth)]
    for name, percentile in (("hd_mm", None), ("hd95_mm", 95)):
        theirs = metrics.compute_hausdorff_distance(
            *pair, include_background=True, percentile=percentile, spacing=spacing
        )
        assert row[name] == pytest.approx(float(theirs), abs=1e-5)


@pytest.mark.parametrize(
    ("levels", "predicted", "shift"),
    [
        (("T11", "T12", "L1"), ("T11", "T12", "L1"), 0),
        (("T11", "T12", "L1"), ("T12", "L1", "L2"), 1),
        (("T11", "T12", "L1"), ("T10", "T11", "T12"), -1),
        (("T12", "T13", "L1"), ("T11", "T12", "T13"), -1),
        (("T11", "T12", "L1"), ("T12", "T13", "L2"), 1),
        (("C1", "C2"), ("C3", "C4"), 0),
    ],
)
def test_labels_off_by_one_are_told_as_such(levels, predicted, shift):
    """The shift under which Dice is clearly higher is named; all vertebrae as one have Dice 1."""
    scan = vd.metrics.score_scan(spine(*levels), spine(*predicted), PIR).scan
    assert scan["shift"] == shift
    assert scan["dice_foreground"] == 1.0
    if shift:
        assert scan["dice_down" if shift > 0 else "dice_up"] == 1.0


def test_a_poor_prediction_is_not_called_shifted():
    """Where the labels put right would not half agree either, there is nothing to put right."""
    predicted = spine("T12", "L1", "L2", shift=(3, 0, 0))
    scan = vd.metrics.score_scan(spine("T11", "T12", "L1"), predicted, PIR).scan
    assert 0.1 < scan["dice_down"] < 0.5
    assert scan["shift"] == 0


@pytest.mark.parametrize(
    ("predicted", "error", "words"),
    [
        (spine("T12")[:-1], UsageError, "no mask is resampled"),
        (spine("T12") * 0.5, UsageError, "whole numbers"),
        (np.full(SHAPE, 29, np.uint8), ValidationFailed, "0 to 28"),
        (np.full(SHAPE, 26, np.uint8), ValidationFailed, "import makes it 28"),
        (np.full(SHAPE, 27, np.uint8), ValidationFailed, "VerSe. If it is the coccyx, write 0"),
    ],
    ids=["shape", "fractions", "29", "26 for T13", "27"],
)
def test_masks_that_cannot_be_compared_are_refused(predicted, error, words):
    """Another shape, fractions, and labels that VerSe does not have are errors, not zeros."""
    with pytest.raises(error, match=words):
        vd.metrics.score_scan(spine("T12"), predicted, PIR, name="mine.nii.gz")


# --- points ---------------------------------------------------------------------------------------

TRUE_POINTS = {"T12": (0.0, 0.0, 0.0), "T13": (0.0, 25.0, 0.0), "L1": (0.0, 50.0, 0.0)}
NAN = math.nan
POINTS = {
    "perfect": TRUE_POINTS,
    "missing": {"T12": (0.0, 0.0, 0.0), "L1": (1.0, 50.0, 0.0)},
    "additional": {**TRUE_POINTS, "L2": (0.0, 75.0, 0.0)},
    "off by one": {"T13": (0.0, 0.0, 0.0), "L1": (0.0, 25.0, 0.0), "L2": (0.0, 50.0, 0.0)},
    "20.0 mm exactly": {"T12": (12.0, 0.0, 16.0)},
    "nearest was not predicted": {"T12": (0.0, 13.0, 0.0), "L1": (0.0, 50.0, 0.0)},
    "NaN": {"T12": (NAN, 0.0, 0.0), "L1": (0.0, 50.0, 0.0)},
    "empty": {},
}


@pytest.mark.parametrize("rule", ["lt20", "le20"])
@pytest.mark.parametrize("case", POINTS)
def test_identification_is_that_of_its_definition(case, rule):
    """A hit has its own true point nearest among all of the scan, closer than 20 mm."""
    found = vd.metrics.identify(TRUE_POINTS, POINTS[case], hit=rule)
    expected = naive_hits(TRUE_POINTS, POINTS[case], 20.0, at_limit=rule == "le20")
    assert {level for level, one in found.items() if one.hit} == expected


def test_conventions_of_identification_are_told_apart():
    """Exactly 20 mm hits by one rule alone; a nearer vertebra counts though it was not predicted."""
    at_20 = POINTS["20.0 mm exactly"]
    hits = [
        vd.metrics.identify(TRUE_POINTS, at_20, hit=rule)["T12"].hit for rule in ("lt20", "le20")
    ]
    assert hits == [False, True]
    near = vd.metrics.identify(TRUE_POINTS, POINTS["nearest was not predicted"])["T12"]
    assert (near.hit, near.nearest, near.distance_mm) == (False, "T13", 13.0)


def test_figures_of_a_scan_follow_from_its_hits():
    """Rate is hits of true points, precision of predicted ones; distance is the mean of the hits."""
    grid = np.diag([2.0, 1.0, 1.0, 1.0])
    predicted = {"T12": (1.5, 0.0, 4.0), "L1": (0.0, 51.0, 0.0), "L4": (0.0, 90.0, 0.0)}
    made = vd.metrics.score_scan(
        None, None, grid, truth_points=TRUE_POINTS, predicted_points=predicted
    )
    assert made.scan["id_rate"] == made.scan["id_precision"] == 2 / 3
    assert made.scan["d_mean_mm"] == (5.0 + 1.0) / 2
    assert made.vertebrae["point_status"].tolist() == ["found", "missing", "found", "additional"]


def test_without_predicted_points_centres_of_masks_are_compared():
    """Both sides are centres of mass then, and the scan says so."""
    scan = vd.metrics.score_scan(
        spine("T12", "L1"), spine("T12", "L1", shift=(1, 0, 0)), PIR, truth_points=TRUE_POINTS
    ).scan
    assert (scan["points"], scan["hits"], scan["d_mean_mm"]) == ("centres of masks", 2, 1.0)


# --- the official code ----------------------------------------------------------------------------


def notebook(truth, predicted, affine, true_points, points):
    """Do what evaluate.ipynb does, with nibabel; masks in the number type of their files."""

    def resampled(mask):
        image = nib.Nifti1Image(mask, affine)
        sizes = image.header.get_zooms()
        shape = tuple(
            np.rint([n * size for n, size in zip(mask.shape, sizes, strict=True)]).astype(int)
        )
        target = nib.affines.rescale_affine(affine, mask.shape, (1, 1, 1), shape)
        return (
            resample_from_to(image, (shape, target), order=0, cval=-1024).get_fdata().astype(bool)
        )

    one, other = resampled(truth), resampled(predicted)
    total = one.sum() + other.sum()
    dice = 1.0 if total == 0 else 2.0 * (one & other).sum() / total
    shared = [label for label in sorted(true_points) if label in points]
    hits = 0
    for at, label in enumerate(shared):
        apart = [
            np.linalg.norm(np.round(points[label], 1) - np.round(true_points[a], 1)) for a in shared
        ]
        hits += int(np.argmin(apart)) == at and not apart[at] > 20.0
    return dice, hits / len(true_points)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
@pytest.mark.parametrize("case", MASKS)
def test_official_code_is_that_of_the_notebook(case, dtype):
    """Dice and rate are the notebook's, also where it is wrong: -1024 around masks, distances in voxels."""
    truth, predicted = (MASKS[name].astype(dtype) for name in ("perfect", case))
    found = vd.metrics.overlap(MASKS["perfect"], MASKS[case])
    points = {level: (5.0, 4.0 * n + 0.04, 3.0) for n, level in enumerate(found.predicted)}
    true_points = {level: (5.0, 4.0 * n, 3.0) for n, level in enumerate(found.truth)}
    sides = [
        Side(mask=mask.astype(np.uint8), is_signed=mask.dtype.kind in "if", points=placed)
        for mask, placed in ((truth, true_points), (predicted, points))
    ]
    made = vd.metrics.official_scores(*sides, TILTED)
    labels = [{LABEL_OF_LEVEL[k]: v for k, v in placed.items()} for placed in (true_points, points)]
    assert (made.dice, made.id_rate) == pytest.approx(notebook(truth, predicted, TILTED, *labels))


def test_official_code_gives_an_empty_prediction_of_verse004_its_dice(shared):
    """The empty mask of verse004 gets Dice 0.31, which is why the code is marked as wrong."""
    folder = shared / "data/verse004_float64"
    image = nib.load(folder / "sub-verse004_seg-vert_msk.nii.gz")
    mask = np.asarray(image.dataobj).astype(np.uint8)
    sides = [Side(mask=m, is_signed=True, points=None) for m in (mask, np.zeros_like(mask))]
    made = vd.metrics.official_scores(*sides, image.affine)
    assert made.dice == pytest.approx(0.31, abs=0.005)
    assert math.isnan(made.id_rate)


# --- many scans -----------------------------------------------------------------------------------


def test_intervals_draw_patients_not_vertebrae():
    """Copies of a patient's vertebrae make an interval no narrower; the same seed gives the same."""
    values, patients = np.array([0.1, 0.9, 0.5, 0.7]), list("abcd")
    one = vd.metrics.mean_interval(values, patients, seed=3)
    many = vd.metrics.mean_interval(np.repeat(values, 50), list(np.repeat(patients, 50)), seed=3)
    apart = vd.metrics.mean_interval(np.repeat(values, 50), [str(n) for n in range(200)], seed=3)
    assert (one.low, one.high) == pytest.approx((many.low, many.high))
    assert apart.high - apart.low < 0.2 < one.high - one.low
    assert (one.n, one.patients, many.n, many.patients) == (4, 4, 200, 4)


def test_interval_is_that_of_drawing_patients_by_hand():
    """The ends are percentiles of means of patients drawn again with replacement."""
    rng = np.random.default_rng(0)
    patients = [str(p) for p in rng.integers(0, 12, 80)]
    values = rng.random(80)
    made = vd.metrics.mean_interval(values, patients, draws=4000)
    by_patient = [values[np.array(patients) == name] for name in sorted(set(patients))]
    drawn = [
        np.concatenate([by_patient[n] for n in rng.integers(0, 12, 12)]).mean() for _ in range(4000)
    ]
    assert (made.low, made.high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.01)


@pytest.mark.parametrize("values", [[], [math.nan], [0.5, 0.7]])
def test_one_patient_has_no_interval(values):
    """With fewer than two patients there is a mean at most, and no interval."""
    made = vd.metrics.mean_interval(values, ["a"] * len(values))
    assert math.isnan(made.low)
    assert math.isnan(made.value) == (made.n == 0)


def tables(**cases: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return vertebrae and scans of predictions by scan id."""
    scored = {
        name: vd.metrics.score_scan(MASKS["perfect"], MASKS[c], PIR) for name, c in cases.items()
    }
    vertebrae = [s.vertebrae.assign(scan_id=name, subject_id=name[0]) for name, s in scored.items()]
    scans = [{"scan_id": name, "subject_id": name[0], **s.scan} for name, s in scored.items()]
    return pd.concat(vertebrae, ignore_index=True), pd.DataFrame(scans)


@pytest.mark.parametrize(
    ("missing", "additional", "expected"),
    [("zero", "skip", (4 / 5, 1.0)), ("skip", "zero", (1.0, 5 / 6)), ("skip", "skip", (1.0, 1.0))],
)
def test_missing_and_additional_vertebrae_count_as_their_conventions_say(
    missing, additional, expected
):
    """Dice 0 or left out; either way both are counted, and a missing one is not identified."""
    rows = tables(a1="missing vertebra", b1="additional vertebra")
    made = vd.metrics.summarise(*rows, missing=missing, additional=additional)
    assert made.scans["dice"].tolist() == pytest.approx(list(expected))
    assert made.scans["n_missing"].tolist() == [1, 0]
    assert made.scans["n_additional"].tolist() == [0, 1]
    over = made.summary.set_index(["over", "figure"])["mean"]
    assert over["vertebrae", "id_rate"] == 9 / 10
    assert over["scans", "id_rate"] == pytest.approx((4 / 5 + 1) / 2)
    assert over["scans", "hd_mm"] == 0.0  # distances are of found vertebrae alone


def test_groups_are_over_true_vertebrae_by_region_and_grade():
    """An additional vertebra is in no group; an ungraded one is called so."""
    vertebrae, scans = tables(a1="additional vertebra", b1="empty")
    grades = pd.array([0, 1, None, 3, 3, None, 0, 1, None, 3, 3], dtype="Int8")
    made = vd.metrics.summarise(vertebrae.assign(grade=grades), scans)
    dice = made.groups[made.groups["figure"] == "dice"].set_index("value")
    assert dice["n"].to_dict() == {
        "thoracic": 6, "lumbar": 4, "0": 2, "1": 2, "3": 4, "not assessed": 2,
    }  # fmt: skip
    assert dice["mean"].tolist() == [0.5] * 6


@pytest.mark.parametrize(
    "options", [{"missing": "penalty"}, {"additional": "one"}, {"seed": -1}, {"draws": 0}]
)
def test_conventions_that_there_are_not_are_refused(options):
    """The error names the option."""
    with pytest.raises(UsageError, match=next(iter(options))):
        vd.metrics.summarise(*tables(a1="perfect"), **options)
