"""A whole release checked to the labels of its masks, and two versions compared."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from verse_data import phantom
from verse_data.api import lock_tree, open_release
from verse_data.cli.main import app
from verse_data.release import Release
from verse_data.spine.levels import LEVEL_OF_LABEL
from verse_data.tables.findings import index_findings
from verse_data.volumes.nifti import read_mask, write_nifti


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small phantom."""
    return phantom.write(tmp_path_factory.mktemp("phantom") / "tree", shape=(40, 80, 32))


@pytest.fixture
def release(tree: Path) -> Release:
    """Lock it."""
    return lock_tree("phantom", tree, check=False)


def spoil(release: Release, path: str, data: bytes) -> None:
    """Put other bytes in the place of a content."""
    target = release.files.object_path(release.lock.by_path[path])
    target.parent.chmod(0o755)
    target.chmod(0o644)
    target.write_bytes(data)


def first(release: Release, ending: str) -> str:
    """Return the path of the first file with an ending."""
    return next(path for path in release.lock.by_path if path.endswith(ending))


def test_a_sound_release_is_clean_at_every_level(release: Release) -> None:
    """Nothing but what the phantom lacks on purpose is found, however deep one looks."""
    on_purpose = {finding.message for finding in index_findings(release.index)}

    for level in ("presence", "size", "hash", "content"):
        found = release.verify(level=level)
        assert {finding.message for finding in found} <= on_purpose, found


def test_one_line_says_what_was_verified(release: Release) -> None:
    """Of how many files what is true, in Python and first on the command line, also where one is wrong."""
    files = len(release.lock.files)
    assert "clean; 5 of 5 files are" in repr(
        release.verify(level="presence", scan_ids=["verse901"])
    )
    release.files.object_path(release.lock.files[0]).unlink()

    for level, verified in (
        ("presence", "are here"),
        ("size", "have the locked size"),
        ("hash", "have the locked SHA-256"),
        ("content", "have the locked SHA-256 and can be used"),
    ):
        said = CliRunner().invoke(app, ["verify", "phantom", "--level", level]).stdout
        one = CliRunner().invoke(app, ["verify", "phantom", "--level", level, "--scan", "verse901"])
        assert said.splitlines()[:2] == [f"{files - 1} of {files} files {verified}", "missing: 1"]
        assert one.stdout == f"5 of 5 files {verified}\n"


def test_what_lacks_on_purpose_has_no_command_that_mends_it(release: Release) -> None:
    """No source gives the phantom what it was made without."""
    found = release.verify(level="presence")

    assert [finding.command for finding in found] == ["", ""]
    assert "mend" not in repr(found) + CliRunner().invoke(app, ["verify", "phantom"]).stdout


def test_unusable_contents_are_found_although_their_digest_is_right(
    tree: Path, tmp_path: Path
) -> None:
    """A cut volume, an empty mask, a broken JSON and picture that were locked as they are: four findings."""
    broken = tmp_path / "tree"
    shutil.copytree(tree, broken)
    ct = next(iter(sorted(broken.rglob("*_ct.nii.gz"))))
    ct.write_bytes(ct.read_bytes()[:-9])
    path = next(iter(sorted(broken.rglob("*_msk.nii.gz"))))
    mask = read_mask(path, name="mask")
    write_nifti(path, np.zeros_like(mask.array), mask.affine)
    centroids = next(iter(sorted(broken.rglob("*_ctd.json"))))
    centroids.write_text("{}")
    picture = next(iter(sorted(broken.rglob("*_snp.png"))))
    picture.write_bytes(picture.read_bytes()[:-20])
    release = lock_tree("phantom", broken, check=False)

    found = [finding for finding in release.verify(level="content") if finding.rule == "unusable"]

    names = {Path(finding.path).name for finding in found}
    assert names == {ct.name, path.name, centroids.name, picture.name}
    assert all(finding.scan_id for finding in found)
    start = "verse-data lock phantom --from-tree FOLDER  # the locked bytes"
    assert all(finding.command.startswith(start) for finding in found)
    assert [finding.rule for finding in release.verify(level="hash") if finding.path] == []


def test_a_scan_can_be_checked_alone(release: Release) -> None:
    """Only files of the chosen scan are read; damage elsewhere is not reported."""
    scans = sorted(release.series)
    spoil(release, first(release, f"{scans[0]}_ct.nii.gz"), b"spoilt")

    assert release.verify(level="hash", scan_ids=[scans[-1]]) == ()
    (finding,) = release.verify(level="hash", scan_ids=[scans[0]])
    assert (finding.rule, finding.scan_id) == ("wrong-size", scans[0])


def test_versions_are_compared_down_to_the_labels(
    release: Release, tree: Path, tmp_path: Path
) -> None:
    """A mask that lost a level and redrew one says which; a sidecar that changed says that it did."""
    changed = tmp_path / "tree"
    shutil.copytree(tree, changed)
    path = changed / first(release, "_seg-vert_msk.nii.gz")
    mask = read_mask(path, name="mask")
    labels = sorted(int(label) for label in np.unique(mask.array) if label)
    array = mask.array.copy()
    array[array == labels[0]] = 0
    array[tuple(np.argwhere(array == labels[1])[0])] = 0
    write_nifti(path, array, mask.affine)
    sidecar = changed / first(release, "_ct.json")
    sidecar.write_text(sidecar.read_text() + "\n")

    newer = lock_tree("phantom", changed, check=False)
    found = newer.diff("v1")
    files, in_masks = found.files, found.labels

    assert newer.version == "v2"
    assert {change.role for change in files} == {"mask", "ct_json"}
    (mask_change,) = in_masks
    assert mask_change.disappeared == (LEVEL_OF_LABEL[labels[0]],)
    assert mask_change.resized == (LEVEL_OF_LABEL[labels[1]],)
    text = CliRunner().invoke(app, ["diff", "phantom", "v1", "v2"]).stdout
    assert "no longer has" in text
    assert "CT sidecar of" in text


def test_a_flipped_bit_in_a_volume_is_found(release: Release) -> None:
    """One bit of a stored mask: the hash level finds it, and says how it is mended."""
    path = first(release, "_seg-vert_msk.nii.gz")
    data = bytearray(release.files.source(release.lock.by_path[path]).read())
    data[len(data) // 2] ^= 4
    spoil(release, path, bytes(data))

    (finding,) = [f for f in open_release("phantom").verify() if f.path == path]

    assert finding.rule == "corrupt"
    assert "verse-data drop phantom --corrupt" in finding.command
