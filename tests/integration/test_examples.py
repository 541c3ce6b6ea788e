"""The examples run to their end at reduced size, and do what they say."""

from __future__ import annotations

import importlib.util
import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import verse_data as vd
from verse_data import phantom
from verse_data.api import lock_tree

pytestmark = pytest.mark.usefixtures("one_core")

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Let torch use one thread, as tests run side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache root with a small phantom of six patients."""
    home = tmp_path_factory.mktemp("examples")
    tree = phantom.write(home / "tree", n_subjects=6, shape=(64, 128, 48))
    lock_tree("phantom", tree, root=home)
    return home


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_grader_reports_auc_of_every_grade_with_provenance(root, tmp_path):
    """Each assessed vertebra with a mask is held out once; the report says what it was made of."""
    output = tmp_path / "report.json"
    said = example("grade_fractures").main(root=root, folds=2, epochs=2, output=output)
    assert json.loads(output.read_text()) == said
    release = vd.open_release("phantom", root=root)
    rows = release.vertebrae
    own = rows[(rows["split"] != "test") & (rows["grade_status"] == "graded")]
    for name, least in (("grade >= 1", 1), ("grade >= 2", 2), ("grade >= 3", 3)):
        row = said["results"][name]
        assert row["vertebrae"] == len(own)
        assert row["positive"] == (own["grade"] >= least).sum()
        assert 0 <= row["auc"] <= 1
    assert said["provenance"]["commit"] == release.commit
    assert len(said["folds"]["held_out"]) == 2


def test_auc_counts_pairs():
    """AUC is 1 for a perfect order, 0.5 for ties, and absent without positives."""
    auc = example("grade_fractures").auc
    truth = np.array([True, False, True, False])
    assert auc(truth, np.array([0.9, 0.1, 0.8, 0.2])) == 1
    assert auc(truth, np.array([0.5, 0.5, 0.5, 0.5])) == 0.5
    assert auc(truth, np.array([0.1, 0.9, 0.2, 0.8])) == 0
    assert auc(np.zeros(4, dtype=bool), np.arange(4.0)) is None


@pytest.mark.slow
def test_segmentation_learns_and_resumes_as_if_it_had_not_stopped(root, tmp_path):
    """A run that was stopped in an epoch ends with the losses and the Dice of one that was not."""
    main = example("segment_patches").main
    options = {"root": root, "epochs": 2, "patches_per_scan": 8, "checkpoint_every": 3}
    whole = main(**options, output=tmp_path / "whole")
    stopped = main(**options, output=tmp_path / "parts", stop_after=7)
    assert "dice" not in stopped
    resumed = main(**options, output=tmp_path / "parts")
    assert resumed["losses"] == whole["losses"]
    assert resumed["dice"] == whole["dice"]
    first, last = np.array_split(whole["losses"], 2)
    assert last.mean() < 0.85 * first.mean()
    report = json.loads((tmp_path / "parts" / "report.json").read_text())
    assert report["provenance"]["options"]["patch_size"] == [40, 40, 40]


@pytest.mark.parametrize("name", ["grade_fractures", "segment_patches"])
def test_an_absent_release_is_an_error_with_a_way_out(tmp_path, name, monkeypatch, capfd):
    """Started without release and network, the example ends with what to type, and no more."""
    words = ["--root", str(tmp_path), "--release", "verse19", "--epochs", "1", "--seed", "2"]
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
    monkeypatch.setenv("VERSE_DATA_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    # Python prints a text that a program ends with, and its exit code is 1.
    assert isinstance(ended.value.code, str)
    assert "verse-data get verse19" in ended.value.code
    assert "Traceback" not in ended.value.code + "".join(capfd.readouterr())
    assert list(tmp_path.glob("*")) == []
