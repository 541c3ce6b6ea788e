"""A few transforms that keep image, label, affine and centroids exactly consistent.

Each is a callable on one sample, can be pickled, and returns a new sample. Centroids are in world
millimetres, so they stay valid as long as ``affine`` is updated. For everything else use MONAI's or
TorchIO's transforms (:mod:`verse_data.training.monai`, :mod:`verse_data.training.torchio`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from verse_data.errors import UsageError, ValidationFailed, one_of
from verse_data.spine.geometry import Affine, AxisMap, Box, apply_affine, check_axcodes
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVEL_OF_LABEL, LEVELS
from verse_data.spine.windows import window_range
from verse_data.training.arguments import finite, voxels, whole
from verse_data.training.samples import PAD_HU, VOLUMES, Sample, affine_of, cut, position

_LABELS = 256
_REACH = 6.0
"""Standard deviations beyond which a Gaussian is 0: there it is less than float32 resolves at 1."""


@dataclass(frozen=True)
class Compose:
    """Apply transforms one after the other.

    Parameters
    ----------
    steps : sequence of callable
        The first is called with the sample, each other with the result of the one before.
    """

    steps: Sequence[Callable[[Any], Any]]

    def __call__(self, sample: Any) -> Any:
        """Return the result of the last step."""
        for step in self.steps:
            sample = step(sample)
        return sample

    def set_random_state(self, seed: int) -> None:
        """Seed the steps with a generator of their own, such as MONAI's, each with another seed."""
        # With one seed for all, two random steps would draw the same numbers.
        for number, step in enumerate(self.steps):
            reseed = getattr(step, "set_random_state", None)
            if callable(reseed):
                reseed(seed=int(np.random.SeedSequence((seed, number)).generate_state(1)[0]))


@dataclass(frozen=True)
class Orient:
    """Reorient image and label by permutation and flips of axes, which is exact and reversible.

    Parameters
    ----------
    codes : str
        Axis codes, such as ``"PIR"``.
    """

    codes: str

    def __post_init__(self) -> None:
        check_axcodes(self.codes)

    def __call__(self, sample: Sample) -> Sample:
        """Return the sample in the other axes."""
        affine = np.asarray(sample["affine"], dtype=np.float64)
        _check_volume("Orient", sample)
        axes = AxisMap.between(affine, self.codes)
        _, *shape = sample["image"].shape
        turned = {
            key: torch.from_numpy(
                np.stack([axes.apply(channel) for channel in np.asarray(sample[key])])
            )
            for key in VOLUMES
            if key in sample
        }
        return _moved(sample, turned, axes.affine(affine, (shape[0], shape[1], shape[2])))


@dataclass(frozen=True)
class CropOrPad:
    """Crop or pad image and label to a fixed shape around a chosen centre.

    Parameters
    ----------
    shape : int or (X, Y, Z)
        Voxels; one number is a cube.
    about : {"image", "label", "centroids"}
        The centre: that of the image, of the box of all labels, or the mean of the centroids. If
        there is no label or centroid, that of the image.
    pad_image : float
        Value of the image where it was padded: air in HU. Give 0 after `Window`.
    """

    shape: tuple[int, int, int]
    about: Literal["image", "label", "centroids"] = "image"
    pad_image: float = PAD_HU

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", voxels("CropOrPad: shape", self.shape))
        finite("CropOrPad: pad_image", self.pad_image)
        one_of("CropOrPad: about", self.about, ("image", "label", "centroids"))

    def __call__(self, sample: Sample) -> Sample:
        """Return the sample in the new shape; labels are padded with 0."""
        _check_volume("CropOrPad", sample)
        box = Box.around(self._middle(sample), self.shape)
        affine = np.asarray(sample["affine"], dtype=np.float64)
        pads = {"image": self.pad_image}
        boxed = {key: cut(sample[key], box, pads.get(key, 0)) for key in VOLUMES if key in sample}
        return _moved(sample, boxed, box.affine(affine))

    def _middle(self, sample: Sample) -> Any:
        if self.about == "label" and "label" in sample:
            found = np.argwhere(np.asarray(sample["label"][0]))
            if len(found):
                return (found.min(axis=0) + found.max(axis=0)) / 2
        points = np.asarray(sample["centroids"])
        points = points[np.isfinite(points).all(axis=1)]
        if self.about == "centroids" and len(points):
            inverse = np.linalg.inv(np.asarray(sample["affine"], dtype=np.float64))
            return apply_affine(inverse, points.mean(axis=0))
        return (np.asarray(sample["image"].shape[1:]) - 1) / 2


