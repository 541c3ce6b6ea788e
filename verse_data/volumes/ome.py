"""OME-Zarr 0.5 metadata, so that napari, NiiVue and others open a store as an image with labels.

https://ngff.openmicroscopy.org/0.5/
"""

from __future__ import annotations

import colorsys
import os
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np

from verse_data.files import canonical_json
from verse_data.records.manifest import StoredKey
from verse_data.spine.geometry import Affine, Shape, voxel_sizes
from verse_data.spine.levels import LEVEL_OF_LABEL
from verse_data.volumes.coarse import FACTORS, offset
from verse_data.volumes.layout import (
    DIMENSIONS,
    GROUP_KEY,
    LABELS,
    VERTEBRAE,
    ArrayName,
    coarse_path,
    group_document,
)

_VERSION: Final = {"version": "0.5"}
_CHANNEL: Final = {
    "label": "CT, HU",
    "color": "FFFFFF",
    "active": True,
    "coefficient": 1,
    "family": "linear",
    "inverted": False,
    # What a viewer shows at first, a bone window of width 1800 about 400, and how far it can go.
    "window": {"min": -1024, "start": -500, "end": 1300, "max": 3071},
}


def image_metadata(affine: Affine, shape: Shape, *, name: str) -> dict[str, Any]:
    """Return the ``ome`` attribute of the group of a store of `shape` (x, y, z): image and window."""
    first_shown = {"defaultT": 0, "defaultZ": shape[2] // 2, "model": "greyscale"}
    omero = {"name": name, **_VERSION, "channels": [_CHANNEL], "rdefs": first_shown}
    return {**_VERSION, "multiscales": [_multiscale(affine, "image", name)], "omero": omero}


def write_labels(folder: Path, affine: Affine, keys: dict[str, StoredKey]) -> dict[str, bytes]:
    """Link the array ``label`` of the store `folder` to where OME-Zarr looks for labels.

    The keys of its second name are added to `keys`; the metadata documents that are returned, by
    key, are still to be written.
    """
    for key in [key for key in keys if key.startswith("label/")]:
        again = f"{VERTEBRAE}/{key}"
        (folder / again).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(folder / key, folder / again)
        except OSError:  # a file system without hard links
            shutil.copyfile(folder / key, folder / again)
        keys[again] = keys[key]
    label: dict[str, Any] = {
        **_VERSION,
        "multiscales": [_multiscale(affine, "label", "vertebrae")],
        "image-label": {
            "colors": [
                {"label-value": value, "rgba": [*_colour(place), 255]}
                for place, value in enumerate(LEVEL_OF_LABEL)
            ],
            "properties": [
                {"label-value": value, "level": level} for value, level in LEVEL_OF_LABEL.items()
            ],
            "source": {"image": "../../"},
        },
    }
    listing = {**_VERSION, LABELS: [VERTEBRAE.removeprefix(f"{LABELS}/")]}
    return {
        f"{LABELS}/{GROUP_KEY}": canonical_json(group_document({"ome": listing})),
        f"{VERTEBRAE}/{GROUP_KEY}": canonical_json(group_document({"ome": label})),
    }


def _multiscale(affine: Affine, array: ArrayName, name: str) -> dict[str, Any]:
    """Return an array and its coarser levels, in paths below the group of its metadata."""
    # OME-Zarr 0.5 knows scale and translation, not rotation: an oblique scan has its true voxel
    # size and origin here, and its affine in this package's own attributes, and in those of levels.
    group = "" if array == "image" else f"{VERTEBRAE}/"
    sizes = np.array(voxel_sizes(affine))[::-1]
    origin = np.asarray(affine, dtype=np.float64)[2::-1, 3]

    def dataset(path: str, factor: int) -> dict[str, Any]:
        at = origin + offset(array, factor) * sizes
        return {
            "path": path,
            "coordinateTransformations": [
                {"type": "scale", "scale": (sizes * factor).tolist()},
                {"type": "translation", "translation": at.tolist()},
            ],
        }

    return {
        "name": name,
        "axes": [{"name": axis, "type": "space", "unit": "millimeter"} for axis in DIMENSIONS],
        "datasets": [
            dataset(array, 1),
            *(dataset(coarse_path(array, f).removeprefix(group), f) for f in FACTORS),
        ],
        "type": "mean" if array == "image" else "nearest",
    }


def _colour(place: int) -> tuple[int, int, int]:
    """Return a colour in which neighbouring vertebrae differ: a third of the circle apart."""
    red, green, blue = colorsys.hsv_to_rgb((place * 0.381966) % 1.0, 0.75, 0.95)
    return (round(red * 255), round(green * 255), round(blue * 255))
