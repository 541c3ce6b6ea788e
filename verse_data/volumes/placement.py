"""Puts label volumes of any orientation, spacing or extent onto the grid of a scan.

A volume whose voxels are those of the scan, turned or cut, is copied: not a voxel changes. Any
other is interpolated, each label for itself, and a voxel gets the label with the largest share,
background among them: linearly along axes on which the volume is coarser than the scan, from the
nearest voxel where it is finer. Each is the better one there: verse010's mask comes back from 2 mm
with a Dice of 0.93 at least, by nearest 0.91; from 0.8 mm it is the same again, linearly 0.995.
What no volume covers is background.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from verse_data.spine.geometry import (
    Affine,
    Array,
    AxisMap,
    Box,
    Grid,
    Shape,
    apply_affine,
    corners,
)
from verse_data.volumes.nifti import LAYOUT, Volume, VolumeStream, byte_order, write_volume

OverlapRule = Literal["deepest", "labelled"]

_SAME_VOXEL: Final = 0.1
"""Part of a voxel by which two grids may differ and count as one: headers hold float32."""
_FINER: Final = 1.1
"""Voxels of a volume in one of the scan, from which on it counts as finer than the scan."""
_SLAB_VOXELS: Final = 1 << 20
_TIE: Final = 1e-6
_CORNERS: Final = np.array(list(itertools.product((0, 1), repeat=3)))
_PLACE_FIELDS: Final = (
    *("sizeof_hdr", "magic", "dim", "pixdim", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)
"""Fields of a header that say where its voxels lie."""


class _Part(NamedTuple):
    """What a volume says of some voxels of the scan."""

    at: tuple[slice, ...]
    inside: Any
    """Those of the slab `at` that it covers; an ellipsis if it covers all."""
    labels: Array
    depth: Array
    """Voxels from the volume's border: 1 at the border itself."""


def overlap_box(volume: Grid, scan: Grid) -> Box | None:
    """Return the box of the scan's voxels that a volume may reach; None if there are none."""
    reached = apply_affine(_between(volume, scan), corners(volume.shape, 0.5))
    box = Box.of(np.ceil(reached.min(axis=0)), np.floor(reached.max(axis=0)) + 1)
    clipped = box.clipped(scan.shape)
    return clipped if min(clipped.shape) > 0 else None


def turn(volume: Grid, scan: Grid) -> tuple[AxisMap, Box] | None:
    """Return how to turn a volume, and its box in the scan; None if its voxels are other ones."""
    exact = _between(volume, scan)
    whole = np.rint(exact)
    steps, ends = np.abs(whole[:3, :3]), corners(volume.shape)
    if (steps.sum(axis=0) != 1).any() or (steps.sum(axis=1) != 1).any():
        return None
    reached = apply_affine(whole, ends)
    if np.abs(reached - apply_affine(exact, ends)).max() > _SAME_VOXEL:
        return None
    i, j, k = steps.argmax(axis=1).tolist()
    flips = (whole[:3, :3].sum(axis=1) < 0).tolist()
    axes = AxisMap((i, j, k), (flips[0], flips[1], flips[2]))
    return axes, Box.of(reached.min(axis=0), reached.max(axis=0) + 1)


def place(volumes: Sequence[Volume], scan: Grid, *, overlap: OverlapRule = "deepest") -> Array:
    """Return the labels of `volumes` (uint8) on the grid of the scan.

    Where several cover a voxel, the one counts in which it lies deepest, in voxels from the border;
    of equals, the first. With ``"labelled"``, any label comes before background.
    """
    out = np.zeros(scan.shape, np.uint8, order="F")  # as in a file
    if len(volumes) == 1:
        for part in _parts(_trimmed(volumes[0]), scan):
            out[part.at][part.inside] = part.labels
        return out
    deepest = np.zeros(scan.shape, np.uint16, order="F")
    for volume in volumes:
        for part in _parts(volume, scan):
            known, depth = deepest[part.at], part.depth
            if overlap == "labelled":  # then background neither takes a voxel nor holds one
                depth = depth * (part.labels > 0)
            wins = depth > known[part.inside]
            out[part.at][part.inside] = np.where(wins, part.labels, out[part.at][part.inside])
            known[part.inside] = np.where(wins, depth, known[part.inside])
    return out


def write_mask_like(path: Path, labels: Array, *, image: VolumeStream) -> None:
    """Write uint8 labels on the grid of an open CT; what places them in space are the CT's bytes."""
    # The directions are not made orthonormal, as ITK would like: a reader that refuses the mask
    # refuses its CT too, and two headers that differ in the last bits are warned of and compared.
    order = LAYOUT.newbyteorder(byte_order(image.head))
    theirs = np.frombuffer(image.head, order, 1)[0]
    header = np.zeros((), order)
    for field in _PLACE_FIELDS:
        header[field] = theirs[field]
    header["datatype"], header["bitpix"], header["vox_offset"], header["scl_slope"] = 2, 8, 352, 1
    write_volume(path, header.tobytes(), (labels[:, :, k] for k in range(labels.shape[2])))


def labels_outside(volume: Volume, scan: Grid) -> int:
    """Return how many labelled voxels of a volume have their centre outside of the scan."""
    labelled = _trimmed(volume)
    to_scan = _between(Grid.of(labelled), scan)
    if _are_inside(apply_affine(to_scan, corners(labelled.shape)), scan.shape).all():
        return 0
    points = apply_affine(to_scan, np.argwhere(labelled.array))
    return int(np.count_nonzero(~_are_inside(points, scan.shape)))