@dataclass(frozen=True)
class Window:
    """Clip the image to a range of Hounsfield units and map that range to [0, 1].

    Parameters
    ----------
    low : float or {"bone", "soft tissue", "full"}
        HU that become 0, as all below; or a window by name, without `high`.
    high : float
        HU that become 1, as all above.
    """

    low: float | str = -1000.0
    high: float = 1500.0

    def __post_init__(self) -> None:
        if isinstance(self.low, str):
            if self.high != Window.high:
                raise UsageError(f"Window({self.low!r}, {self.high!r}): a name needs no high.")
            low, high = window_range(self.low)
            object.__setattr__(self, "low", low)
            object.__setattr__(self, "high", high)
        if not finite("Window: low", self.low) < finite("Window: high", self.high):
            raise UsageError(f"Window({self.low}, {self.high}): low must lie below high.")

    def __call__(self, sample: Sample) -> Sample:
        """Return the sample with a float32 image in [0, 1]."""
        low, image = float(self.low), sample["image"].to(torch.float32, copy=True)
        image.clamp_(low, self.high).sub_(low).div_(self.high - low)
        return {**sample, "image": image}


@dataclass(frozen=True)
class Heatmaps:
    """Add a Gaussian around the centroid of each level, exact in mm on every grid.

    A sample gets three keys. ``heatmaps``, float32 (levels, X, Y, Z), is exp(-d² / 2 `sigma_mm`²) at a
    voxel whose centre is d mm from the centroid: 1 where a voxel's centre is the centroid, whatever
    lies beyond the image, and all zeros for a level that the scan has no centroid of.
    ``heatmap_known``, bool (levels,), says which levels have one, in the image or beyond it.
    ``heatmap_levels`` is the text of the levels in the order of the channels, ``"T11 T12 L1"``.

    Give it last: after MONAI's transforms it reads the affine that they have kept. Give it before
    elastic transforms, and before TorchIO's flips and affine ones, which leave the affine. `Orient` and
    `CropOrPad` carry heatmaps along, and MONAI's transforms do if ``"heatmaps"`` is one of their keys.

    Parameters
    ----------
    sigma_mm : float
        Standard deviation of the Gaussian, the same in all directions.
    levels : sequence of str
        One channel each, in spine order whatever the order here; so channel n is the label n + 1
        of ``MapLabels.consecutive(levels)``.

    Raises
    ------
    UsageError
        If `sigma_mm` is not a positive number, or `levels` are not vertebral levels.
    """

    sigma_mm: float = 4.0
    levels: Sequence[str] = LEVELS

    def __post_init__(self) -> None:
        if not finite("Heatmaps: sigma_mm", self.sigma_mm) > 0:
            raise UsageError(
                f"Heatmaps: sigma_mm={self.sigma_mm!r} is not a positive length in mm."
            )
        given = [self.levels] if isinstance(self.levels, str) else self.levels
        if not isinstance(given, Collection) or not given:
            raise UsageError(f"Heatmaps: levels={given!r}; give some, such as ('T12', 'L1').")
        chosen = {one_of("Heatmaps: levels", level, LEVELS) for level in given}
        object.__setattr__(self, "levels", tuple(level for level in LEVELS if level in chosen))

    def __call__(self, sample: Sample) -> Sample:
        """Return the sample with its heatmaps."""
        rows = [LEVELS.index(level) for level in self.levels]
        points = np.asarray(sample["centroids"], dtype=np.float64)[rows]
        shape = tuple(sample["image"].shape[1:])
        maps = _gaussian(shape, affine_of(sample), points, self.sigma_mm)
        return {
            **sample,
            "heatmaps": torch.from_numpy(maps),
            "heatmap_known": torch.from_numpy(np.isfinite(points).all(axis=1)),
            "heatmap_levels": " ".join(self.levels),
        }


