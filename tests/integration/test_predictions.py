"""Predictions come back: on the grid of their scan, voxel by voxel where that is possible."""

from __future__ import annotations

import gzip
import itertools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

import verse_data as vd
from tests.support.command import verse_data
from verse_data.api import lock_tree
from verse_data.errors import ContentMissing, UsageError, ValidationFailed, VerseDataError
from verse_data.phantom import paint_ct
from verse_data.phantom import write as write_phantom
from verse_data.predictions import import_predictions, to_native
from verse_data.spine.geometry import AxisMap, Box
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVEL_OF_LABEL
from verse_data.volumes.nifti import read_mask, write_nifti

T13, OBLIQUE, LAST = "verse903", "verse902_split-verse951", "verse904"
ORIENTATIONS = [
    "".join(codes)
    for axes in itertools.permutations(("LR", "PA", "IS"))
    for codes in itertools.product(*axes)
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache root with a small phantom; an oblique scan, T13 and L6 are in it."""
    folder = tmp_path_factory.mktemp("lab")
    tree = write_phantom(folder / "tree", n_subjects=4, shape=(32, 64, 24))
    lock_tree("phantom", tree, root=folder)
    return folder


@pytest.fixture
def release(root: Path, one_core: None) -> vd.Release:
    """The phantom, converted in this process."""
    return vd.open_release("phantom", root=root)


def truth(release: vd.Release, scan_id: str) -> npt.NDArray[np.uint8]:
    """Return the mask of a scan in its file's own axes."""
    return np.asarray(nib.load(release.path(scan_id, "mask")).dataobj).astype(np.uint8)


def dices(found: npt.NDArray[Any], mask: npt.NDArray[Any]) -> dict[int, float]:
    """Return the Dice of each label of `mask`."""
    pairs = ((int(n), mask == n, found == n) for n in np.unique(mask[mask > 0]))
    return {n: 2 * float((a & b).sum()) / float(a.sum() + b.sum()) for n, a, b in pairs}


# --- samples ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scan_id", [T13, OBLIQUE])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_comes_back_bit_exact(
    release: vd.Release, scan_id: str, orientation: str
) -> None:
    """All 48 turns and flips, of an oblique scan too, with the affine of the scan's own file."""
    (sample,) = release.dataset([scan_id], orientation=orientation)

    native = to_native(sample["label"], sample, release)

    header = nib.load(release.path(scan_id, "ct"))
    assert native.exact
    assert native.outside == 0
    assert np.array_equal(native.label, truth(release, scan_id))
    assert np.array_equal(native.affine, header.affine)


def test_a_written_prediction_has_the_grid_of_its_ct(release: vd.Release, tmp_path: Path) -> None:
    """The file is called as the scan, uint8, and holds the CT's affine; T13 is 28."""
    (sample,) = release.dataset([T13], orientation="LPI")

    path = to_native(sample["label"], sample, release).write(tmp_path / "new")

    written, ct = nib.load(path), nib.load(release.path(T13, "ct"))
    assert path == tmp_path / "new" / f"{T13}.nii.gz"
    assert written.get_data_dtype() == np.uint8
    assert np.array_equal(written.affine, ct.affine)
    assert written.shape == ct.shape
    assert 28 in np.unique(written.dataobj)


def test_consecutive_labels_come_back(release: vd.Release) -> None:
    """Labels of a model are mapped by the inverse of the transform that made them."""
    from verse_data.training.transforms import MapLabels

    mapping = MapLabels.consecutive()
    (sample,) = release.dataset([T13], transform=mapping)

    native = to_native(sample["label"][0], sample, release, inverse=mapping.inverse.mapping)

    assert np.array_equal(native.label, truth(release, T13))
    assert native.levels == tuple(
        level for label, level in LEVEL_OF_LABEL.items() if label in truth(release, T13)
    )


def test_a_lazily_opened_scan_is_a_sample_until_it_is_cut(release: vd.Release) -> None:
    """What `open_scan` returns has the affine of its voxels; a part of it is refused, it has not."""
    scan = release.open_scan(OBLIQUE, orientation="PIR")

    native = to_native(scan["label"].values, scan, release)

    assert np.array_equal(native.label, truth(release, OBLIQUE))
    part = scan.isel(x=slice(3, None))
    with pytest.raises(UsageError, match="was cut or turned"):
        to_native(part["label"].values, part, release)


