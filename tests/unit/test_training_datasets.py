"""The three units: what a sample holds, where it comes from, what is left out and why."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import DataLoader, default_collate

from tests.support import training as support
from verse_data.errors import ChunkMissing, SampleError, UsageError
from verse_data.spine.geometry import apply_affine
from verse_data.spine.levels import LABEL_OF_LEVEL
from verse_data.training import (
    PatchDataset,
    ScanDataset,
    ServedScan,
    VertebraDataset,
    centroid_voxels,
    pad_collate,
)
from verse_data.training.transforms import Window

COMMON = {"image", "label", "affine", "spacing", "centroids", "scan_id", "subject_id", "split"}
PROVENANCE = {"release": "phantom", "version": "v1", "licence": "CC <BY>"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> support.Made:
    return support.make(tmp_path_factory.mktemp("scans"))


def test_a_scan_sample_has_the_documented_keys_shapes_and_types(made: support.Made) -> None:
    """A scan comes as image, label, affine, spacing, centroids and names, of the documented types."""
    sample = ScanDataset(made.scans)[1]

    assert set(sample) == COMMON
    assert sample["image"].shape == sample["label"].shape == (1, 60, 80, 120)
    assert sample["image"].dtype == torch.float32
    assert sample["label"].dtype == torch.uint8
    assert sample["affine"].shape == (4, 4)
    assert sample["centroids"].shape == (26, 3)
    assert {sample[k].dtype for k in ("affine", "spacing", "centroids")} == {torch.float64}
    assert (sample["scan_id"], sample["subject_id"], sample["split"]) == (
        "verse901",
        "verse901",
        "training",
    )


def test_centroids_as_voxels_lie_on_their_vertebra(made: support.Made) -> None:
    """The centroids as indices point at voxels of their own label in the served image."""
    sample = ScanDataset(made.scans, orientation="PIR")[1]

    for level, at in centroid_voxels(sample).items():
        x, y, z = (round(v) for v in at)
        assert sample["label"][0, x, y, z] == LABEL_OF_LEVEL[level]


def test_a_scan_without_a_mask_is_left_out_with_its_reason(tmp_path: Path) -> None:
    """A dataset with labels leaves out what has none and says so; without labels it serves it."""
    specs = (support.Spec("verse900"), support.Spec("verse901", mask=False))
    made = support.make(tmp_path, specs)

    labelled, bare = ScanDataset(made.scans), ScanDataset(made.scans, label=False)

    assert [s.scan_id for s in labelled.scans] == ["verse900"]
    assert labelled.excluded.to_dict("records") == [
        {"scan_id": "verse901", "subject_id": "verse901", "reason": "no_mask"}
    ]
    assert len(bare) == 2
    assert "label" not in bare[1]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("grade", 4, "not one of 0, 1, 2, 3"),
        ("grade", -2, "not one of 0, 1, 2, 3"),
        ("grade", 258, "not one of 0, 1, 2, 3"),
        ("grade", "severe", "not one of 0, 1, 2, 3"),
        ("label", 12, "not one of 18"),
        ("has_mask", "maybe", "not one of False, True"),
        ("fracture_type", "burst", "not one of none, wedge, biconcave, crush"),
        ("level", "T14", "not one of C1"),
        ("grade_status", None, "not one of graded"),
    ],
)
def test_rows_that_no_table_holds_are_refused(
    made: support.Made, column: str, value: object, words: str
) -> None:
    """A value that its column cannot have is an error that names scan, level and what may be there."""
    rows = made.table.astype({column: object})
    rows.loc[0, column] = value

    with pytest.raises(UsageError, match=rf"{column}(.|\n)*{words}(.|\n)*release.vertebrae"):
        VertebraDataset(made.scans, rows)


def test_a_subject_in_two_splits_is_refused(made: support.Made) -> None:
    """Scans of one patient in two splits never make a dataset."""
    first, *rest = made.scans
    torn = ServedScan("verse900_split-verse777", first.subject_id, "test", first.store)

    with pytest.raises(UsageError, match="leaks patients: verse900"):
        ScanDataset([first, torn, *rest])
    with pytest.raises(UsageError, match="given twice: verse900"):
        ScanDataset([first, first])


@pytest.mark.parametrize("size", [12, np.int64(12), (12, 12, 12), [12, 12, 12], np.full(3, 12)])
def test_one_number_is_a_cube(made: support.Made, size: Any) -> None:
    """A patch of 12 is one of 12 x 12 x 12 voxels, and says so in its options."""
    patches = PatchDataset(made.scans, patch_size=size)

    assert patches[0]["image"].shape == (1, 12, 12, 12)
    assert patches.options["patch_size"] == [12, 12, 12]


def test_a_patch_larger_than_the_scan_holds_it_in_the_middle(made: support.Made) -> None:
    """Where the scan is smaller than the patch, air and background surround it evenly."""
    patch = PatchDataset(made.scans[:1], patch_size=(100, 90, 100))[0]

    assert patch["image"].shape == (1, 100, 90, 100)
    assert patch["box"][0].tolist()[:2] == [-20, -5]
    assert (patch["image"][0, :20] == -1024).all()
    assert (patch["label"][0, :20] == 0).all()
    assert (patch["image"][0, 20:80, 5:85] != -1024).all()


def test_uniform_patches_come_evenly_from_all_scans(made: support.Made) -> None:
    """Each scan gives as many patches as the others, to within one, whatever the total."""
    patches = PatchDataset(made.scans, patch_size=(8, 8, 8), patches_per_epoch=23)

    counts = np.bincount([patches.scan_number(0, n) for n in range(23)])

    assert len(patches) == 23
    assert set(counts) == {4, 5}


def test_foreground_patches_have_a_vertebra_in_the_middle(made: support.Made) -> None:
    """Around a drawn voxel of the mask: every patch holds vertebra, evenly over its labels."""
    patches = PatchDataset(
        made.scans[:1], patch_size=(1, 1, 1), sampling="foreground", patches_per_scan=400
    )

    labels = [int(sample["label"]) for sample in patches]

    counts = {level: labels.count(LABEL_OF_LEVEL[level]) for level in ("T11", "T12", "L1", "L2")}
    assert sum(counts.values()) == 400
    assert all(70 <= count <= 130 for count in counts.values()), counts


def test_patches_by_grade_meet_the_asked_shares(made: support.Made) -> None:
    """Rare grades come as often as asked, to within one patch, in every epoch."""
    patches = PatchDataset(
        made.scans,
        vertebrae=made.table,
        patch_size=(16, 16, 16),
        sampling="grade",
        weights={0: 1, 2: 2, 3: 1},
        patches_per_epoch=40,
    )

    for epoch in range(3):
        grades = [patches[epoch, n]["grade"] for n in range(40)]
        assert {g: grades.count(g) for g in set(grades)} == {0: 10, 2: 20, 3: 10}


def test_patches_by_level_hold_their_vertebra(made: support.Made) -> None:
    """The centroid of the level that a patch was drawn for lies inside the patch."""
    patches = PatchDataset(
        made.scans, vertebrae=made.table, patch_size=(32, 32, 16), sampling="level"
    )

    for sample in patches:
        at = np.array(centroid_voxels(sample)[sample["level"]])
        assert (at >= -0.5).all()
        assert (at <= [31.5, 31.5, 15.5]).all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sampling": "grade"}, "needs vertebrae="),
        ({"sampling": "random"}, "none of uniform, foreground, level, grade"),
        ({"weights": {1: 1}}, "no meaning with sampling='uniform'"),
        ({"patch_size": (0, 1, 1)}, "patch_size="),
        ({"patch_size": 0}, "patch_size="),
        ({"patch_size": 32.5}, "patch_size=32.5"),
        ({"patch_size": True}, "patch_size="),
        ({"patch_size": (8, 8)}, "patch_size="),
        ({"patch_size": "abc"}, "patch_size='abc'"),
        ({"patch_size": (8, 8, float("nan"))}, "patch_size="),
        ({"patches_per_epoch": -1}, "patches_per_epoch=-1"),
        ({"patches_per_epoch": 2.5}, "patches_per_epoch=2.5"),
        ({"patches_per_scan": 0.5}, "patches_per_scan=0.5"),
        ({"orientation": "RAX"}, "orientation="),
        ({"image_dtype": "float64"}, "image_dtype="),
        ({"seed": -1}, "seed="),
        ({"seed": "a"}, "seed='a'"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"transform": 5}, "transform=5"),
    ],
)
def test_options_without_sense_are_refused(
    made: support.Made, options: dict[str, object], text: str
) -> None:
    """An option that means nothing is an error that names it."""
    with pytest.raises(UsageError, match=text):
        PatchDataset(made.scans, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        *(
            ({"fracture_threshold": wrong}, "fracture_threshold=")
            for wrong in (0, 4, 1.5, "1", True)
        ),
        ({"include": ("graded", "g")}, "include='g'"),
        ({"include": "good"}, "include='good'"),
        ({"crop_size_mm": "abc"}, "crop_size_mm='abc'"),
        ({"voxel_mm": (1, 2)}, "voxel_mm="),
        ({"margin_mm": "a", "around": "mask"}, "margin_mm='a' is not a finite number"),
        ({"margin_mm": 5}, "margin_mm=5 goes with around='mask'"),
    ],
)
def test_options_of_vertebrae_without_sense_are_refused(
    made: support.Made, options: dict[str, object], text: str
) -> None:
    """A threshold that is no grade, or a status that is none, is an error when the dataset is made."""
    with pytest.raises(UsageError, match=text):
        VertebraDataset(made.scans, made.table, **options)  # type: ignore[arg-type]


def test_one_status_may_be_given_as_a_word(made: support.Made) -> None:
    """include="not_assessed" is the same as include=("not_assessed",)."""
    one = VertebraDataset(made.scans, made.table, include="not_assessed")

    assert one.include == ("not_assessed",)
    assert len(one) == len(VertebraDataset(made.scans, made.table, include=("not_assessed",))) > 0


@pytest.mark.parametrize("weights", [{1: float("inf")}, {1: "a"}, [1, 2]])
def test_weights_that_are_no_numbers_are_refused(made: support.Made, weights: object) -> None:
    """Each weight must be a finite number."""
    with pytest.raises(UsageError, match="weights"):
        PatchDataset(
            made.scans,
            vertebrae=made.table,
            sampling="grade",
            weights=weights,  # type: ignore[arg-type]
        )


def test_resampled_images_are_rounded_to_whole_units(made: support.Made) -> None:
    """int16 is the rounded float32, without a shift toward zero."""
    options: dict[str, Any] = {"voxel_mm": 1.3, "crop_size_mm": 30, "axes": "spine"}
    exact = VertebraDataset(made.scans, made.table, **options)[2]["image"]
    whole = VertebraDataset(made.scans, made.table, image_dtype="int16", **options)[2]["image"]

    assert whole.dtype == torch.int16
    assert (exact != exact.round()).any()
    assert (whole == exact.round()).all()


def test_weights_of_a_grade_that_does_not_occur_are_refused(made: support.Made) -> None:
    """Asking for a class of which there is no vertebra is an error that lists the classes."""
    healthy = made.table[made.table["grade"].isin([0])]

    with pytest.raises(UsageError, match=r"names the grade 3.*There are: 0"):
        PatchDataset(made.scans, vertebrae=healthy, sampling="grade", weights={0: 1, 3: 1})


def test_a_vertebra_sample_has_its_targets(made: support.Made) -> None:
    """Grade, fracture and shape of the vertebra come with the crop."""
    fx = VertebraDataset(made.scans, made.table, fracture_threshold=2, label_mode="all")
    by_name = {(s["scan_id"], s["level"]): s for s in fx}

    mild, severe = by_name["verse900", "T11"], by_name["verse900", "T12"]

    assert (mild["grade"], mild["fractured"], severe["grade"], severe["fractured"]) == (1, 0, 3, 1)
    assert severe["vertebra_label"] == 19
    assert severe["foreign_material"] == 0
    assert severe["bmd_mg_cm3"] == pytest.approx(120.5)
    assert severe["image"].shape == (1, 80, 80, 80)


def test_unassessed_and_foreign_material_are_left_out_and_counted(made: support.Made) -> None:
    """Blank grades and x are excluded by default, with the reason, and served when asked for."""
    fx = VertebraDataset(made.scans, made.table)
    everything = VertebraDataset(
        made.scans, made.table, include=("graded", "foreign_material", "not_assessed")
    )

    excluded = fx.excluded
    reasons = dict(zip(excluded["level"].astype(str), excluded["reason"], strict=True))
    assert reasons == {
        "L1": "foreign_material",
        "T13": "not_assessed",
        "C6": "not_assessed",
        "C7": "not_assessed",
    }
    assert len(fx) + len(excluded) == len(made.table)
    assert "excluded    4 (3 not_assessed, 1 foreign_material)" in repr(fx)
    assert len(everything) == len(made.table)
    blank = next(s for s in everything if s["level"] == "T13")
    assert (blank["grade"], blank["fractured"], blank["fracture_type"]) == (-1, -1, -1)


def test_a_vertebra_without_centroid_or_scan_is_left_out_and_counted(tmp_path: Path) -> None:
    """What cannot be located, or whose scan is not served, is listed with its reason."""
    specs = (
        support.Spec("verse900", without_centroid=("T12",)),
        support.Spec("verse901", mask=False),
        support.Spec("verse902", levels=("T12",)),
    )
    made = support.make(tmp_path, specs)

    fx = VertebraDataset([made.scans[0], made.scans[1]], made.table, axes="spine")

    reasons = fx.excluded.groupby("reason").size().to_dict()
    assert reasons == {"no_centroid": 1, "no_mask": 4, "scan_not_served": 1}
    alone = VertebraDataset(made.scans[2:], made.table[-1:], axes="spine")
    assert alone.excluded["reason"].tolist() == ["no_neighbour"]


@pytest.mark.parametrize(
    ("mode", "values"), [("vertebra", {0, 1}), ("binary", {0, 1}), ("all", {0, 18, 19, 20})]
)
def test_label_modes(made: support.Made, mode: str, values: set[int]) -> None:
    """The label is this vertebra alone, any vertebra, or all labels."""
    fx = VertebraDataset(made.scans[:1], made.table, label_mode=mode)  # type: ignore[arg-type]
    scan = ScanDataset(made.scans[:1])[0]

    sample = fx[1]

    assert set(np.unique(sample["label"])) == values
    if mode == "vertebra":
        assert sample["label"].sum() == (scan["label"] == LABEL_OF_LEVEL[sample["level"]]).sum()
    none = VertebraDataset(made.scans[:1], made.table, label_mode="none")
    assert "label" not in none[1]


def test_crops_along_the_spine_stand_upright(made: support.Made) -> None:
    """In a crop along the spine, the neighbours' centroids lie straight above and below."""
    fx = VertebraDataset(made.scans[:1], made.table, axes="spine", crop_size_mm=60)
    sample = next(s for s in fx if s["level"] == "T12")

    voxels = centroid_voxels(sample)
    above, below = np.array(voxels["T11"]), np.array(voxels["L1"])

    assert np.allclose((above - below)[:2], 0, atol=1e-6)
    assert (above - below)[2] > 40
    assert np.allclose(voxels["T12"], 29.5, atol=1e-6)


