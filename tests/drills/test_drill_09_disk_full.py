"""Drill 9: the disk is full at ten points of a build; with room, the next build succeeds."""

from __future__ import annotations

import resource

import pytest

from tests.support.program import run, small_disk
from tests.support.scans import make_scan
from verse_data.errors import DiskFull
from verse_data.volumes.recipe import Recipe
from verse_data.volumes.store import ensure_store


@pytest.fixture
def small(tmp_path):
    """A folder on which a disk of 3 MB can be mounted, and how to run something there."""
    folder = tmp_path / "small"
    folder.mkdir()
    prefix = small_disk(folder, "3m")
    if prefix is None:
        pytest.skip("this user may not mount a tmpfs; the file-size limit is tested instead")
    return folder, prefix


def test_full_at_ten_points(tmp_path, small):
    """Foreseen or hit half-way, it is DiskFull with bytes, leaves nothing, and mends by itself."""
    folder, prefix = small
    found = run("kills", "full", tmp_path / "work", folder, prefix=prefix)

    assert found["foreign"] == []
    assert found["full"] == 10
    assert set(found["codes"]) == {6}
    assert found["left"] == 0
    assert found["later"] == 10
    for text in found["texts"]:
        assert "bytes free" in text or "are free" in text
        assert "needed" in text or "takes about" in text
    assert any("nearly full" in text for text in found["texts"])
    assert any("hit the end of the disk" in text for text in found["texts"])


def test_control_zarr_reads_zeros_from_a_full_disk(tmp_path, small):
    """A plain zarr write onto the full disk reads as thousands of other voxels afterwards."""
    folder, prefix = small
    assert run("kills", "naive_full", tmp_path / "work", folder, prefix=prefix)["wrong"] > 1000


def test_a_limit_on_file_sizes(tmp_path):
    """Ulimit -f, which everyone may set, is the same error and leaves as little behind."""
    scan = make_scan(tmp_path, shape=(96, 96, 64))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(DiskFull, match="ulimit"):
            ensure_store(scan.source, Recipe(), tmp_path / "stores")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert not [path for path in (tmp_path / "stores").rglob("*") if path.is_file()]
    ensure_store(scan.source, Recipe(), tmp_path / "stores")