@pytest.mark.parametrize("orientation", ["RAS", "PIL"])
def test_patches_are_stitched(release: vd.Release, orientation: str) -> None:
    """Overlapping patches that cover a scan, beyond its borders too, make up its mask."""
    (sample,) = release.dataset([OBLIQUE], orientation=orientation)
    patches = list(tiles(sample, size=20, step=13))

    native = to_native([patch["label"] for patch in patches], patches, release)

    assert np.array_equal(native.label, truth(release, OBLIQUE))
    assert native.exact


def tiles(sample: dict[str, Any], *, size: int, step: int) -> Any:
    """Yield patches of a sample on a regular grid that begins outside of the scan."""
    whole = np.asarray(sample["label"][0])
    padded = np.pad(whole, size)
    for i, j, k in itertools.product(*(range(-5, n, step) for n in whole.shape)):
        box = Box((i, j, k), (i + size, j + size, k + size))
        cut = padded[
            tuple(slice(a + size, b + size) for a, b in zip(box.start, box.stop, strict=True))
        ]
        yield {
            "scan_id": sample["scan_id"],
            "affine": box.affine(sample["affine"].numpy()),
            "label": cut,
        }


def test_where_patches_overlap_the_deeper_one_counts(release: vd.Release) -> None:
    """The voxel lies deepest in the middle patch; with "labelled", background there does not count."""
    (sample,) = release.dataset([T13])
    facts = [
        {"scan_id": T13, "affine": Box((first, 0, 0), (0, 0, 0)).affine(sample["affine"].numpy())}
        for first in (0, 4)
    ]
    one, other = np.full((8, 9, 9), 20, np.uint8), np.full((8, 9, 9), 21, np.uint8)
    row = AxisMap.between(release.grid(T13).affine, "RAS")

    def labels(*given: npt.NDArray[Any], **options: Any) -> list[int]:
        native = to_native(given, facts[: len(given)], release, **options)
        found: list[int] = row.apply(native.label)[:12, 4, 4].tolist()
        return found

    assert labels(one, other) == [20] * 6 + [21] * 6
    assert labels(one, other * 0) == [20] * 6 + [0] * 6
    assert labels(one, other * 0, overlap="labelled") == [20] * 8 + [0] * 4


def test_crops_of_one_vertebra_make_up_the_mask(release: vd.Release) -> None:
    """Crops around vertebrae, resampled and turned along the spine, keep each vertebra at 0.9 Dice."""
    crops = list(
        release.dataset([T13], unit="vertebra", axes="spine", include=["graded", "not_assessed"])
    )
    labels = [crop["label"] * LABEL_OF_LEVEL[crop["level"]] for crop in crops]

    native = to_native(labels, crops, release, overlap="labelled")

    found = dices(native.label, truth(release, T13))
    sys.stdout.write(f"{found}\n")
    assert not native.exact
    assert len(crops) > 2
    assert all(found[LABEL_OF_LEVEL[crop["level"]]] >= 0.9 for crop in crops)


def test_a_batch_of_patches_comes_back(release: vd.Release) -> None:
    """A batch as a loader returns it is taken whole, if all of it is of one scan."""
    patches = release.dataset([T13], unit="patch", patch_size=16, patches_per_scan=3)
    (batch,) = patches.loader(batch_size=3)

    native = to_native(batch["label"], batch, release)

    mask = truth(release, T13)
    assert native.exact
    assert set(np.unique(native.label)) <= set(np.unique(mask))
    assert (native.label[native.label > 0] == mask[native.label > 0]).all()


