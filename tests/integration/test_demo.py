"""The demo: that it does what it says, says what it did, and is quick the second time."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

import verse_data as vd
from tests.support.command import platform_folders, verse_data
from verse_data.cli.demo import run_demo
from verse_data.releases.environment import tool_environment


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Let torch use one thread: tests run side by side, and threads that wait for one another crawl."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(root: Path | None, steps: int = 24) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run_demo(root, steps=steps, n_subjects=4, shape=(64, 128, 48))
    return printed.getvalue()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo-home")


@pytest.fixture(scope="module")
def first(home: Path) -> str:
    return run(home)


def test_what_it_prints_is_what_the_release_says(home: Path, first: str) -> None:
    """Version, commit, lock digest, counts and the sample printed are those of the release."""
    release = vd.open_release("phantom", root=home)
    for fact in (release.version, release.commit, release.lock.digest):
        assert fact in first
    total = next(line for line in first.splitlines() if line.strip().startswith("all "))
    graded = release.vertebrae["grade"].notna().sum()
    assert total.split()[1:5] == ["4", "5", str(release.vertebrae["has_mask"].sum()), str(graded)]
    assert f"{len(release.findings)} findings" in first
    assert first.count("written  5 CT series") == 1
    assert "5 built, 0 there already" in first
    files = len(release.lock.files)
    assert f"{files} of {files} files" in first
    sample = vd.load_split("training", release="phantom", root=home)[0]
    assert all(f"\n   {key} " in first for key in sample)
    assert str(tuple(sample["image"].shape)) in first


def test_the_network_learns(first: str) -> None:
    """The loss falls, and the overlap grows on patients that the network has not seen."""
    losses = [float(loss) for loss in re.findall(r"steps .* loss ([0-9.]+)", first)]
    before, after = map(float, re.findall(r"([0-9.]+) (?:before|after)", first))
    assert len(losses) == 8
    assert "steps   1 to   3" in first
    assert losses[-1] < 0.8 * losses[0]
    assert after > before + 0.2


@pytest.mark.usefixtures("first")
def test_the_dataset_is_a_real_one(home: Path) -> None:
    """Git annex finds every content sound in the dataset that the demo made."""
    subprocess.run(
        ["git", "annex", "fsck", "--quiet"],
        cwd=home / "releases" / "phantom",
        env=tool_environment(),
        check=True,
    )


def test_the_picture_is_there(first: str) -> None:
    """The preview is a PNG of a size that one can look at."""
    with Image.open(re.findall(r"picture +(.*)", first)[-1]) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 400


@pytest.mark.slow
def test_a_second_run_reuses_what_exists(home: Path, first: str) -> None:
    """Files, release and stores of the first run are used, and the words say so."""
    again = run(home)
    assert "there already  5 CT series" in again
    assert "0 built, 5 there already" in again
    same = [line for line in first.splitlines() if re.search("v1|commit|loss|Dice", line)]
    assert len(same) == 11
    assert all(line in again for line in same)


@pytest.mark.skipif(sys.platform != "linux", reason="other platforms name their folders otherwise")
@pytest.mark.filterwarnings("error::UserWarning")
def test_without_a_root_its_release_lies_where_every_call_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next line that the demo tells finds its release without a warning, in the data folder alone."""
    data, cache = platform_folders(tmp_path, monkeypatch)

    said = run(None, steps=8)

    assert 'vd.load_split("training", release="phantom")[0]' in said
    assert vd.load_split("training", release="phantom", offline=True)[0]["scan_id"] in said
    assert [path.name for path in (data / "releases").iterdir() if path.name[0] != "."] == [
        "phantom"
    ]
    assert not (cache / "releases").exists()
    assert "UserWarning" not in verse_data("status", "phantom").stderr


def test_too_few_steps_are_refused(tmp_path: Path) -> None:
    """Nothing is written before the options are right."""
    assert verse_data("demo", "--root", str(tmp_path), "--steps", "1").returncode == 2
    assert list(tmp_path.iterdir()) == []