def test_native_voxels_are_never_interpolated(made: support.Made) -> None:
    """A scan that has the wanted voxel size is handed out voxel by voxel."""
    fx = VertebraDataset(made.scans[:1], made.table, crop_size_mm=(20, 22, 24))
    scan = ScanDataset(made.scans[:1])[0]

    sample = fx[0]

    start = apply_affine(np.linalg.inv(scan["affine"].numpy()), sample["affine"][:3, 3].numpy())
    cut = tuple(slice(round(a), round(a) + n) for a, n in zip(start, (20, 22, 24), strict=True))
    assert np.allclose(start, np.rint(start))
    assert (sample["image"][0] == scan["image"][0][cut]).all()


def test_patches_and_vertebrae_batch_with_the_default_collate(made: support.Made) -> None:
    """Torch's own collate makes batches of patches and crops of scans with different voxels."""
    patches = PatchDataset(made.scans, patch_size=(16, 16, 16))
    fx = VertebraDataset(made.scans, made.table, crop_size_mm=40)

    batch = default_collate([patches[n] for n in range(4)])
    crops = next(iter(DataLoader(fx, batch_size=len(fx))))

    assert batch["image"].shape == (4, 1, 16, 16, 16)
    assert batch["affine"].shape == (4, 4, 4)
    assert crops["image"].shape == (len(fx), 1, 40, 40, 40)
    assert crops["grade"].dtype == torch.int64
    assert len(set(crops["scan_id"])) == 5