# Millimetres, least Dice of a label: 1 mm as promised; the other is what a 2 mm model can reach.
SPACINGS = [
    (None, 1.0),
    (1.0, 0.98),
    pytest.param(0.7, 0.98, marks=pytest.mark.slow),
    pytest.param(2.0, 0.92, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("scan_id", ["verse004", "verse010"])
@pytest.mark.parametrize(("spacing", "least"), SPACINGS)
@pytest.mark.usefixtures("one_core")
def test_real_masks_survive_resampling(
    shared: Path, tmp_path: Path, scan_id: str, spacing: float | None, least: float
) -> None:
    """A real mask, resampled as a model sees it and brought back, keeps the Dice of each label."""
    (real,) = (shared / "data" / "verse19").rglob(f"sub-{scan_id}_seg-vert_msk.nii.gz")
    mask = read_mask(real, name=scan_id)
    tree = tmp_path / "tree" / "dataset-mylabtraining"
    folders = [tree / kind / f"sub-{scan_id}" for kind in ("rawdata", "derivatives")]
    for folder in folders:
        folder.mkdir(parents=True)
    shutil.copy(real, folders[1])
    image = paint_ct(mask.array, mask.affine, seed=0)
    write_nifti(folders[0] / f"sub-{scan_id}_ct.nii.gz", image, mask.affine)
    lock_tree("mylab", tmp_path / "tree")
    release = vd.open_release("mylab")
    (sample,) = release.dataset([scan_id], spacing=spacing, orientation="LAS")

    native = to_native(sample["label"], sample, release)

    found = dices(native.label, mask.array)
    sys.stdout.write(f"{scan_id}, {spacing} mm: {min(found.values()):.4f} {found}\n")
    assert native.label.shape == mask.shape
    assert min(found.values()) >= least


# --- what is refused --------------------------------------------------------------------------


def far(affine: Any) -> Any:
    """Return an affine a metre away."""
    return (
        np.asarray(affine) + np.eye(4)[:, 3:] * 0 + np.pad([[1000.0], [0], [0]], ((0, 1), (3, 0)))
    )


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda s: (s["label"] * 0 + 26, s), ValidationFailed, "value 26 at voxel .* no label"),
        (lambda s: (s["label"] - 0.5, s), ValidationFailed, "is no label"),
        (lambda s: (np.full(s["label"].shape, np.nan), s), ValidationFailed, "nan .* no label"),
        (lambda s: (s["label"][:, 1:], s), UsageError, "has shape .* and the image"),
        (lambda s: (np.zeros((27, 8, 8, 8)), s), UsageError, r"scores\.argmax"),
        (lambda s: ([s["label"]], [s, s]), UsageError, "1 predictions for 2 samples"),
        (lambda _: ([], []), UsageError, "are none"),
        (
            lambda s: ([s["label"]] * 2, [s, {**s, "scan_id": OBLIQUE}]),
            UsageError,
            f"of 2 scans: {T13}, {OBLIQUE}",
        ),
        (lambda s: (s["label"], T13), UsageError, "scan_id and affine"),
        (lambda s: (s["label"], {**s, "affine": np.zeros((4, 4))}), UsageError, "invertible"),
        (lambda s: (s["label"], {**s, "scan_id": "verse90"}), UsageError, "Did you mean"),
        (
            lambda s: (s["label"], {**s, "affine": far(s["affine"].numpy())}),
            ValidationFailed,
            r"grid \(x .* mm\) does not overlap that of scan verse903",
        ),
    ],
)
def test_what_does_not_fit_is_named(
    release: vd.Release, change: Callable[[Any], Any], error: type[VerseDataError], text: str
) -> None:
    """Values that are no labels, shapes, samples and grids that do not belong together."""
    (sample,) = release.dataset([T13])

    with pytest.raises(error, match=text):
        to_native(*change(sample), release)


def test_a_name_is_no_release(release: vd.Release) -> None:
    """A release is opened first."""
    (sample,) = release.dataset([T13])
    with pytest.raises(UsageError, match=r"Open it: vd\.open_release"):
        to_native(sample["label"], sample, "phantom")  # type: ignore[arg-type]


def test_labels_outside_of_the_scan_are_counted(release: vd.Release) -> None:
    """A prediction that reaches over the border loses those voxels, and says how many."""
    (sample,) = release.dataset([T13])
    shape = sample["label"].shape[1:]
    moved = Box((shape[0] - 2, 0, 0), (0, 0, 0)).affine(sample["affine"].numpy())

    native = to_native(np.full((5, 3, 3), 20), {"scan_id": T13, "affine": moved}, release)

    assert native.outside == 3 * 3 * 3
    assert np.count_nonzero(native.label) == 2 * 3 * 3


