"""What a sample is: a plain ``dict`` of tensors, numbers and strings that can be batched.

Keys that every unit has (a unit adds its own, see its class):

==================  ==============================  ===========================================
key                 type                            meaning
==================  ==============================  ===========================================
``image``           float32 or int16 (1, X, Y, Z)   HU; -1024 outside the scan
``label``           uint8 (1, X, Y, Z)              vertebra labels (T13 is 28); 0 elsewhere;
                                                    absent with ``label=False``
``affine``          float64 (4, 4)                  index (x, y, z) of ``image`` to mm, RAS+
``spacing``         float64 (3,)                    voxel size in mm along x, y, z of ``image``
``centroids``       float64 (26, 3)                 centroid of each level in mm, RAS+, a row a
                                                    level in spine order (C1 … L6); NaN where
                                                    the scan has none
``scan_id``         str                             one CT series
``subject_id``      str                             the patient
``split``           str                             ``training``, ``validation`` or ``test``
==================  ==============================  ===========================================

Centroids are in world millimetres on purpose: whatever flips, crops or resamples the image and
keeps ``affine`` true keeps them true as well. :func:`centroid_voxels` gives them as indices.
"""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import pad
from torch.utils.data import default_collate
from torch.utils.data._utils.collate import collate as collate_by
from torch.utils.data._utils.collate import default_collate_fn_map

from verse_data.errors import SampleError, UsageError, VerseDataError
from verse_data.spine.geometry import Affine, apply_affine, voxel_sizes
from verse_data.spine.levels import LEVELS
from verse_data.training.scans import OrientedScan

Sample = dict[str, Any]
ImageDtype = Literal["float32", "int16"]

PAD_HU = -1024
"""Value of the image outside the scan: air."""

_PLAIN = (np.ndarray, np.generic, str, int, float, type(None))
_SHOWN_FRAMES = 4


def check_dtype(image_dtype: str) -> ImageDtype:
    """Return `image_dtype` if images can be served in it."""
    if image_dtype in ("float32", "int16"):
        return image_dtype  # type: ignore[return-value]
    raise UsageError(f"image_dtype={image_dtype!r} is not served; use 'float32' or 'int16'.")


def volumes(image: npt.NDArray[Any], label: npt.NDArray[Any] | None, dtype: ImageDtype) -> Sample:
    """Return ``image`` and, where there is one, ``label`` as contiguous tensors (1, X, Y, Z)."""
    if dtype == "int16" and image.dtype.kind == "f":
        image = np.rint(image)  # a cast alone cuts off toward zero, which shifts all by half an HU
    sample: Sample = {"image": torch.from_numpy(np.ascontiguousarray(image, dtype=dtype)[None])}
    if label is not None:
        sample["label"] = torch.from_numpy(np.ascontiguousarray(label, dtype=np.uint8)[None])
    return sample


def common(names: Mapping[str, str], opened: OrientedScan, affine: Affine) -> Sample:
    """Return the keys that every sample has, but for ``image`` and ``label``."""
    matrix = np.array(affine, dtype=np.float64)
    return {
        "affine": torch.from_numpy(matrix),
        "spacing": torch.tensor(voxel_sizes(matrix), dtype=torch.float64),
        "centroids": torch.from_numpy(opened.centroids.copy()),
        **names,
    }


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
    points = np.asarray(sample["centroids"], dtype=np.float64)
    voxels = apply_affine(np.linalg.inv(np.asarray(sample["affine"], dtype=np.float64)), points)
    return {
        level: (float(x), float(y), float(z))
        for level, (x, y, z) in zip(LEVELS, voxels, strict=True)
        if not np.isnan(x)
    }


def named(place: str, error: BaseException) -> VerseDataError:
    """Return `error` as one that names `place` and survives a worker.

    An error of this package keeps its class. Everything else becomes a `SampleError`: also
    ``StopIteration``, at which a ``DataLoader`` would end the epoch early without a word, and
    exceptions that cannot be pickled, at which it would hang. A class that a user derived from one
    of ours may be either of a local scope or made of more than a text, and is such another.
    """
    ours = type(error).__module__.partition(".")[0] == __name__.partition(".")[0]
    if isinstance(error, VerseDataError) and ours:
        return type(error)(f"{place}: {error}")
    return SampleError(_foreign(place, error))


def _foreign(place: str, error: BaseException) -> str:
    try:
        reason = str(error)
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide where it broke
        reason = "(its text could not be read)"
    frames = traceback.extract_tb(error.__traceback__)[-_SHOWN_FRAMES:]
    trail = " < ".join(
        f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in reversed(frames)
    )
    return (
        f"{place}: {type(error).__name__}: {reason}\n  raised in {trail}\n"
        f"  If this comes from your transform, try it on this sample alone in the main process."
    )