def _between(source: Grid, target: Grid) -> Affine:
    """Return the matrix from voxel indices of one grid to those of another."""
    matrix: Affine = np.linalg.inv(target.affine) @ source.affine
    return matrix


def _are_inside(points: Array, shape: Shape) -> Array:
    edge = 0.5 + _SAME_VOXEL
    beyond: Array = (points < -edge) | (points > np.array(shape) - 1 + edge)
    return np.logical_not(beyond.any(axis=-1))


def _slices(start: Iterable[int], stop: Iterable[int]) -> tuple[slice, ...]:
    return tuple(map(slice, start, stop))


def _trimmed(volume: Volume) -> Volume:
    """Return the part of a volume that holds its labels, and a voxel of background around it."""
    low, high = [0, 0, 0], [1, 1, 1]
    labelled = volume.array > 0
    for axis, size in enumerate(volume.shape):
        found = np.flatnonzero(labelled.any(axis=tuple({0, 1, 2} - {axis})))
        if found.size:
            low[axis], high[axis] = max(found[0] - 1, 0), min(found[-1] + 2, size)
    box = Box.of(low, high)
    return Volume(volume.array[_slices(box.start, box.stop)], box.affine(volume.affine))


def _parts(volume: Volume, scan: Grid) -> Iterator[_Part]:
    """Yield what a volume says of the scan, a slab at a time."""
    grid = Grid.of(volume)
    if turned := turn(grid, scan):
        axes, box = turned
        array, inside = axes.apply(volume.array), box.clipped(scan.shape)
        for at in _slabs(inside):
            own = [slice(s.start - a, s.stop - a) for s, a in zip(at, box.start, strict=True)]
            lines = [np.arange(n)[part] for n, part in zip(box.shape, own, strict=True)]
            depth = _depth(np.ix_(*lines), box.shape)
            yield _Part(at, ..., array[tuple(own)], depth)
    elif reached := overlap_box(grid, scan):
        # Labels at the border of the volume reach as far as their voxels do.
        padded = np.ascontiguousarray(np.pad(volume.array, 1, mode="edge"))
        mixed = _mixed(padded)
        to_volume = np.linalg.inv(_between(grid, scan))
        finer = np.linalg.norm(to_volume[:3, :3], axis=1) > _FINER
        for at in _slabs(reached):
            i, j, k = np.ogrid[at]
            places = [row[0] * i + row[1] * j + row[2] * k + row[3] for row in to_volume[:3]]
            inside = np.logical_and.reduce(
                [(p >= -0.5) & (p <= n - 0.5) for p, n in zip(places, grid.shape, strict=True)]
            )
            points = np.stack([place[inside] for place in places])
            labels = _interpolated(padded, mixed, points, finer=finer)
            yield _Part(at, inside, labels, _depth(points, grid.shape))


def _slabs(box: Box) -> Iterator[tuple[slice, ...]]:
    """Yield a box as slabs along its last axis, each about a million voxels."""
    i, j, k = _slices(box.start, box.stop)
    thick = max(1, _SLAB_VOXELS // max(box.shape[0] * box.shape[1], 1))
    for first in range(k.start, k.stop, thick):
        yield i, j, slice(first, min(first + thick, k.stop))


def _depth(points: Sequence[Array] | Array, shape: Shape) -> Array:
    """Return how deep each voxel index lies in a volume, in whole voxels."""
    near = [np.minimum(p, n - 1 - p) for p, n in zip(points, shape, strict=True)]
    least = np.minimum(np.minimum(near[0], near[1]), near[2])
    # Half a voxel beyond the centres is still the border.
    depth: Array = (np.rint(np.maximum(least, 0)) + 1).astype(np.uint16)
    return depth


def _mixed(padded: Array) -> Array:
    """Return which voxels differ from one of the seven that follow them."""
    out = np.zeros(padded.shape, np.bool_)
    i, j, k = (size - 1 for size in padded.shape)
    for x, y, z in _CORNERS[1:]:
        out[:i, :j, :k] |= padded[:i, :j, :k] != padded[x : x + i, y : y + j, z : z + k]
    return out


def _interpolated(padded: Array, mixed: Array, points: Array, *, finer: Array) -> Array:
    """Return the label with the largest share at each point, (3, n), of a volume padded by one."""
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    base = np.floor(points)
    first = strides @ (base.astype(np.intp) + 1)
    out: Array = padded.reshape(-1)[first]
    at = np.flatnonzero(mixed.reshape(-1)[first])  # elsewhere all eight neighbours are equal
    weight = (points[:, at] - base[:, at])[:, None, :]
    weight[finer] = weight[finer] >= 0.5
    labels = padded.reshape(-1)[first[at] + (_CORNERS @ strides)[:, None]]
    # The upper of two at equal distance, as on the way to a coarser store.
    nearest = np.array([4, 2, 1]) @ (weight[:, 0] >= 0.5)
    best = np.take_along_axis(labels, nearest[None], axis=0)[0]
    corners = _CORNERS.T[:, :, None]
    shares = np.where(corners, weight, 1 - weight).prod(axis=0)
    most = (shares * (labels == best)).sum(axis=0)
    for label in labels:
        share = (shares * (labels == label)).sum(axis=0)
        larger = share > most + _TIE
        best, most = np.where(larger, label, best), np.maximum(most, share)
    out[at] = best
    return out