def test_the_grid_is_known_from_ct_store_or_mask(root: Path, tmp_path: Path) -> None:
    """Of the CT, else of the mask or a store; without all, the command that gets the CT."""
    tree = write_phantom(tmp_path / "tree", n_subjects=4, shape=(32, 64, 24))
    lock_tree("phantom", tree)
    release = vd.open_release("phantom")
    (scan,) = release.locked([T13], ("ct",))
    (mask,) = release.locked([T13], ("mask",))
    grid = release.grid(T13)

    release.files.object_path(scan).unlink()
    of_mask = release.grid(T13)
    release.files.object_path(mask).unlink()
    with pytest.raises(ContentMissing, match=f"get phantom --scan {T13} --role ct"):
        release.grid(T13)

    assert of_mask.matches(grid)
    assert grid.matches(vd.open_release("phantom", root=root).grid(T13))


# --- folders ----------------------------------------------------------------------------------


@pytest.fixture
def folder(release: vd.Release, tmp_path: Path) -> Path:
    """Predictions of two scans by nnU-Net, on their own grid and turned, and its dataset.json."""
    made = tmp_path / "predicted"
    made.mkdir()
    for scan_id, codes in ((T13, "RAS"), (LAST, "PIR")):
        mask, grid = truth(release, scan_id), release.grid(scan_id)
        axes = AxisMap.between(grid.affine, codes)
        values = np.where(mask == 28, 26, mask).astype(np.uint8)
        affine = axes.affine(grid.affine, grid.shape)
        write_nifti(made / f"{scan_id}.nii.gz", axes.apply(values), affine)
    origin = {
        "release": release.name,
        "version": release.version,
        "lock": f"sha256:{release.lock.digest}",
        "labels": "consecutive",
        "inverse": {"26": 28},
        "licence": "CC0-1.0",
    }
    document = {"labels": {"background": 0}, "file_ending": ".nii.gz", "verse_data": origin}
    (made / "dataset.json").write_text(json.dumps(document))
    (made / "plans.json").write_text("{}")
    (made / f"{T13}.npz").write_bytes(b"scores")
    return made


def test_predictions_of_nnunet_come_back(release: vd.Release, folder: Path, tmp_path: Path) -> None:
    """T13 is 28 again, each on the grid of its CT; the report beside them is the returned one."""
    found = import_predictions("nnunet", release, folder, tmp_path / "out")

    for scan_id in (T13, LAST):
        written = nib.load(tmp_path / "out" / f"{scan_id}.nii.gz")
        assert np.array_equal(np.asarray(written.dataobj), truth(release, scan_id))
        assert np.array_equal(written.affine, release.grid(scan_id).affine)
    assert [scan.scan_id for scan in found.scans] == [T13, LAST]
    assert "T13" in found.scans[0].levels
    assert all(scan.exact for scan in found.scans)
    report = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert (report["lock"], report["form"]) == (f"sha256:{release.lock.digest}", "nnunet")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "predictions.json",
        f"{T13}.nii.gz",
        f"{LAST}.nii.gz",
    ]


def test_cases_may_have_names_of_their_own(
    release: vd.Release, folder: Path, tmp_path: Path
) -> None:
    """The export says which scan a case is; its dataset.json may lie two folders above."""
    document = json.loads((folder / "dataset.json").read_text())
    document["verse_data"]["scans"] = {"case_1": T13}
    (folder / "dataset.json").write_text(json.dumps(document))
    inner = folder / "fold_0" / "validation"
    inner.mkdir(parents=True)
    (folder / f"{T13}.nii.gz").rename(inner / "case_1.nii.gz")

    found = import_predictions("nnunet", release, inner, tmp_path / "out")

    assert [(scan.scan_id, scan.file) for scan in found.scans] == [(T13, "case_1.nii.gz")]


def change_origin(folder: Path, **facts: Any) -> None:
    """Change what dataset.json says of the export."""
    document = json.loads((folder / "dataset.json").read_text())
    document["verse_data"] |= facts
    (folder / "dataset.json").write_text(json.dumps(document))


