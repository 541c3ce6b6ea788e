"""Samples: plain ``dict`` objects of tensors, numbers and strings that can be batched.

Keys of all units (each adds its own, see its class):

==================  ==============================  ===========================================
key                 type                            meaning
==================  ==============================  ===========================================
``image``           float32 or int16 (1, X, Y, Z)   HU; -1024 outside the scan
``label``           uint8 (1, X, Y, Z)              vertebra labels (T13 is 28); 0 elsewhere;
                                                    absent with ``label=False``
``affine``          float64 (4, 4)                  index (x, y, z) of ``image`` to mm, RAS+
``spacing``         float64 (3,)                    voxel size in mm along x, y, z of ``image``
``centroids``       float64 (26, 3)                 centroid of each level in mm, RAS+, one row per
                                                    level in spine order (C1 … L6); NaN where
                                                    the scan has none
``scan_id``         str                             one CT series
``subject_id``      str                             the patient
``split``           str                             ``training``, ``validation`` or ``test``
==================  ==============================  ===========================================

Centroids are in world millimetres on purpose: a transform that flips, crops or resamples the image
and updates ``affine`` leaves them valid. :func:`verse_data.training.centroid_voxels` returns them
as indices.
"""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.nn.functional import pad
from torch.utils.data import default_collate, get_worker_info
from torch.utils.data._utils.collate import collate as collate_by
from torch.utils.data._utils.collate import default_collate_fn_map

from verse_data.errors import SampleError, UsageError, VerseDataError
from verse_data.spine.geometry import Affine, Box, apply_affine, voxel_sizes
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVELS

if TYPE_CHECKING:
    from verse_data.views.contact_sheet import SampleView

Sample = dict[str, Any]

VOLUMES = ("image", "label", "heatmaps")
"""Keys of what lies on the sample's grid, with channels first."""
PAD_HU = -1024
"""Value of the image outside the scan: air."""


def ordinary_tensors() -> ExitStack:
    """Return a context without the caller's modes of torch: inference, default device, fake tensors."""
    modes = ExitStack()
    modes.enter_context(unset_fake_temporarily())
    if torch.is_inference_mode_enabled():
        modes.enter_context(torch.inference_mode(mode=False))
        modes.enter_context(torch.no_grad())  # leaving inference mode also ends its no_grad
    # Not without need: entering a device writes to a global of torch, which threads share.
    if torch._C._len_torch_function_stack():  # noqa: SLF001
        modes.enter_context(torch.device("cpu"))
    return modes


def volumes(image: npt.NDArray[Any], label: npt.NDArray[Any] | None, dtype: str) -> Sample:
    """Return ``image`` and, where there is one, ``label`` as contiguous tensors (1, X, Y, Z)."""
    if dtype == "int16" and image.dtype.kind == "f":
        image = np.rint(image)  # a cast alone truncates toward zero, which shifts HU by a half
    sample: Sample = {"image": torch.from_numpy(np.ascontiguousarray(image, dtype=dtype)[None])}
    if label is not None:
        sample["label"] = torch.from_numpy(np.ascontiguousarray(label, dtype=np.uint8)[None])
    return sample


def position(affine: Affine) -> Sample:
    """Return ``affine`` and the ``spacing`` that follows from it."""
    matrix = np.array(affine, dtype=np.float64)
    spacing = np.array(voxel_sizes(matrix), dtype=np.float64)
    return {"affine": torch.from_numpy(matrix), "spacing": torch.from_numpy(spacing)}


def box_tensor(box: Box) -> torch.Tensor:
    """Return a box as int64 (2, 3): its first voxel, and the one after the last."""
    return torch.tensor([box.start, box.stop], dtype=torch.int64)


def affine_of(sample: Mapping[str, Any]) -> Affine:
    """Return the affine of a sample's image, also where MONAI's tensor holds it."""
    held = sample["affine"] if "affine" in sample else getattr(sample["image"], "affine", None)
    if held is None:
        raise UsageError(
            f"The sample has no affine, only {', '.join(sample)}: a transform before this one has "
            f"dropped it. Use this one first, or keep the key."
        )
    return np.asarray(held, dtype=np.float64)


