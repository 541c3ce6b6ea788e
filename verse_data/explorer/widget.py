"""One scan in a notebook: three planes and a 3-D view by NiiVue, as a Jupyter widget."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from verse_data.errors import ToolMissing, UsageError, did_you_mean
from verse_data.explorer.cuts import cut_nifti, levels_at
from verse_data.spine.levels import LEVEL_OF_LABEL
from verse_data.spine.windows import WINDOWS
from verse_data.views.drawing import level_colour
from verse_data.volumes.reader import ScanReader

if TYPE_CHECKING:
    from ipyniivue import NiiVue


def require_ipyniivue() -> None:
    """Raise ToolMissing unless the widget can be made."""
    if find_spec("ipyniivue") is None:
        raise ToolMissing(
            "Release.view needs ipyniivue, which is not installed: pip install ipyniivue"
        )


def widget(reader: ScanReader, level: str | None, *, height: int) -> NiiVue:
    """Return a widget with CT and mask of a store, whole or in full resolution around a level."""
    from ipyniivue import Mesh, MultiplanarType, NiiVue, ShowRender, Volume

    points = {LEVEL_OF_LABEL[label]: point for label, point in levels_at(reader)[0].items()}
    if level is not None and level not in points:
        raise UsageError(
            f"Scan {reader.scan_id} has no centroid of {level!r}; it has "
            f"{', '.join(points) or 'none'}.{did_you_mean(level, points)}"
        )
    centre = None if level is None else points[level]
    shown = NiiVue(
        height=height,
        # As radiologists look: the patient's right, and the front in the sagittal plane, on the left.
        is_radiological_convention=True,
        sagittal_nose_left=True,
        is_slice_mm=True,
        multiplanar_show_render=ShowRender.ALWAYS,
        multiplanar_layout=MultiplanarType.GRID,
        multiplanar_equal_size=True,
        tile_margin=4,
        crosshair_color=(0.35, 0.85, 1.0, 0.8),
        crosshair_width=0.6,
        crosshair_width_unit="mm",
        font_color=(1.0, 0.85, 0.4, 1.0),
    )
    low, high = WINDOWS["bone"]
    volumes = [
        Volume(
            data=cut_nifti(reader, "image", centre),
            name=f"{reader.scan_id}.nii",
            colormap="gray",
            cal_min=low,
            cal_max=high,
        )
    ]
    if reader.has_label:
        mask = Volume(
            data=cut_nifti(reader, "label", centre),
            name=f"{reader.scan_id}-vertebrae.nii",
            opacity=0.4,
        )
        mask.set_colormap_label(_colours())
        volumes.append(mask)
    shown.load_volumes(volumes)
    if points:
        shown.load_meshes([Mesh(data=_points(points), name="centroids.jcon")])
    return shown


def _points(centroids: dict[str, tuple[float, float, float]]) -> bytes:
    """Return centroids with their names as NiiVue draws them: as a connectome without edges."""
    nodes = [
        {"name": level, "x": x, "y": y, "z": z, "colorValue": 1, "sizeValue": 1}
        for level, (x, y, z) in centroids.items()
    ]
    maps = ("nodeColormap", "nodeColormapNegative", "edgeColormap", "edgeColormapNegative")
    looks = {**dict.fromkeys(maps, "gray"), "nodeMinColor": 0, "nodeMaxColor": 1, "nodeScale": 2}
    looks |= {"edgeMin": 0, "edgeMax": 1, "edgeScale": 1}
    return json.dumps({"name": "centroids", **looks, "nodes": nodes, "edges": []}).encode()


def _colours() -> dict[str, list[Any]]:
    """Return the colour and name of each label, as NiiVue takes them; the background has none."""
    labels = sorted(LEVEL_OF_LABEL)
    red, green, blue = zip(*(level_colour(LEVEL_OF_LABEL[label]) for label in labels), strict=True)
    return {
        "R": [0, *red],
        "G": [0, *green],
        "B": [0, *blue],
        "A": [0, *[255] * len(labels)],
        "I": [0, *labels],
        "labels": ["", *(LEVEL_OF_LABEL[label] for label in labels)],
    }