def spoil(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change the voxels of a prediction."""
    image = nib.load(folder / name)
    changed = change(np.asarray(image.dataobj))
    write_nifti(folder / name, changed, image.affine)


def move(folder: Path) -> None:
    image = nib.load(folder / f"{LAST}.nii.gz")
    write_nifti(folder / f"{LAST}.nii.gz", np.asarray(image.dataobj), far(image.affine))


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another lock": (lambda f: change_origin(f, lock="sha256:00"), "exported from phantom v1"),
    "another release": (lambda f: change_origin(f, release="x"), "exported from x v1"),
    "one label for all": (lambda f: change_origin(f, labels="binary"), "tells? no levels|binary"),
    "bad label map": (lambda f: change_origin(f, inverse={"26": "x"}), "inverse"),
    "bad value in the label map": (lambda f: change_origin(f, inverse={"T13": 28}), "inverse"),
    "another nnU-Net dataset": (
        lambda f: (f / "dataset.json").write_text("{}"),
        "not written by verse-data export nnunet",
    ),
    "no dataset.json": (lambda f: (f / "dataset.json").unlink(), "There is no dataset.json"),
    "an unknown file": (
        lambda f: shutil.copy(f / f"{T13}.nii.gz", f / "verse9O3.nii.gz"),
        r"verse9O3\.nii\.gz.*has no scan .*Did you mean 'verse90",
    ),
    "two of a scan": (
        lambda f: shutil.copy(f / f"{T13}.nii.gz", f / f"{T13}.nii"),
        rf"{T13}\.nii\.gz.*is of {T13}, as {T13}\.nii is",
    ),
    "no label": (
        lambda f: spoil(f, f"{LAST}.nii.gz", lambda v: np.where(v, 27, v)),
        rf"{LAST}\.nii\.gz: the value 27 at voxel",
    ),
    "beyond labels": (
        lambda f: spoil(f, f"{LAST}.nii.gz", lambda v: np.where(v, 99, v)),
        rf"{LAST}\.nii\.gz: voxel .* holds 99",
    ),
    "elsewhere": (move, rf"{LAST}\.nii\.gz: its grid .* does not overlap that of scan {LAST}"),
    "cut": (
        lambda f: (f / f"{LAST}.nii.gz").write_bytes((f / f"{T13}.nii.gz").read_bytes()[:-40]),
        "is cut",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_folder_is_named_and_leaves_nothing(
    release: vd.Release, folder: Path, tmp_path: Path, case: str
) -> None:
    """The file and the reason stand in the error, and no folder is made."""
    damage, text = REFUSED[case]
    damage(folder)

    with pytest.raises(VerseDataError, match=text):
        import_predictions("nnunet", release, folder, tmp_path / "out")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["predicted"]


def test_a_folder_that_was_filled_meanwhile_is_refused(
    release: vd.Release, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No report is returned for what was not written, even if the folder is empty again."""
    monkeypatch.setattr("verse_data.predictions.imported.publish_folder", lambda *_: False)
    with pytest.raises(UsageError, match="out is not empty"):
        import_predictions("nnunet", release, folder, tmp_path / "out")


def test_all_bad_files_are_named_at_once(release: vd.Release, folder: Path, tmp_path: Path) -> None:
    """Two files with values that are no labels are one error with both names."""
    for scan_id in (T13, LAST):
        spoil(folder, f"{scan_id}.nii.gz", lambda v: np.where(v, 27, v))
    with pytest.raises(ValidationFailed, match=rf"(?s){T13}\.nii.*{LAST}\.nii"):
        import_predictions("nnunet", release, folder, tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    [
        "{}.nii", "{}.nii.gz", "{}_pred.nii.gz", "sub-{}_seg-vert_msk.nii.gz", "{}.pred.nii.gz",
        "sub-{}_pred.nii",
    ],
)  # fmt: skip
def test_files_of_other_tools_are_known_by_their_scan(
    release: vd.Release, tmp_path: Path, name: str
) -> None:
    """A name begins with the scan's id, after an optional sub-; a longer id is not a shorter one."""
    made = tmp_path / "made"
    made.mkdir()
    path = made / name.format(OBLIQUE)
    write_nifti(path, truth(release, OBLIQUE), release.grid(OBLIQUE).affine)

    found = import_predictions("folder", release, made, tmp_path / "out")

    assert [scan.scan_id for scan in found.scans] == [OBLIQUE]
    for other in ("verse903_split-verse999", f"{OBLIQUE}_verse952"):
        path = path.rename(made / f"{other}.nii.gz")
        with pytest.raises(ValidationFailed, match="has no scan"):
            import_predictions("folder", release, made, tmp_path / "other")


def test_labels_of_another_tool_are_mapped_back(root: Path, folder: Path, tmp_path: Path) -> None:
    """The error for a value that is no label names the option that maps it, and it does."""
    (folder / f"{LAST}.nii.gz").unlink()
    words = ["predictions", "import", "folder", "phantom", str(folder), str(tmp_path / "out")]
    refused = verse_data(*words, VERSE_DATA_HOME=str(root))
    assert (refused.returncode, "--inverse 26=28" in refused.stderr) == (3, True)
    done = verse_data(*words, "--inverse", "26=28", VERSE_DATA_HOME=str(root))
    assert (done.returncode, "1 prediction is in" in done.stderr) == (0, True)
    assert 28 in np.asarray(nib.load(tmp_path / "out" / f"{T13}.nii.gz").dataobj)

    words[-1] = str(tmp_path / "without")
    assert verse_data(*words, "--inverse", "26=0", VERSE_DATA_HOME=str(root)).returncode == 0
    voxels = np.asarray(nib.load(tmp_path / "without" / f"{T13}.nii.gz").dataobj)
    assert not {26, 28}.intersection(np.unique(voxels).tolist())


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["26=27"], "VALUE=LABEL"),
        (["T13=28"], "VALUE=LABEL"),
        (["26=28", "26=25"], "gives 26 two labels, 28 and 25"),
    ],
)
def test_an_inverse_of_no_label_is_refused(
    root: Path, folder: Path, tmp_path: Path, pairs: list[str], said: str
) -> None:
    """What is no pair of a value and one label of VerSe is an error of use."""
    words = [word for pair in pairs for word in ("--inverse", pair)]
    out = str(tmp_path / "out")
    command = ("predictions", "import", "folder", "phantom", str(folder), out, *words)
    done = verse_data(*command, VERSE_DATA_HOME=str(root))
    assert (done.returncode, said in done.stderr) == (2, True)


