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
import numpy.typing as npt

from verse_data.digests import canonical_json
from verse_data.records.manifest import StoredKey
from verse_data.spine.geometry import voxel_sizes
from verse_data.spine.levels import LEVEL_OF_LABEL
from verse_data.volumes.layout import DIMENSIONS, group_document

OME_VERSION: Final = "0.5"
_LABELS: Final = "labels"
_NAME: Final = "vertebrae"


def image_metadata(affine: npt.ArrayLike, *, path: str) -> dict[str, Any]:
    """Return the ``ome`` attribute of a group that holds one array at `path`.

    OME-Zarr 0.5 knows scale and translation, not rotation: an oblique scan has its true voxel
    size and origin there, and its affine in this package's own attributes.
    """
    scale = list(reversed(voxel_sizes(affine)))
    origin = [float(v) for v in reversed(np.asarray(affine, dtype=np.float64)[:3, 3])]
    return {
        "version": OME_VERSION,
        "multiscales": [
            {
                "name": path,
                "axes": [
                    {"name": axis, "type": "space", "unit": "millimeter"} for axis in DIMENSIONS
                ],
                "datasets": [
                    {
                        "path": path,
                        "coordinateTransformations": [
                            {"type": "scale", "scale": scale},
                            {"type": "translation", "translation": origin},
                        ],
                    }
                ],
            }
        ],
    }


def write_labels(
    folder: Path, affine: npt.ArrayLike, keys: dict[str, StoredKey]
) -> dict[str, bytes]:
    """Show the array ``label`` a second time, where OME-Zarr wants labels: as hard links.

    Parameters
    ----------
    folder : Path
        The store in the making, with ``label`` written.
    affine : (4, 4) array
        Of the store's grid.
    keys : dict
        Of the array ``label``; the keys of its second name are added.

    Returns
    -------
    dict
        Metadata documents by key, still to be written.
    """
    for key in [key for key in keys if key.startswith("label/")]:
        again = f"{_LABELS}/{_NAME}/{key}"
        (folder / again).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(folder / key, folder / again)
        except OSError:  # a file system without hard links
            shutil.copyfile(folder / key, folder / again)
        keys[again] = keys[key]
    label = image_metadata(affine, path="label")
    label["image-label"] = {
        "colors": [
            {"label-value": value, "rgba": [*_colour(place), 255]}
            for place, value in enumerate(LEVEL_OF_LABEL)
        ],
        "properties": [
            {"label-value": value, "level": level} for value, level in LEVEL_OF_LABEL.items()
        ],
        "source": {"image": "../../"},
    }
    listing = {"version": OME_VERSION, _LABELS: [_NAME]}
    return {
        f"{_LABELS}/zarr.json": canonical_json(group_document({"ome": listing})),
        f"{_LABELS}/{_NAME}/zarr.json": canonical_json(group_document({"ome": label})),
    }


def _colour(place: int) -> tuple[int, int, int]:
    """Return a colour in which neighbouring vertebrae differ: a third of the circle apart."""
    red, green, blue = colorsys.hsv_to_rgb((place * 0.381966) % 1.0, 0.75, 0.95)
    return (round(red * 255), round(green * 255), round(blue * 255))