def test_crops_of_different_shapes_batch_with_padding(made: support.Made) -> None:
    """pad_collate fills up with air and background, and tells the true shapes."""
    fx = VertebraDataset(made.scans, made.table, around="mask", voxel_mm=None)

    batch = next(iter(DataLoader(fx, batch_size=len(fx), collate_fn=pad_collate)))

    x, y, z = batch["shape"][0].tolist()
    assert tuple(batch["shape"].max(dim=0).values) == tuple(batch["image"].shape[2:])
    assert (batch["image"][0, :, x:] == -1024).all()
    assert (batch["image"][0, :, :x, :y, :z] == fx[0]["image"]).all()


def test_padding_of_batches_may_be_another_value(made: support.Made) -> None:
    """After a window, where air is 0, pad_collate pads with 0."""
    fx = VertebraDataset(
        made.scans, made.table, around="mask", voxel_mm=None, transform=Window(-200, 1000)
    )
    padding = functools.partial(pad_collate, pad_image=0)

    batch = next(iter(DataLoader(fx, batch_size=len(fx), collate_fn=padding)))

    x = int(batch["shape"][0, 0])
    assert x < batch["image"].shape[2]
    assert (batch["image"][0, :, x:] == 0).all()
    assert batch["image"].min() == 0


class Narrower(UsageError):
    """An error that somebody derived from one of ours, made of two things."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


def test_errors_derived_from_ours_become_sample_errors(made: support.Made) -> None:
    """Only our own classes are sure to survive a worker; others are told by name."""

    def fail(sample: object) -> None:
        raise Narrower("so ", "narrow")

    with pytest.raises(SampleError, match=r"verse901(.|\n)*Narrower: so narrow"):
        ScanDataset(made.scans, transform=fail)[1]


def test_a_transform_may_return_anything_that_can_be_sent(made: support.Made) -> None:
    """What the transform returns is the sample; None in it is refused by name."""
    tuples = ScanDataset(made.scans, transform=lambda s: (s["image"], 1))
    nothing = ScanDataset(made.scans, transform=lambda s: {**s, "age": None})

    assert tuples[0][1] == 1
    with pytest.raises(SampleError, match=r"verse900.*'age' is None"):
        nothing[0]


def test_random_transforms_depend_on_the_sample_alone(made: support.Made) -> None:
    """Torch's, NumPy's and Python's generators give the same for the same sample and epoch."""
    import random

    def draw(sample: dict[str, object]) -> dict[str, object]:
        return {"t": torch.rand(1), "n": np.random.rand(), "p": random.random()}  # noqa: NPY002

    patches = PatchDataset(made.scans, patch_size=(4, 4, 4), transform=draw)
    before = torch.random.get_rng_state()

    first, again, other, later = patches[3], patches[3], patches[4], patches[1, 3]

    assert first == again
    assert first["t"] != other["t"] != later["t"]
    assert first["n"] != other["n"]
    assert (torch.random.get_rng_state() == before).all()


