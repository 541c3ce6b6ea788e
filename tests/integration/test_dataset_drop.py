"""What drop removes: what was named, and nothing that another file has too."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.calls import call
from support.trees import write_tree
from typer.testing import CliRunner, Result

from verse_data.api import lock_tree
from verse_data.cli.main import app
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.releases.repository import Repository
from verse_data.releases.verify import drop_files, verify_files

SPLITS = {"900": "training", "901": "training", "902": "validation"}


def drop(*words: str) -> Result:
    """Call ``verse-data drop lab``."""
    return CliRunner().invoke(app, ["drop", "lab", *words])


@pytest.fixture
def lab(tmp_path: Path, home: Path) -> Repository:
    """Lock three scans in two splits, and a workbook; all sidecars and two masks have equal bytes."""
    del home
    tree = write_tree(tmp_path / "tree")
    for path in sorted(tree.rglob("*_ct.json")):
        path.write_bytes(b"[]")
    for name in ("901", "902"):
        (mask,) = tree.rglob(f"*verse{name}_seg-vert_msk.nii.gz")
        mask.write_bytes(b"\x1f\x8bone mask for two")
    for number, split in SPLITS.items():
        for kind in ("rawdata", "derivatives"):
            old = tree / "dataset-phantomtraining" / kind / f"sub-verse{number}"
            new = tree / f"dataset-phantom{split}" / kind / f"sub-verse{number}"
            new.parent.mkdir(parents=True, exist_ok=True)
            old.rename(new)
    (tree / "lab_grading.xlsx").write_bytes(b"PK a workbook")
    return lock_tree("lab", tree, check=False).files


def missing(lab: Repository) -> set[str]:
    """Return the names of the files whose content is not here."""
    files = lab.lock().files
    return {file.path.rpartition("/")[2] for file in files if not lab.has(file)}


def names(number: str, *ends: str) -> set[str]:
    """Return names of files of one scan."""
    return {f"sub-verse{number}_{end}" for end in ends}


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        (
            ["--scan", "verse900"],
            names("900", "ct.nii.gz", "seg-vert_msk.nii.gz", "seg-subreg_ctd.json", "seg-vert_snp.png"),
        ),
        (["--scan", "verse901"], names("901", "ct.nii.gz", "seg-subreg_ctd.json", "seg-vert_snp.png")),
        (
            ["--scan", "verse901", "--scan", "verse902", "--role", "mask"],
            names("901", "seg-vert_msk.nii.gz") | names("902", "seg-vert_msk.nii.gz"),
        ),
        (["--role", "ct_json"], {f"sub-verse{number}_ct.json" for number in SPLITS}),
        (["--split", "training", "--role", "ct_json,mask"], names("900", "seg-vert_msk.nii.gz")),
        (["--role", "grading"], {"lab_grading.xlsx"}),
        (["--scan", "verse900", "--role", "grading"], {"lab_grading.xlsx"}),
        (["--subject", "verse902", "--role", "ct"], names("902", "ct.nii.gz")),
    ],
)  # fmt: skip
def test_a_content_goes_only_when_all_files_that_have_it_were_named(
    lab: Repository, words: list[str], gone: set[str]
) -> None:
    """A scan, split or role takes neither the workbook nor what another scan has in equal bytes."""
    done = drop(*words, "--unchecked")

    assert done.exit_code == 0, done.output
    assert missing(lab) == gone


def test_everything_goes_when_everything_was_named(lab: Repository) -> None:
    """Without a choice, all contents of the version leave."""
    assert drop("--unchecked").exit_code == 0
    assert len(missing(lab)) == len(lab.lock().files)


def test_what_is_kept_for_another_file_is_named(lab: Repository) -> None:
    """The note says which file has it too, and the way it ends is no failure."""
    done = drop("--scan", "verse900", "--unchecked")

    assert "4 removed" in done.stdout
    assert "sub-verse900_ct.json: it is also the content of" in done.stderr
    assert "sub-verse901_ct.json, which was not named, and of 1 more" in done.stderr
    assert "1 kept, which other files have too." in done.stderr


def test_each_file_is_counted_and_listed_by_its_path_also_where_contents_are_equal(
    lab: Repository,
) -> None:
    """Data of one's own have no address and stay, as many as were locked; unchecked, as many go."""
    paths = sorted(file.path for file in lab.lock().files)

    kept = drop()

    assert kept.exit_code == 4
    lines = [line for line in kept.stderr.splitlines() if line.startswith("kept ")]
    assert [line.split()[1].rstrip(":") for line in lines] == paths
    assert f"{len(paths)} kept, which nobody else has." in kept.stderr
    assert drop("--unchecked").stdout.startswith(f"{len(paths)} removed")