def check_plain(
    value: object, *, in_worker: bool, key: str = "sample", none_too: bool = False
) -> None:
    """Check that `value` can leave a worker."""
    if isinstance(value, torch.Tensor):
        _check_tensor(value, key)
    elif isinstance(value, np.ndarray) and value.dtype.hasobject:
        raise SampleError(
            f"{key!r} is an array of Python objects ({value.dtype}); give it a number type."
        )
    elif value is None and not none_too:
        raise SampleError(
            f"{key!r} is None, which cannot be batched. Leave the key out, or use a value "
            f"of its type that means missing, such as -1 or NaN."
        )
    elif type(value) is dict:
        for name, part in value.items():
            check_plain(part, in_worker=in_worker, key=str(name), none_too=none_too)
    elif type(value) in {list, tuple}:
        for part in value:  # type: ignore[attr-defined]
            check_plain(part, in_worker=in_worker, key=key, none_too=none_too)
    elif in_worker and not isinstance(value, _PLAIN):
        _check_pickles(value, key)


def _check_tensor(tensor: torch.Tensor, key: str) -> None:
    if tensor.requires_grad and not tensor.is_leaf:
        raise SampleError(
            f"{key!r} is a tensor with a graph of gradients, which cannot be sent from a worker. "
            f"Return tensor.detach()."
        )


class _Probe(ForkingPickler):
    """Pickles as a worker does, but for tensors: to pickle one moves it to shared memory."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            _check_tensor(value, "a tensor in it")
            return int, ()
        return NotImplemented


def _check_pickles(value: object, key: str) -> None:
    try:
        _Probe(io.BytesIO()).dump(value)
    except Exception as error:
        raise SampleError(
            f"{key!r} is a {type(value).__name__}, which cannot be sent from a worker: {error}. "
            f"Return tensors, arrays, numbers and strings."
        ) from error


_SHOWN = 3
_HINT = (
    "They differ in size, and cannot be stacked. Take them one by one (batch_size=None), pad them "
    "(collate_fn=verse_data.training.pad_collate), or serve boxes of one size (unit='patch', or a "
    "transform that crops and pads)."
)


def collate(samples: list[Any]) -> Any:
    """Batch samples as torch does, or as MONAI does where they hold its ``MetaTensor``.

    torch's own stacking keeps the affine of the first sample alone; MONAI's keeps each, and makes
    one batch of the lists of samples that its random crops return.
    """
    # Where MONAI is not loaded in this process, no sample can be of its kind.
    if "monai.data.meta_tensor" not in sys.modules:
        return default_collate(samples)
    from verse_data.training.monai import collate_tracked

    return collate_tracked(samples)


class UnevenSample(dict[str, Any]):
    """A sample of a dataset whose images differ in size: a dict, that torch's own batching can tell."""


def _stacked(samples: Sequence[UnevenSample], *, collate_fn_map: Any = None) -> Sample:
    """Batch such samples as torch does any dict; say what to do where their sizes differ."""
    shapes = {tuple(sample["image"].shape) for sample in samples if "image" in sample}
    if len(shapes) > 1:
        listed = ", ".join("x".join(map(str, shape[1:])) for shape in sorted(shapes)[:_SHOWN])
        raise UsageError(f"The images of this batch measure {listed} voxels. {_HINT}")
    plain = [dict(sample) for sample in samples]
    batch: Sample = collate_by(plain, collate_fn_map=collate_fn_map)
    return batch


# The way that torch documents for types of one's own; no other type is batched in another way.
default_collate_fn_map[UnevenSample] = _stacked


def pad_collate(samples: Sequence[Sample], *, pad_image: float = PAD_HU) -> Sample:
    """Batch samples, padding ``image`` and ``label`` at the ends to the largest of the batch.

    The voxels keep their indices, so ``affine`` stays true. The batch has one more key: ``shape``,
    int64 (batch, 3), what each image measured before.

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
        As :func:`collate` gives it. Labels are padded with 0.
    """
    pads = {"image": pad_image, "label": 0}
    shapes = torch.tensor([sample["image"].shape[1:] for sample in samples])
    largest = shapes.max(dim=0).values
    padded = [
        {
            **sample,
            **{
                key: _grown(sample[key], largest, value)
                for key, value in pads.items()
                if key in sample
            },
        }
        for sample in samples
    ]
    batch: Sample = collate(padded)
    return {**batch, "shape": shapes}


def _grown(volume: torch.Tensor, shape: torch.Tensor, value: float) -> torch.Tensor:
    x, y, z = (int(n) - have for n, have in zip(shape, volume.shape[1:], strict=True))
    return pad(volume, (0, z, 0, y, 0, x), value=value) if x or y or z else volume