def cut(volume: torch.Tensor, box: Box, pad: float) -> torch.Tensor:
    """Return `box` of a volume (C, X, Y, Z), filled with `pad` where it reaches outside."""
    channels, x, y, z = volume.shape
    inside = box.clipped((x, y, z))
    out = torch.full((channels, *box.shape), pad, dtype=volume.dtype, device=volume.device)
    bounds = list(zip(inside.start, inside.stop, box.start, strict=True))
    target = [slice(start - first, stop - first) for start, stop, first in bounds]
    out[:, *target] = volume[:, *(slice(start, stop) for start, stop, _ in bounds)]
    return out


def centroid_voxels(sample: Mapping[str, Any]) -> dict[str, tuple[float, float, float]]:
    """Return the centroid of each level that the scan has, as an index into ``image``.

    Parameters
    ----------
    sample : mapping
        One sample with ``affine`` and ``centroids``, not a batch.

    Returns
    -------
    dict of str to (x, y, z)
        Fractional voxel indices, in spine order. They may lie outside the image.
    """
    to_voxels = np.linalg.inv(np.asarray(sample["affine"], dtype=np.float64))
    points = apply_affine(to_voxels, np.asarray(sample["centroids"], dtype=np.float64))
    return {
        level: (float(x), float(y), float(z))
        for level, (x, y, z) in zip(LEVELS, points, strict=True)
        if not np.isnan(x)
    }


def shown(sample: Any, index: int, *, sided: bool) -> SampleView:
    """Return what is drawn of a sample: arrays of its first channel, names, and if `sided`, directions."""
    from verse_data.views.contact_sheet import SampleView

    keys = sample if isinstance(sample, Mapping) else {}
    volume = keys.get("image", 0)
    if hasattr(volume, "affine"):
        # MONAI's tensors, whose affine its flips keep right; TorchIO's images.
        keys, sided = {**keys, "affine": volume.affine}, sided or isinstance(volume, torch.Tensor)
    image = _values(volume)
    plane = str(keys["plane"]) if image.ndim == 3 and "plane" in keys else None
    size = " x ".join(map(str, image.shape[1:]))
    image = image[..., None] if plane else image
    if image.ndim != 4 or not image.size or "affine" not in keys:
        what = f"image {image.shape}" if "image" in keys else f"a {type(sample).__name__}"
        raise UsageError(
            f"Sample {index} cannot be drawn: plot takes a dict with image (C, X, Y, Z) and affine, and "
            f"the transform returned {what}. Plot the dataset without transform=."
        )
    label = keys.get("label")
    if label is not None:
        label = _values(label)[0].reshape(image.shape[1:])
        if label.max() == 1 and "vertebra_label" in keys:  # 1 is the vertebra, and not C1
            label = label * int(keys["vertebra_label"])
    points = centroid_voxels(keys) if "centroids" in keys else {}
    middle, end = (np.array(image.shape[1:]) - 1) / 2, np.array(image.shape[1:]) - 0.5
    inside = {
        LABEL_OF_LEVEL[level]: np.array(at)
        for level, at in points.items()
        if np.all(np.array(at) >= -0.5) and np.all(at <= end)
    }
    heat = keys.get("heatmaps")
    if heat is not None:
        heat = torch.as_tensor(heat).detach().cpu().numpy().max(axis=0).reshape(image.shape[1:])
    facts = [str(keys[name]) for name in ("level", "scan_id") if name in keys]
    grade = int(keys.get("grade", -1))
    mark = f"grade {grade}" if grade >= 0 else "? not assessed"
    mark = "x foreign material" if int(keys.get("foreign_material", -1)) == 1 else mark
    return SampleView(
        image=image[0],
        label=label,
        affine=np.asarray(keys["affine"], dtype=np.float64),
        at=min(inside.values(), key=lambda p: float(np.linalg.norm(p - middle)), default=None),
        sided=sided,
        plane=plane,
        points=inside if plane and heat is None else {},
        heat=heat,
        lines=[
            "  ".join([str(index), *facts[:-1], *[mark] * ("grade" in keys)]),
            *(
                [*facts[-1:], f"{size} pixels"]
                if plane
                else ["  ".join([*facts[-1:], f"{size} voxels"])]
            ),
        ],
    )


def _values(volume: Any) -> npt.NDArray[Any]:
    """Return the values of a tensor, an array, or one of TorchIO's images."""
    values = volume.data if hasattr(volume, "affine") else volume
    return torch.as_tensor(values).detach().cpu().numpy()