def test_a_dataset_shows_what_it_is(made: support.Made) -> None:
    """Repr and notebook table name counts, release, version, licence, fingerprint; HTML escaped."""
    dataset = ScanDataset(made.scans, provenance=PROVENANCE)

    text, html = repr(dataset), dataset._repr_html_()

    for part in ("phantom", "v1", "5 of 4 subjects", dataset.fingerprint[:12]):
        assert part in text
        assert part in html
    assert "CC &lt;BY&gt;" in html
    assert dataset.provenance["stores"]["verse900"] == made.scans[0].store.name
    assert dataset.provenance["release"] == "phantom"


def test_fingerprints_tell_datasets_apart(made: support.Made) -> None:
    """Same scans, options and rows: same fingerprint. Anything else: another."""
    same = VertebraDataset(made.scans, made.table)
    others = [
        VertebraDataset(made.scans, made.table, seed=1),
        VertebraDataset(made.scans, made.table, orientation="PIR"),
        VertebraDataset(made.scans[:2], made.table),
        VertebraDataset(made.scans, made.table[made.table["level"] != "L1"]),
    ]

    assert same.fingerprint == VertebraDataset(made.scans, made.table).fingerprint
    assert len({d.fingerprint for d in (same, *others)}) == 5


def test_a_dataset_survives_pickling_and_opens_nothing_before_it_reads(made: support.Made) -> None:
    """Making and pickling a dataset opens no store; the copy serves the same."""
    dataset = PatchDataset(made.scans, patch_size=(8, 8, 8))
    gone = PatchDataset([ServedScan("verse1", "verse1", "test", Path("/nowhere/x"))], label=False)

    copy = pickle.loads(pickle.dumps(dataset))  # noqa: TID251 - our own bytes

    assert support.stream_digest(copy) == support.stream_digest(dataset)
    assert len(gone) == 8


