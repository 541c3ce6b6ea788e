"""Several releases served as one: each series once, from the first that can, and no patient in two splits."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

import verse_data as vd
from verse_data.api import lock_tree
from verse_data.errors import ValidationFailed
from verse_data.phantom import write as write_phantom

UNITS: dict[str, dict[str, Any]] = {
    "scan": {},
    "patch": {"patch_size": 16},
    "vertebra": {"crop_size_mm": 16.0, "include": ("not_assessed",)},
}
ROLES = ("ct", "mask", "centroids")
_SUBJECT = {"ct": "_ct.nii.gz", "mask": "_seg-vert_msk.nii.gz", "centroids": "_seg-subreg_ctd.json"}
_MICCAI = {"ct": ".nii.gz", "mask": "_seg.nii.gz", "centroids": "_ctd.json"}
ONE, OTHER = "verse901", "verse903"
"""Two scans of the phantom, each with CT, mask and centroids."""


class Lab:
    """Releases of a machine, made of copies of the phantom's scans under other names."""

    def __init__(self, folder: Path, phantom: Path) -> None:
        self.folder, self.phantom = folder, phantom

    def put(
        self,
        release: str,
        stem: str,
        scan: str = ONE,
        *,
        split: str = "training",
        roles: Collection[str] = ROLES,
        miccai: bool = False,
        recompressed: bool = False,
    ) -> None:
        """Copy the files of `roles` of a phantom scan to `stem` of the release."""
        subject = stem.split("_", maxsplit=1)[0]
        for role in roles:
            (source,) = self.phantom.rglob(f"sub-{scan}{_SUBJECT[role]}")
            top = self.folder / release / split
            name = f"{stem}{_MICCAI[role]}" if miccai else f"sub-{stem}{_SUBJECT[role]}"
            (top / "rawdata").mkdir(parents=True, exist_ok=True)
            room = "rawdata" if role == "ct" or miccai else "derivatives"
            target = top / room / (subject if miccai else f"sub-{subject}") / name
            target.parent.mkdir(parents=True, exist_ok=True)
            content = source.read_bytes()
            if recompressed and role != "centroids":
                content = gzip.compress(gzip.decompress(content), compresslevel=1, mtime=1)
            target.write_bytes(content)

    def load(self, releases: Sequence[str], unit: str = "scan", **options: Any) -> Any:
        """Lock the releases that are not yet, and serve them as one."""
        home = self.folder / "home"
        for name in releases:
            if not (home / "releases" / name).exists():
                lock_tree(name, self.folder / name, root=home, check=False)
        how: dict[str, Any] = {"split": "training", **UNITS[unit], **options}
        load: Any = vd.load_split
        return load(release=list(releases), root=home, unit=unit, workers=1, **how)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small phantom to copy from."""
    folder = tmp_path_factory.mktemp("phantom")
    return write_phantom(folder / "tree", n_subjects=4, shape=(40, 88, 32), seed=21)


@pytest.fixture
def lab(tmp_path: Path, phantom: Path) -> Lab:
    """A machine without releases."""
    return Lab(tmp_path, phantom)


def served(data: Any) -> list[tuple[str, str]]:
    """Return scan and subject of each scan that is served."""
    return sorted((scan.scan_id, scan.subject_id) for scan in data.scans)


def left_out(data: Any) -> set[tuple[str, str]]:
    """Return scan and reason of what is listed as not served."""
    excluded = data.excluded
    return set(zip(excluded["scan_id"], excluded["reason"], strict=True))


@pytest.mark.parametrize("recompressed", [False, True])
def test_a_series_in_two_layouts_is_served_once(lab: Lab, *, recompressed: bool) -> None:
    """The MICCAI name without its direction, or other bytes of the same CT, are no second series."""
    lab.put("one", "verse500_dir-ax")
    lab.put("two", "verse500", miccai=True, recompressed=recompressed)
    names = {"one": "verse500_dir-ax", "two": "verse500"}

    for unit, (first, second) in itertools.product(UNITS, (("one", "two"), ("two", "one"))):
        data = lab.load([first, second], unit)
        assert served(data) == [(names[first], "verse500")]
        assert left_out(data) == {(names[second], "same_series")}


def test_a_ct_under_another_name_makes_one_patient_of_two(lab: Lab) -> None:
    """The CT is served once, and the patient's other series bears the first release's subject."""
    lab.put("one", "p1")
    lab.put("two", "q7_ses-1")
    lab.put("two", "q7_ses-2", OTHER)

    for unit in UNITS:
        data = lab.load(["one", "two"], unit)
        assert served(data) == [("p1", "p1"), ("q7_ses-2", "p1")]
        assert ("q7_ses-1", "same_series") in left_out(data)
        assert {data[n]["subject_id"] for n in range(len(data))} == {"p1"}
        assert {data[n]["scan_id"] for n in range(len(data))} == {"p1", "q7_ses-2"}


def test_scans_that_a_release_tells_apart_stay_apart(lab: Lab) -> None:
    """Names come before bytes: two scans of one release are never taken for one."""
    lab.put("one", "a", OTHER)
    lab.put("one", "b", ONE)
    lab.put("two", "a", ONE)
    lab.put("two", "b_ses-2", ONE)

    assert [scan_id for scan_id, _ in served(lab.load(["one", "two"]))] == ["a", "b"]
    assert [scan_id for scan_id, _ in served(lab.load(["two", "one"]))] == ["a", "b_ses-2"]


@pytest.mark.filterwarnings("ignore::verse_data.errors.IncompleteTable")
def test_the_copy_that_tables_show_is_served(lab: Lab) -> None:
    """That with most files, whatever the order, if it has a sample; by id and by row alike."""
    lab.put("one", "verse500_dir-ax", roles=ROLES[:2])
    lab.put("two", "verse500")
    for names in (["one", "two"], ["two", "one"]):
        assert served(lab.load(names)) == [("verse500", "verse500")]
        both = vd.open_releases(names, root=lab.folder / "home")
        for chosen in (both.scans, both.scans["scan_id"].tolist()):
            data = both.dataset(chosen, workers=1)
            assert [scan.scan_id for scan in data.scans] == ["verse500"]


@pytest.mark.parametrize("lacking", ["ct", "mask", "centroids"])
def test_an_incomplete_copy_hides_no_complete_one(lab: Lab, lacking: str) -> None:
    """A scan is served from the release that has a sample of it, in either order of the releases."""
    here = [role for role in ROLES if role != lacking]
    lab.put("one", "a", roles=here)
    lab.put("one", "b", OTHER)
    lab.put("two", "a")
    alone = {unit: lab.load(["two"], unit) for unit in UNITS}

    for unit, releases in itertools.product(UNITS, (["one", "two"], ["two", "one"])):
        data = lab.load(releases, unit)
        assert served(data) == [("a", "a"), ("b", "b")]
        assert not left_out(data)
        mine = [data[n] for n in range(len(data))]
        whole = [s for s in mine if s["scan_id"] == "a"]
        assert len(whole) == len(alone[unit])
        assert all(sample["label"].any() for sample in whole if unit != "patch")


def test_grades_of_the_second_release_are_not_hidden(lab: Lab, phantom: Path) -> None:
    """Graded vertebrae come from the release that has the workbook; whole scans from the first."""
    lab.put("one", ONE)
    for release in ("one", "two"):
        lab.put(release, OTHER, OTHER)
    lab.put("two", ONE)
    (book,) = phantom.glob("*.xlsx")
    (lab.folder / "two" / book.name).write_bytes(book.read_bytes())
    graded: dict[str, Any] = {"include": ("graded",)}

    alone = lab.load(["two"], "vertebra", **graded)
    assert len(alone)
    for releases in (["one", "two"], ["two", "one"]):
        data = lab.load(releases, "vertebra", **graded)
        assert sorted(data.vertebrae.itertuples(index=False, name=None)) == sorted(
            alone.vertebrae.itertuples(index=False, name=None)
        )


def test_nothing_disappears_without_being_listed(lab: Lab) -> None:
    """Every scan of every release is served or listed with a reason, in any order."""
    lab.put("one", "a", roles=["ct"])
    lab.put("one", "b", roles=["mask", "centroids"])
    lab.put("one", "p1", OTHER)
    lab.put("two", "a", roles=["ct"])
    lab.put("two", "q", OTHER)
    lab.put("three", "c", roles=["centroids"])
    lab.put("three", "a", roles=["mask"])

    orders = itertools.permutations(["one", "two", "three"])
    for unit, releases in itertools.product(UNITS, orders):
        data = lab.load(releases, unit)
        (same,) = {"p1", "q"} - {scan_id for scan_id, _ in served(data)}
        listed = left_out(data)
        assert {scan_id for scan_id, _ in listed} == {"a", "b", "c", same}
        assert (same, "same_series") in listed
        assert {reason for scan_id, reason in listed if scan_id in "bc"} == {"no_ct"}
        assert data.counts()["excluded"] == len(data.excluded)


def test_vertebrae_of_scans_without_any_are_listed_for_one_release_too(lab: Lab) -> None:
    """A scan of which neither mask nor centroids nor workbook speak has a row without a level."""
    lab.put("one", "a", roles=["ct"])
    lab.put("one", "b", OTHER)

    data = lab.load(["one"], "vertebra")

    assert left_out(data) == {("a", "no_vertebra")}
    assert data.excluded["level"].isna().all()
    assert list(data.excluded["level"].cat.categories)[:2] == ["C1", "C2"]
    assert "1 (1 no_vertebra)" in repr(data)


LEAKS: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
    "one name": [("one", "a", {}), ("two", "a_ses-2", {"split": "test", "scan": OTHER})],
    "names of two cases": [("one", "a", {}), ("two", "A", {"split": "validation", "scan": OTHER})],
    "series of one published patient": [
        ("one", "verse201", {"miccai": True}),
        ("two", "verse401_split-verse253", {"split": "test", "scan": OTHER}),
    ],
    "one ct": [("one", "p1", {}), ("two", "q7", {"split": "test"})],
    "one ct, whose split is not said": [
        ("one", "p1", {"split": "scans"}),
        ("one", "p1_ses-2", {"scan": OTHER}),
        ("two", "q7", {"split": "test"}),
    ],
}
"""Scans of two releases in which one patient lies in two splits."""


@pytest.mark.parametrize("case", list(LEAKS))
def test_a_patient_in_two_splits_of_two_releases_is_refused(lab: Lab, case: str) -> None:
    """load_split compares names of subjects and bytes of CTs over all releases before it serves."""
    for release, stem, how in LEAKS[case]:
        lab.put(release, stem, **how)
    lab.put("one", "c", OTHER if case == "one ct" else ONE, roles=["mask"])
    lab.put("two", "d", roles=["mask"])

    for releases in (["one", "two"], ["two", "one"]):
        with pytest.raises(ValidationFailed, match=r"two (published )?splits"):
            lab.load(releases)


def test_the_error_of_a_ct_in_two_splits_names_both(lab: Lab) -> None:
    """Scan, release, version and split of each copy are in the text."""
    lab.put("one", "p1")
    lab.put("two", "q7", split="validation")

    with pytest.raises(
        ValidationFailed,
        match=r"p1 of one v1 in training is q7 of two v1 in validation\. Load the releases apart",
    ):
        lab.load(["one", "two"])
