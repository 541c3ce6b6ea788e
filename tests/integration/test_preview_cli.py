"""``verse-data preview`` on a small phantom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from verse_data import phantom
from verse_data.api import lock_tree
from verse_data.cli.main import app
from verse_data.errors import UsageError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("preview")
    lock_tree("phantom", phantom.write(home / "tree", n_subjects=8, shape=(32, 64, 24)), root=home)
    return home


@pytest.mark.parametrize("case", ["two_series", "lps", "float64_mask", "missing_derivative"])
def test_any_scan_is_drawn(root, tmp_path, case):
    """Scans of all kinds, also one without a mask, become a PNG at the path that is printed."""
    path = tmp_path / "scan.png"
    words = ["preview", "phantom", phantom.CASES[case], "--out", str(path), "--root", str(root)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"


def test_json_names_scan_version_and_path(root, tmp_path):
    """With --json, stdout is JSON and nothing else."""
    path = tmp_path / "scan.png"
    words = ["preview", "phantom", "verse901", "-o", str(path), "--root", str(root), "--json"]
    told = json.loads(CliRunner().invoke(app, words).stdout)
    assert told == {"release": "phantom", "version": "v1", "scan_id": "verse901", "path": str(path)}


def test_an_unknown_scan_is_named(root, tmp_path):
    """A scan that the release lacks is a usage error, and no file is written."""
    words = ["preview", "phantom", "verse999", "-o", str(tmp_path / "x.png"), "--root", str(root)]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, UsageError)
    assert "verse999" in str(done.exception)
    assert list(tmp_path.glob("*.png")) == []