def test_errors_of_the_store_keep_their_class_and_name_the_sample(tmp_path: Path) -> None:
    """A missing shard arrives as ChunkMissing, naming scan and sample."""
    made = support.make(tmp_path, support.SPECS[:1])
    (made.scans[0].store / "image" / "c" / "0" / "0" / "0").unlink()

    with pytest.raises(ChunkMissing, match="verse900, patch sample 2 of epoch 0: "):
        PatchDataset(made.scans, patch_size=(8, 8, 8))[2]


def test_an_index_out_of_range_is_an_index_error(made: support.Made) -> None:
    """Iterating ends where the samples end, and negative numbers count from there."""
    dataset = ScanDataset(made.scans)

    assert [s["scan_id"] for s in dataset] == [s.scan_id for s in made.scans]
    assert dataset[-1]["scan_id"] == made.scans[-1].scan_id
    with pytest.raises(IndexError):
        dataset[len(made.scans)]


@pytest.mark.parametrize(
    ("index", "error"),
    [
        (slice(0, 2), TypeError),
        (1.0, TypeError),
        ((0, slice(0, 2)), TypeError),
        ((-1, 0), UsageError),
        ((0.5, 0), UsageError),
    ],
)
def test_what_is_no_index_is_refused(
    made: support.Made, index: Any, error: type[Exception]
) -> None:
    """A slice, a fraction or an epoch that cannot be is an error, and no sample."""
    with pytest.raises(error):
        ScanDataset(made.scans)[index]


