"""What people see in a notebook: paths, one size for three, short answers, and errors that say what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, default_collate

import verse_data as vd
from verse_data.api import lock_tree
from verse_data.errors import ContentCorrupt, ContentMissing, UsageError
from verse_data.phantom import write
from verse_data.release import Release
from verse_data.stores import make_recipe
from verse_data.training import pad_collate

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write and lock a made-up release, once for all tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("manners")
    made = write(folder / "tree", n_subjects=9, shape=(48, 96, 36))
    lock_tree("phantom", made, root=folder / "home")
    return folder / "home"


@pytest.fixture
def release(root: Path) -> Release:
    """Open it."""
    return vd.open_release("phantom", root=root)


def test_the_path_of_a_content_is_given_once_it_was_hashed(release: Release) -> None:
    """A CT, and the workbook that belongs to every scan: paths of the locked bytes."""
    for role, ending in (("ct", ".nii.gz"), ("centroids", ".json"), ("grading", ".xlsx")):
        path = release.path("verse901", role)

        assert path.is_file()
        assert path.name.endswith(ending)
    (locked,) = release.locked(["verse901"], roles=["ct"])
    assert release.path("verse901", "ct") == release.files.object_path(locked)


@pytest.mark.parametrize(
    ("scan_id", "role", "kind", "text"),
    [
        ("verse9", "ct", UsageError, "verse-data table phantom scans"),
        ("verse901", "seg", UsageError, "roles are ct, ct_json, mask"),
        ("verse908", "mask", ContentMissing, "lists no mask of verse908; it lists .*ct"),
    ],
)
def test_a_path_that_is_not_there_says_what_is(
    release: Release, scan_id: str, role: str, kind: type[Exception], text: str
) -> None:
    """A wrong id, a wrong role and a file that the release lacks are told apart."""
    with pytest.raises(kind, match=text):
        release.path(scan_id, role)


def test_a_given_file_that_is_not_there_is_named(release: Release) -> None:
    """Folds or patients: an error of ours, as on the command line."""
    for read in (release.read_folds, lambda path: release.report(patients=path)):
        with pytest.raises(UsageError, match=r"[Nn]o .*absent\.csv"):
            read("absent.csv")


def test_a_damaged_content_has_no_path(tmp_path: Path) -> None:
    """Changed bytes are an error with the line that replaces them, and dropped ones another."""
    release = lock_tree("lab", write(tmp_path / "lab", n_subjects=4, shape=(48, 96, 36)))
    path = release.path("verse901", "centroids")
    path.parent.chmod(0o755)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b" ")

    with pytest.raises(ContentCorrupt, match="verse-data drop lab --corrupt"):
        release.path("verse901", "centroids")
    path.unlink()
    with pytest.raises(ContentMissing, match="verse-data adopt lab PATH"):
        release.path("verse901", "centroids")


def test_one_spacing_is_that_of_all_axes(root: Path) -> None:
    """A number and three equal sizes are one recipe, and give one store."""
    recipes = {make_recipe(size, "linear", "lz4") for size in (2, 2.0, np.int64(2), (2, 2, 2))}

    assert len(recipes) == 1
    served = vd.load_split("validation", release="phantom", root=root, spacing=2)
    assert served[0]["spacing"].tolist() == pytest.approx([2, 2, 2])


@pytest.mark.parametrize("spacing", [0, -1, True, "1", (1, 1), (1, 2, "x"), {}, float("nan")])
def test_a_spacing_that_is_none_is_refused_in_plain_words(spacing: object) -> None:
    """The text says what may be given, and nothing of the model behind it."""
    with pytest.raises(UsageError, match="give one voxel size in mm") as raised:
        make_recipe(spacing, "linear", "lz4")
    assert "Input should" not in str(raised.value)


def test_objects_show_themselves_in_a_few_lines(release: Release) -> None:
    """Whatever a notebook prints of a release names what it is, and no file of it but one or two."""
    data = release.dataset(["verse901"])
    shown = {
        "lock": release.lock,
        "folds": release.folds(3),
        "verification": release.verify(level="presence"),
        "provenance": release.provenance(),
        "tables": release.tables,
        "index": release.index,
        "fetched": release.fetch(),
        "files": release.files,
        "loader": data.loader(batch_size=None),
        "diff": release.diff("v1"),
    }

    assert {name for name, thing in shown.items() if len(repr(thing).splitlines()) > 6} == set()
    assert {name for name, thing in shown.items() if len(repr(thing)) > 700} == set()
    assert release.lock.digest in str(release.lock)
    assert "3 subjects" in repr(shown["folds"])
    assert "missing-file: 2, such as verse908" in repr(shown["verification"])
    assert "1 of 1 batches to come" in repr(shown["loader"])
    assert shown["verification"] == tuple(shown["verification"])


def test_notebooks_get_small_tables_without_scripts(release: Release) -> None:
    """What has more to say than one line is a table there; nothing in it runs or sets a colour."""
    data = release.dataset(["verse901"])
    shown = {
        "Release phantom v1 (made up": release,
        "ScanDataset": data,
        "Tables": release.tables,
        "Folds: k=3": release.folds(3),
        "Provenance of phantom v1": release.provenance(),
        "Provenance of phantom v1 verse901": release.provenance("verse901"),
        "missing-file": release.verify(level="presence"),
        "phantom v1: 9 patients, 10 CT series": release.summary(),
    }

    for name, thing in shown.items():
        html = thing._repr_html_()
        assert name in html
        assert html.startswith("<table")
        assert len(html) < 8000, name
        assert [word for word in ("<script", "color", "background") if word in html] == []


def test_what_notebooks_show_of_a_clean_release_says_so(root: Path, release: Release) -> None:
    """A verification without findings is one line, and names what was checked."""
    clean = type(release.verify(level="presence"))()
    clean.summary = "<3> files are here"

    assert "clean" in clean._repr_html_()
    assert "&lt;3&gt; files are here" in clean._repr_html_()


def test_a_column_for_mending_is_there_if_anything_can_be_mended(release: Release) -> None:
    """What only upstream can mend has no command, and no empty column for one."""
    found = release.verify(level="presence")
    upstream = type(found)(replace(one, command="") for one in found)

    assert found
    assert ">mend<" not in upstream._repr_html_()
    assert ">mend<" in type(found)(replace(one, command="x") for one in found)._repr_html_()


def test_a_vertebra_dataset_counts_its_grades(release: Release) -> None:
    """Its picture of itself says how many vertebrae of each grade are served."""
    rows = release.vertebrae
    include = ("graded", "not_assessed")
    data = release.dataset(rows[rows["scan_id"] == "verse901"], unit="vertebra", include=include)
    grades = data.vertebrae["grade"]

    assert f"not assessed: {grades.isna().sum()}" in repr(data)
    for grade, count in grades.value_counts().items():
        assert f"{grade}: {count}" in repr(data)
    assert "grades" in data._repr_html_()


def test_provenance_names_what_shaped_the_data_and_nothing_else(release: Release) -> None:
    """Inflating, compressing, checksums; tables and resampling where there were any; no fetchers."""

    def packages(**options: object) -> set[str]:
        data = release.dataset(["verse901"], **options)
        (fact,) = data.provenance["releases"]
        return set(fact["packages"])

    stores = {"verse-data", "numpy", "isal", "google-crc32c"}
    tables = {"pandas", "openpyxl"}
    assert packages() == {*stores, "numcodecs"}
    assert packages(codec="none", spacing=3) == {*stores, "scipy"}
    assert packages(unit="vertebra", voxel_mm=None) == {*stores, *tables, "numcodecs"}
    assert packages(unit="vertebra", axes="spine") == {*stores, *tables, "numcodecs", "scipy"}
    rows = release.select("grade >= 0")
    (fact,) = release.dataset(rows).provenance["releases"]
    assert set(fact["packages"]) == {*stores, *tables, "numcodecs"}
    found = release.provenance().packages
    assert set(found) == {"verse-data", "numpy", "isal", *tables}
    assert found["numpy"] == np.__version__


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("options", [{}, {"unit": "vertebra", "around": "mask"}])
def test_batches_of_differing_sizes_say_what_to_do(
    root: Path, workers: int, options: dict[str, str]
) -> None:
    """Torch's own loader, a subset and ours name batch_size=None and pad_collate; those serve."""
    data = vd.load_split("training", release="phantom", root=root, transform=dict, **options)
    hint = r"(?s)batch_size=None.*pad_collate"

    for loader in (
        DataLoader(data, batch_size=3, num_workers=workers),
        DataLoader(Subset(data, [0, 1, 2]), batch_size=3, num_workers=workers),
        data.loader(batch_size=3, num_workers=workers),
    ):
        batches = iter(loader)
        with pytest.raises(UsageError, match=hint):
            next(batches)
        # What torch leaves to the garbage collector takes it five seconds a worker.
        getattr(batches, "_shutdown_workers", int)()
    padded = next(iter(DataLoader(data, batch_size=3, collate_fn=pad_collate)))
    assert len(padded["image"]) == 3
    assert next(iter(DataLoader(data, batch_size=None)))["image"].ndim == 4


def test_batches_of_one_size_are_what_they_were(root: Path) -> None:
    """A transform that crops makes scans batch as any dicts do, into a plain dict of tensors."""
    data = vd.load_split("training", release="phantom", root=root, transform=cropped)
    samples = [data[0], data[1]]

    batch = next(iter(DataLoader(data, batch_size=2)))

    assert isinstance(data[0], dict)
    assert type(batch) is dict
    plain = default_collate([dict(sample) for sample in samples])
    assert batch.keys() == plain.keys()
    assert torch.equal(batch["image"], plain["image"])
    assert batch["scan_id"] == plain["scan_id"]


def cropped(sample: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Cut a corner of one size out of image and label."""
    small = {name: sample[name][:, :8, :8, :8] for name in ("image", "label")}
    return {**sample, **small}
