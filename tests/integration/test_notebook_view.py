"""`Release.view`: a scan as a widget of notebooks, with the real ipyniivue."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import verse_data as vd
from verse_data.errors import ToolMissing, UsageError
from verse_data.spine.geometry import Box, voxel_sizes
from verse_data.spine.levels import LEVEL_OF_LABEL
from verse_data.views.drawing import level_colour
from verse_data.volumes.nifti import read_image, read_mask
from verse_data.volumes.reader import ScanReader

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture
def release(explored: Path) -> vd.Release:
    """The release; its widgets need the library."""
    pytest.importorskip(
        "ipyniivue", reason="tests of the widget need ipyniivue: pip install ipyniivue"
    )
    return vd.open_release("phantom", root=explored)


def test_a_view_holds_the_scan_and_its_mask(release: vd.Release, tmp_path: Path) -> None:
    """CT and mask are the store's, in place; each label has its colour and name."""
    shown = release.view("verse901")
    reader = ScanReader(release.fetch_and_build(["verse901"])["verse901"])
    image, label = shown.volumes
    for volume, read, expected in zip(
        (image, label), (read_image, read_mask), reader.read(Box.whole(reader.shape)), strict=True
    ):
        path = tmp_path / volume.name
        path.write_bytes(volume.data)
        found = read(path, name=volume.name)

        np.testing.assert_array_equal(found.array, expected)
        np.testing.assert_allclose(found.affine, reader.affine, atol=1e-4)
    table = label.colormap_label
    for number in reader.labels:
        assert tuple(table.lut[4 * number : 4 * number + 4]) == (
            *level_colour(LEVEL_OF_LABEL[number]),
            255,
        )
        assert table.labels[number] == LEVEL_OF_LABEL[number]
    assert table.lut[3] == 0


def test_centroids_of_a_view_have_names(release: vd.Release) -> None:
    """They are those of the table, in world mm."""
    [mesh] = release.view("verse901").meshes
    nodes = {node["name"]: node for node in json.loads(mesh.data)["nodes"]}
    rows = release.select("scan_id == 'verse901'").set_index("level")

    for level, node in nodes.items():
        centroid = rows.loc[level, ["centroid_x", "centroid_y", "centroid_z"]].tolist()
        assert [node["x"], node["y"], node["z"]] == pytest.approx(centroid, abs=0.6)
    assert set(nodes) == set(rows.index[rows["centroid_x"].notna()])


def test_a_view_of_a_level_is_the_box_around_it(release: vd.Release, tmp_path: Path) -> None:
    """120 mm in full resolution, with its centroid in the middle; another level is refused."""
    path = tmp_path / "box.nii"
    path.write_bytes(release.view("verse901", "L1").volumes[1].data)
    box = read_mask(path, name="box")

    assert max(np.multiply(box.shape, voxel_sizes(box.affine))) <= 125
    assert LEVEL_OF_LABEL[int(box.array[tuple(size // 2 for size in box.shape)])] == "L1"
    with pytest.raises(UsageError, match="no centroid of 'C1'; it has T"):
        release.view("verse901", "C1")


def test_without_the_library_it_says_what_to_install(
    release: vd.Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is fetched or converted."""
    monkeypatch.setitem(sys.modules, "ipyniivue", None)
    with pytest.raises(ToolMissing, match="pip install ipyniivue"):
        release.view("verse904")