def test_int16_images_hold_the_same_values(made: support.Made) -> None:
    """int16 halves what is copied and loses nothing."""
    small = PatchDataset(made.scans, patch_size=(8, 8, 8), image_dtype="int16")
    large = PatchDataset(made.scans, patch_size=(8, 8, 8))

    assert small[3]["image"].dtype == torch.int16
    assert (small[3]["image"] == large[3]["image"]).all()


DRAWS: dict[str, dict[str, Any]] = {
    "uniform": {},
    "foreground": {"sampling": "foreground"},
    "level": {"sampling": "level"},
    "grade": {"sampling": "grade"},
}
"""Options of each way to draw patches."""


def boxes(samples: Iterable[dict[str, Any]]) -> list[tuple[str, list[list[int]]]]:
    """Return scan and box of each patch."""
    return [(sample["scan_id"], sample["box"].tolist()) for sample in samples]


@pytest.mark.parametrize("sampling", list(DRAWS))
def test_each_epoch_draws_other_patches(made: support.Made, sampling: str) -> None:
    """After set_epoch the patches of one scan lie elsewhere; the same epoch gives the same ones."""
    patches = PatchDataset(
        made.scans[:1],
        vertebrae=made.table[made.table["scan_id"] == made.scans[0].scan_id],
        patch_size=8,
        patches_per_epoch=6,
        **DRAWS[sampling],
    )
    drawn = {}
    for epoch in (0, 1, 5, 0):
        patches.set_epoch(epoch)
        found = boxes(patches[number] for number in range(len(patches)))
        assert drawn.setdefault(epoch, found) == found

    # Not a box in common: what was drawn first may not merely come in another order.
    assert not [box for box in drawn[0] if box in drawn[1] + drawn[5]]
    assert boxes(patches[1, number] for number in range(len(patches))) == drawn[1]