def named(place: str, error: BaseException) -> VerseDataError:
    """Return `error` as one that names `place` and can be sent from a worker.

    An error of this package keeps its class. Everything else becomes a `SampleError`: also
    ``StopIteration``, at which a ``DataLoader`` would silently end the epoch, and exceptions that
    cannot be pickled, at which it would hang. So does a class that a user derived from one of ours:
    it may be local, or take more arguments than a text.
    """
    ours = type(error).__module__.partition(".")[0] == __name__.partition(".")[0]
    if isinstance(error, VerseDataError) and ours:
        return type(error)(f"{place}: {error}")
    # traceback also handles an exception whose __str__ fails.
    reason = "".join(traceback.format_exception_only(error)).strip()
    frames = "".join(traceback.format_tb(error.__traceback__, limit=-4))
    return SampleError(
        f"{place}: {reason}\nraised in\n{frames}"
        f"If this comes from your transform, try it on this sample alone in the main process."
    )


class _Probe(ForkingPickler):
    """Pickles as a worker does, except tensors, which pickling would move to shared memory."""

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return NotImplemented
        if value.requires_grad and not value.is_leaf:
            raise SampleError("a tensor has a graph of gradients; return tensor.detach()")
        return int, ()


def check_sendable(value: object) -> None:
    """Check in a worker that `value` can be sent to the main process; it would hang otherwise."""
    if get_worker_info() is None:
        return
    try:
        _Probe(io.BytesIO()).dump(value)
    except Exception as error:
        raise SampleError(
            f"This {type(value).__name__} cannot be sent from a worker ({error}). Return tensors, "
            f"arrays of numbers, numbers and strings."
        ) from error


def collate(samples: list[Any]) -> Any:
    """Batch samples as torch does, or as MONAI does if they hold its ``MetaTensor``."""
    # torch keeps only the affine of the first sample; MONAI keeps each, and makes one batch of the
    # lists of samples that its random crops return.
    # If MONAI is not imported in this process, no sample can hold a MetaTensor.
    if "monai.data.meta_tensor" not in sys.modules:
        return default_collate(samples)
    from verse_data.training.monai import collate_tracked

    return collate_tracked(samples)


class UnevenSample(dict[str, Any]):
    """A sample of a dataset whose images differ in size: a dict with its own rule of batching."""


def _stacked(samples: Sequence[UnevenSample], *, collate_fn_map: Any = None) -> Sample:
    """Batch such samples as torch does any dict, or raise UsageError if their sizes differ."""
    shapes = {tuple(sample["image"].shape[1:]) for sample in samples if "image" in sample}
    if len(shapes) > 1:
        listed = ", ".join("x".join(map(str, shape)) for shape in sorted(shapes)[:3])
        raise UsageError(
            f"The images of this batch measure {listed} voxels, and cannot be stacked. Take them one "
            f"by one (batch_size=None), pad them (collate_fn=verse_data.training.pad_collate), or "
            f"serve boxes of one size (unit='patch', or a transform that crops and pads)."
        )
    batch: Sample = collate_by([dict(s) for s in samples], collate_fn_map=collate_fn_map)
    return batch


# As torch documents it for custom types; the batching of other types does not change.
default_collate_fn_map[UnevenSample] = _stacked


def pad_collate(samples: Sequence[Sample], *, pad_image: float = PAD_HU) -> Sample:
    """Batch samples, padding ``image``, ``label`` and ``heatmaps`` at the ends to the largest of the batch.

    The voxels keep their indices, so ``affine`` stays valid. The batch has one more key: ``shape``,
    int64 (batch, axes), the shape of each image before padding.

    Parameters
    ----------
    samples : sequence of dict
        With the same keys.
    pad_image : float
        Value of the image where it was padded: air in HU. After ``Window`` that is 0, as in
        ``collate_fn=functools.partial(pad_collate, pad_image=0)``.

    Returns
    -------
    dict
        As batched by torch or MONAI. Labels and heatmaps are padded with 0.
    """
    shapes = np.array([sample["image"].shape[1:] for sample in samples])
    pads = dict.fromkeys(VOLUMES, 0.0) | {"image": pad_image}
    padded = []
    with ordinary_tensors():
        for sample, rooms in zip(samples, shapes.max(axis=0) - shapes, strict=True):
            ends = [end for room in rooms[::-1].tolist() for end in (0, room)]
            # torch's own padding, which keeps the class of a tensor, such as MONAI's.
            boxes = {key: pad(sample[key], ends, value=pads[key]) for key in pads if key in sample}
            padded.append({**sample, **boxes})
        return {**collate(padded), "shape": torch.from_numpy(shapes)}