def test_a_checked_drop_keeps_what_others_have_too(lab: Repository, tmp_path: Path) -> None:
    """With a copy of everything in another clone, still only what was named goes."""
    call(tmp_path, "git", "clone", "-q", str(lab.path), "other")
    other = Repository(tmp_path / "other")
    assert other.fetch(lab.lock().files).failed == ()
    call(lab.path, "git", "remote", "add", "other", str(tmp_path / "other"))

    done = drop("--split", "training")

    assert done.exit_code == 0, done.output
    assert missing(lab) == {
        name
        for number in ("900", "901")
        for name in names(number, "ct.nii.gz", "seg-subreg_ctd.json", "seg-vert_snp.png")
    } | names("900", "seg-vert_msk.nii.gz")
    assert call(lab.path, "git-annex", "find", "--not", "--in", "here").count("\n") == 7


def test_a_sibling_that_is_this_very_folder_is_no_other_copy(
    lab: Repository, tmp_path: Path
) -> None:
    """Contents that a clone shares by a link, and damaged ones, do not count as copies."""
    call(tmp_path, "git", "clone", "-q", str(lab.path), "linked")
    (tmp_path / "linked" / ".git" / "annex").symlink_to(lab.path / ".git" / "annex")
    call(lab.path, "git", "remote", "add", "linked", str(tmp_path / "linked"))
    assert drop("--scan", "verse900", "--role", "ct").exit_code == 4
    (tmp_path / "linked" / ".git" / "annex").unlink()
    other = Repository(tmp_path / "linked")
    file = next(file for file in lab.lock().files if file.path.endswith("900_ct.nii.gz"))
    assert other.fetch([file]).failed == ()
    spoil(other, file)

    done = drop("--scan", "verse900", "--role", "ct")

    assert (done.exit_code, missing(lab)) == (4, set())
    assert "no other copy of it was found" in done.stderr


def test_clones_that_are_each_others_copy_never_both_drop(lab: Repository, tmp_path: Path) -> None:
    """Two folders that name each other as siblings, dropped at the same moment, keep each content in one."""
    call(tmp_path, "git", "clone", "-q", str(lab.path), "other")
    other = Repository(tmp_path / "other")
    files = lab.lock().files
    assert other.fetch(files).failed == ()
    call(lab.path, "git", "remote", "add", "other", str(other.path))

    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda dataset: drop_files(dataset, files), (lab, other)))

    assert any(report.dropped for report in reports)
    for file in files:
        assert lab.has(file) or other.has(file)
    for dataset in (lab, other):
        missing = {file.path for file in files if not dataset.has(file)}
        names = set(call(dataset.path, "git-annex", "find", "--not", "--in", "here").splitlines())
        assert names == missing


def test_one_inode_is_one_copy(lab: Repository, tmp_path: Path) -> None:
    """A sibling whose contents are hard links to these ones is no second copy of them."""
    call(tmp_path, "git", "clone", "-q", str(lab.path), "linked")
    linked = Repository(tmp_path / "linked")
    for file in {file.annex_key: file for file in lab.lock().files}.values():
        place = linked.object_path(file)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.hardlink_to(lab.object_path(file))
    call(lab.path, "git", "remote", "add", "linked", str(linked.path))

    assert drop_files(lab, lab.lock().files).dropped == ()


def spoil(dataset: Repository, file: LockedFile) -> None:
    """Flip one bit of a content."""
    path = dataset.object_path(file)
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_damaged_content_goes_with_all_that_have_it(lab: Repository) -> None:
    """What is wrong is of use to no file, also not to those that were not named."""
    file = next(file for file in lab.lock().files if file.path.endswith("901_seg-vert_msk.nii.gz"))
    spoil(lab, file)

    assert drop("--scan", "verse901", "--corrupt").exit_code == 0

    assert missing(lab) == names("901", "seg-vert_msk.nii.gz") | names("902", "seg-vert_msk.nii.gz")


def test_an_old_version_keeps_what_the_newest_has_under_another_name(lab: Repository) -> None:
    """A file that was renamed is dropped by its new name; by its old one it is still needed."""
    lock = lab.lock()
    old = next(file for file in lock.files if file.path.endswith("902_ct.nii.gz"))
    new = old.model_copy(update={"path": old.path.replace("verse902", "verse903")})
    files = tuple(sorted((*(f for f in lock.files if f is not old), new), key=lambda f: f.path))
    assert lab.publish(ReleaseLock(release="lab", source=lock.source, files=files)) == "v2"

    kept = drop_files(lab, [old], version="v1", unchecked=True)
    assert [file for file, _ in kept.shared] == [old]
    assert drop_files(lab, [new], unchecked=True).dropped == (new,)


def test_a_kill_between_leaves_whole_contents_or_none(lab: Repository) -> None:
    """A content leaves its final name whole, so what is at one is right at any moment."""
    files = lab.lock().files
    lab.store.remove(files[0])
    lab.store.remove(files[0])  # another process was first

    assert not lab.object_path(files[0]).parent.exists()
    assert {finding.path for finding in verify_files(lab, files)} == {files[0].path}
