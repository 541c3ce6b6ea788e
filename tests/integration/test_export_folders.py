"""A release as a folder for Hugging Face's datasets, and as a BIDS derivative."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import verse_data as vd
from tests.support.command import verse_data
from tests.support.releases import write_scan
from verse_data.errors import UsageError
from verse_data.phantom import write


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> vd.Release:
    """A made-up release with a patient of several series, and a scan without a mask."""
    folder = tmp_path_factory.mktemp("made")
    tree = write(folder / "tree", shape=(48, 96, 36))
    next(tree.rglob("sub-verse903*_msk.nii.gz")).unlink()
    people = [f"verse9{number:02},{'FM'[number % 2]}" for number in range(1, 13)]
    (tree / "patients.csv").write_text("\n".join(["subject_id,sex", *people]))
    return vd.lock_tree("phantom", tree, root=folder / "home")


def labels(path: Path) -> np.ndarray:
    """Return the voxels of a mask."""
    return np.asarray(nib.load(path.resolve()).dataobj)


def test_hugging_face_loads_one_row_a_scan_with_image_mask_and_grades(
    release: vd.Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Splits, grades and voxels are those of the release; missing grades are None."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets = pytest.importorskip("datasets", reason="install datasets to run this")

        made = vd.export.hf(release, tmp_path / "out", copy=True)
        cache = str(tmp_path / "cache")
        loaded = datasets.load_dataset("niftifolder", data_dir=str(made.path), cache_dir=cache)

    assert set(loaded) == {"train", "validation", "test"}
    rows = {row["scan_id"]: row for split in loaded.values() for row in split}
    assert set(rows) == set(made.scans)
    assert made.left_out.keys() == release.series.keys() - rows.keys() != set()
    scan = made.scans[0]
    mask = np.asarray(rows[scan]["mask"].dataobj)
    assert (mask == np.asarray(nib.load(release.path(scan, "mask")).dataobj)).all()
    own = release.vertebrae.query("scan_id == @scan")
    grades = [None if pd.isna(grade) else grade for grade in own["grade"]]
    assert [one["grade"] for one in rows[scan]["vertebrae"]] == grades
    sexes = release.subjects.set_index("subject_id")["sex"]
    assert {row["subject_id"]: row["sex"] for row in rows.values()} == {
        row["subject_id"]: sexes[row["subject_id"]] for row in rows.values()
    }
    assert set(sexes) == {"F", "M"}


def test_croissant_is_valid_and_its_records_are_the_scans_and_grades_of_the_release(
    release: vd.Release, tmp_path: Path
) -> None:
    """MLCommons' own reader warns of nothing; a missing grade is a missing value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        croissant = pytest.importorskip("mlcroissant", reason="install mlcroissant to run this")
        done = verse_data(
            *("export", "croissant", "phantom", "--root", str(release.config.home)),
            *("--out", str(tmp_path / "croissant.json")),
        )
        loaded = croissant.Dataset(jsonld=tmp_path / "croissant.json")
        found = {name: pd.DataFrame(loaded.records(name)) for name in ("scans", "grades")}

    assert done.returncode == 0, done.stderr
    issues = loaded.metadata.ctx.issues
    assert {*issues.errors, *issues.warnings} == set()
    assert set(found["scans"]["scans/scan_id"]) == set(release.series)
    grades = found["grades"].rename(columns=lambda name: name.removeprefix("grades/"))
    own = release.vertebrae.dropna(subset="foreign_material")[grades.columns]
    assert own["grade"].isna().any()
    pd.testing.assert_frame_equal(
        grades.astype(object).where(grades.notna(), None),
        own.reset_index(drop=True).astype(object).where(own.reset_index().notna(), None),
        check_dtype=False,
    )


def test_the_card_names_licence_lock_and_how_to_load(release: vd.Release, tmp_path: Path) -> None:
    """What leaves the package says where it is from; by default nothing large is written."""
    made = vd.export.hf(release, tmp_path / "out")

    card = (tmp_path / "out" / "README.md").read_text()
    assert f"license: {release.catalog.licence.lower()}" in card
    assert release.lock.digest in card
    assert made.nbytes < 200_000
    assert all(path.is_symlink() for path in (tmp_path / "out").rglob("*.nii.gz"))


def test_a_bids_derivative_passes_the_validator(release: vd.Release, tmp_path: Path) -> None:
    """The validator of BIDS itself finds no error."""
    program = Path(sys.executable).with_name("bids-validator-deno")
    if not program.exists():
        pytest.skip("install bids-validator-deno to run this")
    vd.export.bids(release, tmp_path / "out")

    done = subprocess.run(
        [str(program), "--json", str(tmp_path / "out")], capture_output=True, text=True
    )

    assert done.stdout, done.stderr
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []


def test_a_bids_derivative_has_each_mask_once_with_its_scan_id_labels_and_grades(
    release: vd.Release, tmp_path: Path
) -> None:
    """Series of one patient are told apart by acq-, and T13 is 28 in the table of labels."""
    made = vd.export.bids(release, tmp_path / "out")

    out, found = tmp_path / "out", {}
    for path in out.rglob("*_scans.tsv"):
        for row in pd.read_csv(path, sep="\t").itertuples():
            found[row.scan_id] = path.parent / row.filename
    assert set(found) == set(made.scans)
    for scan, path in found.items():
        assert (labels(path) == labels(release.path(scan, "mask"))).all()
    assert any("_acq-verse951_desc-vertebrae_dseg" in path.name for path in found.values())
    names = pd.read_csv(out / "dseg.tsv", sep="\t").set_index("abbreviation")["index"]
    assert names["T13"] == 28
    grades = pd.read_csv(out / "grades.tsv", sep="\t")
    assert len(grades) == release.vertebrae["scan_id"].isin(made.scans).sum()
    described = json.loads((out / "dataset_description.json").read_text())
    assert release.lock.digest in described["SourceDatasets"][0]["Version"]
    assert described["License"] == release.catalog.licence


@pytest.mark.parametrize("kind", ["hf", "bids"])
def test_the_commands_say_bytes_first_and_never_replace_a_folder(
    kind: str, release: vd.Release, tmp_path: Path
) -> None:
    """A dry run writes nothing; a folder that is there stays as it is."""
    words = ("export", kind, "phantom", str(tmp_path / "out"), "--root")
    root = str(release.config.home)

    dry = verse_data(*words, root, "--dry-run", "--copy")
    assert dry.returncode == 0, dry.stderr
    assert "Would write about" in dry.stderr
    assert "verse903: no mask" in dry.stderr
    assert not (tmp_path / "out").exists()

    (tmp_path / "out").mkdir()
    assert verse_data(*words, root).returncode == UsageError.exit_code
    assert list((tmp_path / "out").iterdir()) == []
    shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("kind", ["hf", "bids"])
@pytest.mark.filterwarnings("ignore::verse_data.IncompleteTable")
def test_endings_are_those_of_the_content_whatever_the_names_are(kind: str, tmp_path: Path) -> None:
    """Capitals and further dots in a name do not change what a reader takes the file for."""
    write_scan(tmp_path / "tree", "verse901", [20, 21])
    (ct,) = (tmp_path / "tree").rglob("*_ct.nii.gz")
    (mask,) = (tmp_path / "tree").rglob("*_msk.nii.gz")
    ct.rename(ct.with_name("verse901.NII.GZ"))
    mask.rename(mask.with_name("verse901.v2_seg.nii.gz"))
    release = vd.lock_tree("mylab", tmp_path / "tree", root=tmp_path / "home")

    made = getattr(vd.export, kind)(release, tmp_path / "out")

    volumes = [path for path in made.path.rglob("*") if ".nii" in path.name]
    assert len(volumes) == 2
    assert all(
        path.name.partition(".")[2] in {"nii.gz", "ct.nii.gz", "mask.nii.gz"} for path in volumes
    )


@pytest.mark.parametrize("kind", ["nnunet", "monai", "hf", "bids"])
def test_an_interrupted_export_leaves_nothing_not_even_the_folder_above(
    kind: str, release: vd.Release, tmp_path: Path
) -> None:
    """Ctrl-C in the midst of the files, which every export shows the progress of."""
    stages = []

    @contextmanager
    def interrupted(stage: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        def advance(amount: int) -> None:
            if stage in {"Writing masks", "Copying or linking files"}:
                stages.append((total, unit))
                raise KeyboardInterrupt

        yield advance

    opened = vd.open_release("phantom", root=release.config.home, progress=interrupted)
    with pytest.raises(KeyboardInterrupt):
        getattr(vd.export, kind)(opened, tmp_path / "new" / "nnUNet_raw")

    assert stages[0][0] > 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["hf", "bids"])
def test_a_dry_run_estimates_and_the_name_of_a_release_is_explained(
    kind: str, release: vd.Release, tmp_path: Path
) -> None:
    """Volumes are counted to the byte, and a name is no release."""
    write = getattr(vd.export, kind)
    planned, made = (
        write(release, tmp_path / "out", copy=True, dry_run=dry) for dry in (True, False)
    )

    assert 0 < made.nbytes - planned.nbytes < 200_000
    assert "README.md to" in str(planned)
    assert "links to" in str(write(release, tmp_path / "links", dry_run=True))
    with pytest.raises(UsageError, match=r"vd\.open_release"):
        write("phantom", tmp_path / "out")


def test_scans_that_bids_cannot_tell_apart_are_refused_with_a_way_out(tmp_path: Path) -> None:
    """Both ids give one name in BIDS, and the files of one must be called otherwise."""
    for stem in ("verse901_dir-ab_split-c", "verse901_dir-b_split-ca"):
        write_scan(tmp_path / "tree", stem, [20, 21])
    release = vd.lock_tree("mylab", tmp_path / "tree", root=tmp_path / "home")

    with pytest.raises(UsageError, match="Name the files of one otherwise"):
        vd.export.bids(release, tmp_path / "out")