def _gaussian(
    shape: tuple[int, ...], affine: Affine, points: npt.NDArray[np.float64], sigma_mm: float
) -> npt.NDArray[np.float32]:
    """Return one Gaussian per point in world mm, (points, *shape); zeros for a point of NaN.

    A `shape` of two axes is a slice, whose third voxel axis is its thickness: a point within it is at
    no distance along that axis.
    """
    maps = np.zeros((len(points), *shape), dtype=np.float32)
    to_mm, inverse = affine[:3, :3], np.linalg.inv(affine)
    metric = to_mm.T @ to_mm / (2 * sigma_mm**2)
    # How far the ellipsoid of one standard deviation reaches along each voxel axis.
    reach = _REACH * sigma_mm * np.linalg.norm(inverse[:3, :3], axis=1)
    sizes = np.array([*shape, 1][:3])
    for target, centre in zip(maps, apply_affine(inverse, points), strict=True):
        if not np.isfinite(centre).all():
            continue
        if len(shape) == 2:
            centre[2] -= centre[2].clip(-0.5, 0.5)
        start = np.ceil(centre - reach).clip(0, sizes).astype(int)
        stop = (np.floor(centre + reach) + 1).clip(start, sizes).astype(int)
        x, y, z = np.ix_(
            *(np.arange(a, b) - c for a, b, c in zip(start, stop, centre, strict=True))
        )
        near = metric[0, 0] * x * x + metric[1, 1] * y * y + metric[2, 2] * z * z
        near = near + 2 * (metric[0, 1] * x * y + metric[0, 2] * x * z + metric[1, 2] * y * z)
        inside = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        target.reshape(tuple(sizes))[inside] = np.exp(-near)
    return maps


@dataclass(frozen=True)
class MapLabels:
    """Replace the numbers in ``label``.

    Parameters
    ----------
    mapping : mapping of int to int
        New number of each label; 0 stays 0 unless it is a key.
    names : mapping of int to str, optional
        Meaning of the new numbers.

    Raises
    ------
    UsageError
        If a number is not one of 0 to 255.
    """

    mapping: Mapping[int, int]
    names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number in (*self.mapping, *self.mapping.values()):
            whole("MapLabels: label", number, below=_LABELS)

    def __call__(self, sample: Sample) -> Sample:
        """Return the sample with the new labels."""
        table = np.zeros(_LABELS, dtype=np.uint8)
        table[list(self.mapping)] = list(self.mapping.values())
        label = np.asarray(sample["label"])
        present = np.flatnonzero(np.bincount(label.reshape(-1))).tolist()
        if unknown := [number for number in present if number and number not in self.mapping]:
            raise ValidationFailed(
                f"label holds {unknown}, which are not in the mapping: {dict(self.mapping)}."
            )
        return {**sample, "label": torch.from_numpy(table[label])}

    @property
    def inverse(self) -> MapLabels:
        """The inverse mapping, for predictions; labels that became 0 stay 0.

        Raises
        ------
        UsageError
            If two labels have the same new number.
        """
        pairs = [(new, old) for old, new in self.mapping.items() if new]
        back = dict(pairs)
        if len(back) < len(pairs):
            raise UsageError("This mapping has no inverse: it gives two labels the same number.")
        return MapLabels(
            back, {old: LEVEL_OF_LABEL[old] for old in back.values() if old in LEVEL_OF_LABEL}
        )

    @classmethod
    def consecutive(cls, levels: Sequence[str] = LEVELS) -> MapLabels:
        """Give `levels` the numbers 1, 2, 3, … in spine order (T13 between T12 and L1); others become 0.

        Raises
        ------
        UsageError
            If one of `levels` is not a vertebral level.
        """
        chosen = {one_of("levels", level, LEVELS) for level in levels}
        names = dict(enumerate([level for level in LEVELS if level in chosen], start=1))
        numbers = {LABEL_OF_LEVEL[level]: number for number, level in names.items()}
        return cls({**dict.fromkeys(LABEL_OF_LEVEL.values(), 0), **numbers}, names)


def keeps_sides(transform: Any) -> bool:
    """Whether a transform is one of these, after which `affine` still tells right from left."""
    if isinstance(transform, Compose):
        return all(map(keeps_sides, transform.steps))
    return transform is None or isinstance(
        transform, (Orient, CropOrPad, Window, MapLabels, Heatmaps)
    )


def _check_volume(step: str, sample: Sample) -> None:
    """Raise `UsageError` for an image that is no volume, such as a slice."""
    if sample["image"].ndim != 4:
        raise UsageError(
            f"{step} takes volumes (1, X, Y, Z), and this image is {tuple(sample['image'].shape)}. Slices "
            f"are turned by orientation=, and cropped by crop_size_mm= or crop='spine'."
        )


def _moved(sample: Sample, volumes: Mapping[str, torch.Tensor], affine: Any) -> Sample:
    moved = {**sample, **volumes, **position(affine)}
    moved.pop("box", None)  # its position in the scan's grid is no longer valid
    return moved
