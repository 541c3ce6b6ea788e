"""Volumes for viewers, cut from a store as NIfTI: a whole scan in few voxels, a box in all of them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from verse_data.config import __version__
from verse_data.files import sha256_of_json
from verse_data.spine.geometry import Affine, Box, Shape, apply_affine, voxel_sizes
from verse_data.views.slices import DISPLAY, places
from verse_data.volumes.layout import FACTORS, ArrayName
from verse_data.volumes.nifti import nifti_bytes
from verse_data.volumes.reader import ScanReader
from verse_data.volumes.shard import read_level

WHOLE_VOXELS: Final = 5_000_000
"""Voxels of a whole scan that a browser gets at most, unless its coarsest level has more."""
BOX_VOXELS: Final = 12_000_000
BOX_MM: Final = 120.0
"""Edge of the box that is cut in full resolution around a point."""


Point = tuple[float, float, float]
"""World mm, RAS+."""


def factor_of(shape: Shape, budget: int = WHOLE_VOXELS) -> int:
    """Return the finest downsampling factor with which a whole scan has no more voxels than `budget`."""
    voxels = float(np.prod(shape))
    return next((f for f in (1, *FACTORS) if voxels / f**3 <= budget), FACTORS[-1])


def box_around(shape: Shape, affine: Affine, centre: Point) -> Box:
    """Return the voxels within :data:`BOX_MM` around a point in world mm; fewer if they are very small."""
    edges = np.array([BOX_MM / size for size in voxel_sizes(affine)])
    edges *= min(1.0, (BOX_VOXELS / float(np.prod(np.minimum(edges, shape)))) ** (1 / 3))
    i, j, k = (max(1, round(edge)) for edge in edges)
    at = apply_affine(np.linalg.inv(affine), centre)
    inside = np.clip(at, 0, np.array(shape) - 1)  # a point outside gives the nearest voxels
    return Box.around(inside, (i, j, k)).clipped(shape)


def cut_nifti(reader: ScanReader, name: ArrayName, centre: Point | None) -> bytes:
    """Return the box around a point, or the whole scan, as NIfTI; not compressed, as it stays here."""
    factor = factor_of(reader.shape) if centre is None else 1
    if factor > 1:
        voxels, affine = read_level(reader.path, name, factor)
        return nifti_bytes(reader.relabelled(voxels) if name == "label" else voxels, affine)
    whole, affine = Box.whole(reader.shape), reader.affine
    box = whole if centre is None else box_around(reader.shape, affine, centre)
    image, label = reader.read(box, image=name == "image", label=name == "label")
    return nifti_bytes(image if name == "image" else label, box.affine(affine))


def levels_at(reader: ScanReader) -> tuple[dict[int, Point], dict[int, Point]]:
    """Return the centroid of each label, and the place in the mask of each that has none."""
    found, affine = places(reader), reader.grid(DISPLAY)[1]
    marked: dict[int, Point] = {}
    guessed: dict[int, Point] = {}
    for label, point in found.points.items():
        x, y, z = apply_affine(affine, point).round(2).tolist()
        (marked if label in found.marked else guessed)[label] = (x, y, z)
    return marked, guessed


def voxel_at(reader: ScanReader, point: Point) -> dict[str, Any]:
    """Return index, HU and label of the voxel at a point in world mm; None outside the scan."""
    i, j, k = apply_affine(np.linalg.inv(reader.affine), point).round().astype(int).tolist()
    box = Box((i, j, k), (i + 1, j + 1, k + 1))
    if box.clipped(reader.shape) != box:
        return {"voxel": None, "hu": None, "label": None}
    image, label = reader.read(box, label=reader.has_label)
    value = None if label is None else int(label[0, 0, 0])
    return {"voxel": [i, j, k], "hu": int(image[0, 0, 0]), "label": value}


def etag(reader: ScanReader, name: ArrayName, centre: Point | None) -> str:
    """Return the digest of a cut: of its store, which never changes, labels, and the view's parameters."""
    served = [reader.path.name, sorted(reader.relabel.items())]
    return sha256_of_json([__version__, served, name, centre, BOX_MM, WHOLE_VOXELS, BOX_VOXELS])
