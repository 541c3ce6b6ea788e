"""One prediction on the grid of its scan, with VerSe's labels.

Where it lies follows from its affine alone: that stays true when a sample is turned or resampled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError, ValidationFailed, one_of
from verse_data.export.folders import check_release
from verse_data.spine.geometry import SAME_GRID_MM, Affine, Array, Grid, apply_affine
from verse_data.spine.levels import LEVEL_OF_LABEL
from verse_data.volumes.nifti import Volume, write_nifti
from verse_data.volumes.placement import OverlapRule, labels_outside, overlap_box, place, turn

if TYPE_CHECKING:
    from verse_data.collection import ScanCollection

_LABELS: Final = (0, *LEVEL_OF_LABEL)
_INVERSE: Final = "give the other values of a model as inverse={26: 28}."


@dataclass(frozen=True, eq=False)
class NativePrediction:
    """A prediction on the grid of its scan.

    Parameters
    ----------
    scan_id : str
        The scan.
    label : uint8 (I, J, K) array
        VerSe's labels, in the axes of the scan's file.
    affine : (4, 4) array
        That of the scan's file: voxel index to mm, RAS+.
    exact : bool
        Whether every voxel was copied; otherwise it was resampled.
    outside : int
        Labelled voxels of the prediction that lie outside of the scan, and are lost.
    """

    scan_id: str
    label: npt.NDArray[np.uint8]
    affine: Affine
    exact: bool
    outside: int

    @property
    def levels(self) -> tuple[str, ...]:
        """Levels that occur, in spine order."""
        found = np.zeros(256, np.bool_)
        found[self.label] = True
        return tuple(level for label, level in LEVEL_OF_LABEL.items() if found[label])

    def write(self, folder: str | Path) -> Path:
        """Write ``<scan_id>.nii.gz``, uint8, into a folder.

        Parameters
        ----------
        folder : path
            Made if it does not exist; a file of this name in it is replaced.

        Returns
        -------
        Path
            The file.
        """
        path = Path(folder) / f"{self.scan_id}.nii.gz"
        write_nifti(path, self.label, self.affine)
        return path


def to_native(
    prediction: Any,
    sample: Any,
    release: ScanCollection,
    *,
    inverse: Mapping[int, int] | None = None,
    overlap: OverlapRule = "deepest",
) -> NativePrediction:
    """Put labels that were predicted from a sample on the grid of its scan.

    Turned, flipped and cropped predictions are copied voxel by voxel. Resampled ones are
    interpolated, each label for itself: linearly along axes on which they are coarser than the
    scan, from the nearest voxel where they are finer. What no prediction covers is 0.

    Parameters
    ----------
    prediction : array or tensor, or a sequence of them
        Labels, shape (X, Y, Z) or (1, X, Y, Z), with the axes of the sample's ``image``; of a batch
        (B, X, Y, Z) or (B, 1, X, Y, Z).
    sample : mapping, xarray.Dataset, or a sequence of them
        What it was predicted from, one for each prediction, all of one scan: a sample or a batch of
        a dataset, of which ``scan_id`` and ``affine`` are used (and the shape of ``image``, where
        it has one), or what :meth:`verse_data.Release.open_scan` returned.
    release : Release or UnitedReleases
        That of the scan, which knows its grid.
    inverse : mapping of int to int, optional
        VerSe's label of each of the model's values that differs, such as ``{26: 28}`` for T13.
    overlap : {"deepest", "labelled"}
        Where predictions overlap, that one counts in which the voxel lies deepest, in voxels from
        its border; of equals, the first. With ``"labelled"`` any label comes before background, for
        crops that show one vertebra each.

    Returns
    -------
    NativePrediction
        Labels with the affine of the scan's file; ``write(folder)`` writes them.

    Raises
    ------
    UsageError
        If prediction and sample do not belong together, or samples are of several scans.
    ValidationFailed
        If a value is no label, or a prediction does not overlap its scan.
    ContentMissing
        If neither the CT of the scan nor its store or mask is on this machine.
    """
    check_release(release)
    one_of("overlap", overlap, get_args(OverlapRule))
    patches = _patches(prediction, sample)
    ids = list(dict.fromkeys(patch.scan_id for patch in patches))
    if len(ids) != 1:
        named = f"of {len(ids)} scans: {', '.join(ids[:3])}" if ids else "none"
        raise UsageError(f"These predictions are {named}. Give those of one scan at a time.")
    volumes, grid = [], release.grid(ids[0])
    for number, patch in enumerate(patches):
        name = f"{ids[0]}, prediction {number}" if len(patches) > 1 else ids[0]
        volumes.append(Volume(verse_labels(patch.label, inverse or {}, name), patch.affine))
        check_overlap(volumes[-1], grid, name, ids[0])
    return on_grid(ids[0], volumes, grid, overlap)


class _Patch(NamedTuple):
    scan_id: str
    label: Array
    affine: Affine


def on_grid(
    scan_id: str, volumes: Sequence[Volume], grid: Grid, overlap: OverlapRule = "deepest"
) -> NativePrediction:
    """Return the labels of `volumes`, all of one scan, on its grid."""
    return NativePrediction(
        scan_id,
        place(volumes, grid, overlap=overlap),
        grid.affine,
        exact=all(turn(Grid.of(volume), grid) for volume in volumes),
        outside=sum(labels_outside(volume, grid) for volume in volumes),
    )


def _patches(prediction: Any, sample: Any) -> list[_Patch]:
    """Return predictions with scan and affine of their samples, one by one."""
    if isinstance(sample, Sequence) and not isinstance(sample, str):
        if len(prediction) != len(sample):
            raise UsageError(
                f"There are {len(prediction)} predictions for {len(sample)} samples. "
                f"Give one for each."
            )
        pairs = zip(prediction, sample, strict=True)
        return [patch for pair in pairs for patch in _patches(*pair)]
    facts = _of_xarray(sample) if hasattr(sample, "attrs") else sample
    if not isinstance(facts, Mapping) or not {"scan_id", "affine"} <= facts.keys():
        raise UsageError(
            "A sample has scan_id and affine: give what the prediction was made from, or "
            "{'scan_id': 'verse004', 'affine': affine}."
        )
    affine, label = (np.asarray(_cpu(value)) for value in (facts["affine"], prediction))
    if affine.ndim == 3:  # a batch
        whole = {key: facts[key] for key in ("scan_id", "affine", "image") if key in facts}
        parts = zip(*whole.values(), strict=True)
        return _patches(label, [dict(zip(whole, part, strict=True)) for part in parts])
    while label.ndim > 3 and label.shape[0] == 1:
        label = label[0]
    _check_shapes(label, affine, facts)
    return [_Patch(str(facts["scan_id"]), label, affine.astype(np.float64))]


def _cpu(value: Any) -> Any:
    """Return a tensor as NumPy can read it; torch itself is not needed for that."""
    return value.detach().cpu() if hasattr(value, "detach") else value


def _check_shapes(label: Array, affine: Array, facts: Mapping[str, Any]) -> None:
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.linalg.det(affine):
        raise UsageError(f"{facts['scan_id']}: its affine is no invertible matrix (4, 4).")
    if label.ndim != 3 or not label.size:
        raise UsageError(
            f"{facts['scan_id']}: the prediction has shape {label.shape}, not (X, Y, Z). Take one "
            f"label for each voxel: of scores per class, scores.argmax(0)."
        )
    seen = tuple(facts["image"].shape[-3:]) if "image" in facts else label.shape
    if seen != label.shape:
        raise UsageError(
            f"{facts['scan_id']}: the prediction has shape {label.shape} and the image that it was "
            f"made from {seen}. If the image was changed since, give {{'scan_id': …, 'affine': …}} "
            f"alone, with the affine of the prediction."
        )


def _of_xarray(scan: Any) -> dict[str, Any]:
    """Return scan id, affine and image of a scan from `Release.open_scan`, if it is whole."""
    affine = np.array(json.loads(scan.attrs["affine"]))
    for place_ in (0, -1):
        index = [place_ % size for size in scan["image"].shape]
        world = [float(scan[f"world_{axis}"][(place_,) * 3]) for axis in "xyz"]
        if np.abs(apply_affine(affine, index) - world).max() > SAME_GRID_MM:
            raise UsageError(
                f"{scan.attrs['scan_id']} was cut or turned after it was opened, and its affine is "
                f"the old one. Give {{'scan_id': …, 'affine': …}} with that of the prediction."
            )
    return {"scan_id": scan.attrs["scan_id"], "affine": affine, "image": scan["image"]}


def verse_labels(
    values: Array, inverse: Mapping[int, int], name: str, remedy: str = _INVERSE
) -> Array:
    """Return a model's values as VerSe's labels, or raise if one of them is none."""
    if values.dtype.kind not in "buif":
        raise UsageError(f"{name}: values of type {values.dtype} are no labels.")
    with np.errstate(invalid="ignore"):
        small = values.astype(np.uint8, copy=False)
    table = np.array([inverse.get(value, value) for value in range(256)])
    known = np.isin(table, _LABELS)[small] & (small == values)
    if not known.all():
        index = np.unravel_index(int(np.argmin(known)), values.shape)
        place_ = ", ".join(str(int(i)) for i in index)
        raise ValidationFailed(
            f"{name}: the value {values[index]:g} at voxel ({place_}) is no label. Labels are 0 to "
            f"25, and 28 for T13; {remedy}"
        )
    mapped: Array = table.astype(np.uint8)[small] if inverse else small
    return mapped


def check_overlap(volume: Grid | Volume, scan: Grid, name: str, scan_id: str) -> None:
    """Raise ValidationFailed if no voxel of `volume` lies in the scan."""
    grid = Grid.of(volume)
    if overlap_box(grid, scan) is None:
        raise ValidationFailed(
            f"{name}: its grid ({_extent(grid)}) does not overlap that of scan {scan_id} "
            f"({_extent(scan)}). It is of another scan, or lost its affine on the way."
        )


def _extent(grid: Grid) -> str:
    """Return where a grid lies, in mm."""
    world = grid.corners()
    sides = zip("xyz", world.min(axis=0), world.max(axis=0), strict=True)
    return ", ".join(f"{axis} {low:.0f} to {high:.0f}" for axis, low, high in sides) + " mm"