# --- the command ------------------------------------------------------------------------------


def test_the_command_tells_what_it_would_do_and_does_it(
    root: Path, folder: Path, tmp_path: Path
) -> None:
    """A dry run writes nothing; then the same scans are there; the next run does not mix with them."""
    words = ("predictions", "import", "nnunet", "phantom", str(folder), str(tmp_path / "out"))
    settings = {"VERSE_DATA_HOME": str(root)}

    dry = verse_data(*words, "--dry-run", "--json", **settings)
    assert dry.returncode == 0
    assert not (tmp_path / "out").exists()
    done = verse_data(*words, **settings)
    again = verse_data(*words, **settings)

    planned = json.loads(dry.stdout)
    assert planned["dry_run"]
    assert [scan["scan_id"] for scan in planned["scans"]] == [T13, LAST]
    assert done.returncode == 0
    assert f"{T13}.nii.gz  copied" in done.stdout
    written = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.nii.gz"))
    assert 0 < written <= planned["nbytes"]
    assert again.returncode == 2
    assert "Name a new folder" in again.stderr


def test_scans_without_a_prediction_are_named(root: Path, folder: Path, tmp_path: Path) -> None:
    """Those of the splits that have predictions are listed; an import goes on without them."""
    release = vd.open_release("phantom", root=root)
    (folder / f"{T13}.nii.gz").unlink()
    shutil.copy(release.path(OBLIQUE, "mask"), folder / f"{OBLIQUE}.nii.gz")

    done = verse_data(
        "predictions", "import", "nnunet", "phantom", str(folder), str(tmp_path / "out"),
        VERSE_DATA_HOME=str(root),
    )  # fmt: skip

    assert done.returncode == 0
    assert "no prediction of 2 scans of the same splits:\n  verse901\n" in done.stderr
    assert gzip.decompress((tmp_path / "out" / f"{OBLIQUE}.nii.gz").read_bytes())
