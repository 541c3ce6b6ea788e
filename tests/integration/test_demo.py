"""The demo: that it does what it says, says what it did, and is quick the second time."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import verse_data as vd
from verse_data import progress
from verse_data.cli import demo
from verse_data.releases.environment import tool_environment


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Let torch use one thread: tests run side by side, and threads that wait for one another crawl."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(home: Path) -> tuple[demo.DemoReport, str]:
    heard = io.StringIO()
    report = demo.run_demo(
        home,
        steps=24,
        n_subjects=4,
        shape=(64, 128, 48),
        console=Console(file=heard, width=200, highlight=False),
        progress=progress.silent,
    )
    return report, heard.getvalue()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo-home")


@pytest.fixture(scope="module")
def first(home: Path) -> tuple[demo.DemoReport, str]:
    return run(home)


def test_what_it_prints_is_what_the_release_says(home, first):
    """Version, commit, lock digest, counts and the sample printed are those of the release."""
    report, heard = first
    release = vd.open_release("phantom", root=home)
    for fact in (release.version, release.commit, release.lock.digest, str(report.preview)):
        assert fact in heard
    assert (report.version, report.commit) == (release.version, release.commit)
    total = next(line for line in heard.splitlines() if line.strip().startswith("all "))
    graded = release.vertebrae["grade"].notna().sum()
    assert total.split()[1:5] == ["4", "5", str(release.vertebrae["has_mask"].sum()), str(graded)]
    assert f"{len(release.findings)} findings" in heard
    files = len(release.lock.files)
    assert f"{files} of {files} files" in heard
    sample = vd.load_split("training", release="phantom", root=home)[0]
    assert report.sample.keys() == sample.keys()
    assert str(tuple(sample["image"].shape)) in report.sample["image"]
    assert all(key in heard for key in sample)


def test_the_network_learns(first):
    """The loss falls, and so does the error on patients that the network has not seen."""
    report, heard = first
    assert len(report.losses) == 24
    assert sum(report.losses[-6:]) < 0.8 * sum(report.losses[:6])
    assert report.dice_after > report.dice_before + 0.2
    assert "steps   1 to   3" in heard


def test_the_dataset_is_a_real_one(home, first):
    """Git annex finds every content sound in the dataset that the demo made."""
    subprocess.run(
        ["git", "annex", "fsck", "--quiet"],
        cwd=home / "releases" / "phantom",
        env=tool_environment(),
        check=True,
    )


def test_the_picture_is_there(first):
    """The preview is a PNG of a size that one can look at."""
    with Image.open(first[0].preview) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 400


def test_a_second_run_reuses_what_exists(home, first):
    """Files, release and stores of the first run are used, and the words say so."""
    before, _ = first
    again, heard = run(home)
    assert before.wrote_phantom
    assert not again.wrote_phantom
    assert (before.built_stores, again.built_stores) == (5, 0)
    assert (again.version, again.commit) == ("v1", before.commit)
    assert "there already" in heard
    assert "0 built" in heard
    assert again.losses == before.losses


def test_the_command_takes_the_root_from_the_option(tmp_path):
    """``verse-data demo --help`` names its options, and too few steps are refused."""
    app = typer.Typer()
    demo.register(app)
    runner = CliRunner()
    assert "--steps" in runner.invoke(app, ["--help"]).output
    assert runner.invoke(app, ["--root", str(tmp_path), "--steps", "1"]).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_importing_the_command_loads_nothing_heavy():
    """The module of the command imports none of the heavy packages."""
    code = (
        "import sys, verse_data.cli.demo;"
        "print([m for m in ('torch','zarr','nibabel','pandas','PIL','numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