def test_each_epoch_shares_out_the_scans_anew(made: support.Made) -> None:
    """Where scans do not divide the epoch, the ones that come more often change, and so does the order."""
    patches = PatchDataset(made.scans, patch_size=8, patches_per_epoch=8)
    orders = [
        [str(patches.scans.scan_id[patches.scan_number(epoch, n)]) for n in range(8)]
        for epoch in range(12)
    ]

    assert len({tuple(order) for order in orders}) > 6
    assert len({tuple(sorted(order)) for order in orders}) > 1
    alike = [order for order in orders if sorted(order) == sorted(orders[0])]
    assert len({tuple(order) for order in alike}) == len(alike) > 1


@pytest.mark.parametrize("sampling", list(DRAWS))
def test_passes_over_a_loader_draw_other_patches(made: support.Made, sampling: str) -> None:
    """Each pass is an epoch of its own, and the sampler goes back to one as it was."""
    patches = PatchDataset(
        made.scans, vertebrae=made.table, patch_size=8, patches_per_epoch=6, **DRAWS[sampling]
    )
    loader = patches.loader(batch_size=None)

    first, second = boxes(loader), boxes(loader)
    loader.set_epoch(0)

    assert not [box for box in second if box in first]
    assert boxes(loader) == first
    assert boxes(loader) == second


@contextmanager
def default_device(name: str) -> Iterator[None]:
    """Set the device on which torch makes tensors, for a while."""
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


MODES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "inference": torch.inference_mode,
    "no gradients": torch.no_grad,
    "another device": lambda: torch.device("meta"),
    "another default device": lambda: default_device("cuda"),
    "fake tensors": FakeTensorMode,
}


def brightened(sample: dict[str, Any]) -> dict[str, Any]:
    return {**sample, "image": sample["image"] + torch.rand(1)}


@pytest.mark.parametrize("used", [*MODES, "none"])
@pytest.mark.parametrize("made_in", [*MODES, "none"])
def test_samples_do_not_follow_the_modes_of_torch(
    made: support.Made, made_in: str, used: str
) -> None:
    """Whatever mode a dataset is made or used in, its samples and batches are ordinary tensors."""
    plain, by_hand = MODES.get(made_in, nullcontext), MODES.get(used, nullcontext)
    options: dict[str, Any] = {"patch_size": 8, "patches_per_epoch": 2, "transform": brightened}
    expected = PatchDataset(made.scans, **options)
    expected.set_epoch(1)
    with plain():
        patches = PatchDataset(made.scans, **options)
        crops = VertebraDataset(made.scans, made.table, crop_size_mm=8)

    with by_hand():
        patches.set_epoch(1)
        loader = patches.loader(sampler=patches.sampler(shuffle=False), batch_size=2)
        found = [patches[0], patches[1], *loader, *crops.loader(batch_size=2)]
        found += [pad_collate(found[:2])]

    samples = [expected[0], expected[1]]
    assert support.stream_digest(found[:3]) == support.stream_digest(
        [*samples, default_collate(samples)]
    )
    for value in (value for sample in found for value in sample.values()):
        if isinstance(value, torch.Tensor):
            assert (type(value), value.device.type) == (torch.Tensor, "cpu")
            assert not value.is_inference()
