"""Base class of the three datasets (lazy reading, epochs, errors, provenance), and ScanDataset."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from verse_data import markup
from verse_data.errors import SampleError, UsageError, one_of
from verse_data.files import sha256_of_json
from verse_data.spine.geometry import Affine, Box, check_axcodes
from verse_data.training.arguments import finite, window_of
from verse_data.training.crops import spine_box
from verse_data.training.draw import seeded_transform
from verse_data.training.loader import EpochLoader
from verse_data.training.rows import Rows, digest, levels_by_scan
from verse_data.training.sampler import EpochDataset, EpochSampler
from verse_data.training.samples import (
    Sample,
    UnevenSample,
    box_tensor,
    check_sendable,
    named,
    ordinary_tensors,
    position,
    shown,
    volumes,
)
from verse_data.training.scans import LeftOut, OrientedScan, ScanColumns, ServedScan, open_scan
from verse_data.training.transforms import keeps_sides
from verse_data.volumes.reader import Empty, fresh

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

Transform = Callable[[Any], Any]


class ServedDataset(EpochDataset):
    """Base of ``ScanDataset``, ``PatchDataset`` and ``VertebraDataset``.

    Sample ``dataset[i]`` is a pure function of the stores, the options, ``seed``, the epoch and
    ``i``: it depends neither on number and start method of workers, nor on the order of calls.

    Parameters
    ----------
    scans : sequence of ServedScan
        What is served, in this order.
    needs_label : bool
        Whether a scan without a mask is excluded, with the reason ``no_mask``.
    orientation : str
        Axis codes of the returned image, such as ``"RAS"`` or ``"PIR"``.
    transform : callable, optional
        Called with each sample; what it returns is the sample. Random transforms that use the
        generators of torch, NumPy or ``random``, or MONAI's, are seeded per sample.
    seed : int
        Seed of all random draws.
    image_dtype : {"float32", "int16"}
        Type of ``image``; int16 halves the bytes that workers copy.
    window : {"bone", "soft tissue", "full"} or (low, high), optional
        Range of HU that the image is clipped to and mapped to [0, 1], as by
        :class:`verse_data.training.transforms.Window`, where samples are read. Padding is then 0.
    provenance : mapping, optional
        What the stores were made from; shown by ``repr`` and returned by ``provenance``.
    left_out : sequence of LeftOut
        Scans that cannot be served for another reason, so that ``excluded`` is complete.

    Raises
    ------
    UsageError
        If a scan was given twice, a subject is in two splits, or an option is unknown.
    """

    uneven: bool = False
    """Whether images differ in size, so that a batch of them needs padding."""
    rows: Rows | None = None
    """Rows of the vertebrae table that samples are made from; None if they are not."""

    def __init__(
        self,
        scans: Sequence[ServedScan],
        *,
        needs_label: bool,
        orientation: str = "RAS",
        transform: Transform | None = None,
        seed: int = 0,
        image_dtype: str = "float32",
        window: str | Sequence[float] | None = None,
        provenance: Mapping[str, Any] | None = None,
        left_out: Sequence[LeftOut] = (),
    ) -> None:
        super().__init__(seed)
        self.orientation = check_axcodes(orientation)
        if transform is not None and not callable(transform):
            raise UsageError(f"transform={transform!r} is not a function of one sample.")
        self.transform = transform
        self.image_dtype = one_of("image_dtype", image_dtype, ("float32", "int16"))
        self.window = None if window is None else window_of("window", window)
        if self.window and image_dtype != "float32":
            raise UsageError(f"window= gives numbers from 0 to 1, which {image_dtype} cannot hold.")
        unmasked = {s.scan_id: s.subject_id for s in scans if needs_label and not s.has_label}
        self.scans = ScanColumns([scan for scan in scans if scan.scan_id not in unmasked])
        self._left_out = (*left_out, *(LeftOut(*ids, "no_mask") for ids in unmasked.items()))
        self._given = json.dumps(dict(provenance or {}), default=str)

    @property
    def options(self) -> dict[str, Any]:
        """All options that the samples depend on."""
        return {
            "orientation": self.orientation,
            "image_dtype": self.image_dtype,
            **({"window": list(self.window)} if self.window else {}),
            "seed": self.seed,
        }

    @property
    def excluded(self) -> pd.DataFrame:
        """Scans that were given and are not served: ``scan_id``, ``subject_id``, ``reason``."""
        import pandas as pd

        rows = [(scan.scan_id, scan.subject_id, scan.reason) for scan in self._left_out]
        return pd.DataFrame(rows, columns=["scan_id", "subject_id", "reason"])

    @property
    def sampled_scans(self) -> frozenset[str]:
        """Ids of the scans that a sample can come from."""
        ids = self.scans.scan_id if self.rows is None else self.rows["scan_id"]
        return frozenset(ids.tolist())

    @property
    def fingerprint(self) -> str:
        """SHA-256 over stores, rows and options: equal for datasets that serve the same samples.

        The transform is not part of it.
        """
        content = {
            "unit": self.unit,
            "scans": [[s.scan_id, s.store.name, *filter(None, [s.relabel])] for s in self.scans],
            "options": self.options,
            "rows": None if self.rows is None else digest(self.rows),
        }
        # Not there without any, so that digests of earlier versions still hold.
        overlays = sorted({f"{one['name']} {one['digest']}" for one in self._overlays})
        return sha256_of_json(content | ({"overlays": overlays} if overlays else {}))

    @property
    def _overlays(self) -> list[dict[str, Any]]:
        """The overlays that lie over the releases which samples come from."""
        releases = json.loads(self._given).get("releases", ())
        return [one for part in releases for one in part.get("overlays", ())]

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the samples come from, what selected them, and how they were made, as plain JSON."""
        return {
            **json.loads(self._given),
            "unit": self.unit,
            "options": self.options,
            "stores": {s.scan_id: s.store.name for s in self.scans},
            "vertebrae": None if self.rows is None else levels_by_scan(self.rows),
            "dataset_fingerprint": self.fingerprint,
        }

    def counts(self) -> dict[str, int]:
        """Return the numbers of samples, scans and subjects, and of excluded scans or vertebrae."""
        return {
            "samples": len(self),
            "scans": len(self.scans),
            "subjects": len(np.unique(self.scans.subject_id)),
            "excluded": len(self.excluded),
        }

    def _facts(self) -> dict[str, str]:
        """Return the lines of the representation, by heading."""
        counts, given = self.counts(), json.loads(self._given)
        overlays = [f"{one['name']} {one['version']}" for one in self._overlays]
        left_out = self.excluded["reason"].value_counts()
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        options = ", ".join(f"{key}={value!r}" for key, value in self.options.items())
        return {
            **{key: str(given[key]) for key in ("release", "version", "licence") if key in given},
            **({"overlays": ", ".join(dict.fromkeys(overlays))} if overlays else {}),
            "samples": f"{counts['samples']:,}",
            "scans": f"{counts['scans']:,} of {counts['subjects']:,} subjects",
            "excluded": f"{counts['excluded']:,}" + (f" ({reasons})" if reasons else ""),
            "options": options,
            "fingerprint": self.fingerprint[:12],
        }

    def __repr__(self) -> str:
        lines = [f"  {key:<12}{value}" for key, value in self._facts().items()]
        return "\n".join([type(self).__name__, *lines])

    def _repr_html_(self) -> str:
        """Return the table that notebooks show; everything in it is escaped."""
        return markup.facts(type(self).__name__, self._facts())

    @abstractmethod
    def _make(self, epoch: int, index: int, empty: Empty = fresh) -> Sample:
        """Return sample `index` of `epoch`, before the transform; `empty` allocates its volumes."""

    @abstractmethod
    def scan_number(self, epoch: int, index: int) -> int:
        """Return the number of the scan that sample `index` of `epoch` is cut from."""

    def read(self, epoch: int, number: int, empty: Empty = fresh) -> Sample:
        """Return sample `number` of `epoch` before the transform; safe in any thread."""
        sample: Sample = self._placed(epoch, number, self._make, epoch, number, empty)
        return sample

    def transformed(self, sample: Sample, epoch: int, number: int) -> Any:
        """Return what ``dataset[epoch, number]`` returns, from what :meth:`read` does."""
        return self._placed(epoch, number, self._apply_transform, sample, epoch, number)

    def _placed(self, epoch: int, number: int, function: Callable[..., Any], *given: Any) -> Any:
        """Call a function; an error names the sample that it was making."""
        # Not a context manager: contextlib mistakes a RuntimeError raised from a StopIteration for
        # the interpreter's own, and lets the StopIteration escape.
        try:
            with ordinary_tensors():
                return function(*given)
        except (Exception, SystemExit) as error:
            raise named(self.name_of(epoch, number), error) from error

    def _apply_transform(self, sample: Sample, epoch: int, number: int) -> Any:
        if self.transform is not None:
            sample = seeded_transform(self.transform, sample, self.seed, epoch, number)
            missing = (
                [key for key, v in sample.items() if v is None] if type(sample) is dict else []
            )
            if missing:
                raise SampleError(
                    f"{missing[0]!r} is None, which cannot be batched. Leave the key out, or use a "
                    f"value of its type that means missing, such as -1 or NaN."
                )
            check_sendable(sample)
        return UnevenSample(sample) if self.uneven and type(sample) is dict else sample

    def _open(self, number: int) -> OrientedScan:
        """Return scan `number`, open in this process."""
        scans = self.scans
        return open_scan(str(scans.store[number]), self.orientation, str(scans.relabel[number]))

    def _in_dtype(self, empty: Empty) -> Empty:
        """Return what allocates volumes as `empty` does, the image in the dtype that is served."""
        return lambda key, shape, dtype: empty(
            key, shape, self.image_dtype if key == "image" else dtype
        )

    def _boxed(self, number: int, box: Box, empty: Empty, *, label: bool) -> Sample:
        """Return a sample of the voxels of scan `number` in a box, with its ``box``."""
        scan = self._open(number)
        image, mask = scan.reader.read(
            box, orientation=self.orientation, label=label, empty=self._in_dtype(empty)
        )
        sample = self._sample(number, image, mask, box.affine(scan.affine))
        return sample | {"box": box_tensor(box)}

    def _sample(
        self, number: int, image: npt.NDArray[Any], label: npt.NDArray[Any] | None, affine: Affine
    ) -> Sample:
        """Return a sample of scan `number` with the keys that all units have."""
        centroids = torch.from_numpy(self._open(number).centroids.copy())
        made = volumes(image, label, self.image_dtype)
        if self.window:
            low, high = self.window
            made["image"].clamp_(low, high).sub_(low).div_(high - low)
        return {**made, **position(affine), "centroids": centroids, **self.scans.names(number)}

    def name_of(self, epoch: int, index: int) -> str:
        """Return the name of sample `index` of `epoch` in errors."""
        scan_id = self.scans.scan_id[self.scan_number(epoch, index)]
        return f"{scan_id}, {self.unit} sample {index} of epoch {epoch}"

    def plot(self, indices: Iterable[int] | None = None) -> Image:
        """Draw samples as they are served, after the transform: three planes with labels outlined.

        Each is cut through the centroid nearest to its middle, or through the middle. Directions are
        written at the edges unless a transform may have mirrored the image behind ``affine``.

        Parameters
        ----------
        indices : iterable of int, optional
            Samples of the current epoch. Default: the first six.

        Returns
        -------
        PIL.Image.Image
            An RGB picture, which notebooks show; its method ``save`` writes it.

        Raises
        ------
        UsageError
            If there are no indices, or a sample is no dict with ``image`` (C, X, Y, Z) and
            ``affine``.
        """
        from verse_data.views.contact_sheet import draw_samples

        chosen = list(range(len(self))[:6] if indices is None else indices)
        if not chosen:
            raise UsageError("There is no sample to draw: give the indices of some.")
        given = json.loads(self._given)
        release = " ".join(str(given[key]) for key in ("release", "version") if key in given)
        return draw_samples(
            [shown(self[i], i, sided=keeps_sides(self.transform)) for i in chosen],
            "  ·  ".join(filter(None, [type(self).__name__, release])),
            is_phantom="phantom" in release.split(),
        )

    def sampler(self, **options: Any) -> EpochSampler:
        """Return an :class:`~verse_data.training.sampler.EpochSampler` over this dataset."""
        return EpochSampler(self, **options)

    def loader(self, **options: Any) -> EpochLoader:
        """Return an :class:`~verse_data.training.loader.EpochLoader` over this dataset."""
        return EpochLoader(self, **options)


class ScanDataset(ServedDataset):
    """One sample per CT series, in the given orientation.

    A sample has the keys of :mod:`verse_data.training.samples`. Scans differ in shape, so a
    ``DataLoader`` takes ``batch_size=None`` or 1, ``collate_fn=verse_data.training.pad_collate``, or a
    transform that crops and pads; torch's own batching of scans that differ is a `UsageError`.

    Parameters
    ----------
    scans : sequence of ServedScan
        What is served, in this order.
    label : bool
        Whether samples have ``label``. Scans without a mask are then excluded, with the reason
        ``no_mask``; with ``label=False`` they are served.
    crop : {"spine"}, optional
        Serve the box of the spine and `margin_mm` on each side, as far as the scan reaches, in place of
        the whole scan. It is the box of the mask; in a scan without one, that of all centroids with
        the room that a large vertebra takes around each. Samples then have ``box`` as patches do.
    margin_mm : float, optional
        With ``crop="spine"``. Default: 20.
    **served
        ``orientation``, ``transform``, ``seed``, ``image_dtype``, ``provenance``, ``left_out``: see
        :class:`verse_data.training.base.ServedDataset`.

    Raises
    ------
    UsageError
        If a scan was given twice, a subject is in two splits, or an option is unknown.
    """

    unit = "scan"
    uneven = True

    def __init__(
        self,
        scans: Sequence[ServedScan],
        *,
        label: bool = True,
        crop: Literal["spine"] | None = None,
        margin_mm: float | None = None,
        **served: Any,
    ) -> None:
        self.crop = None if crop is None else one_of("crop", crop, ("spine",))
        if margin_mm is not None and crop is None:
            raise UsageError(f"margin_mm={margin_mm!r} goes with crop='spine', which is not given.")
        self.margin_mm = finite("margin_mm", 20.0 if margin_mm is None else margin_mm, least=0)
        super().__init__(scans, needs_label=label, **served)
        self.label = label

    def __len__(self) -> int:
        return len(self.scans)

    @property
    def options(self) -> dict[str, Any]:
        """All options that the samples depend on."""
        cropped = {"crop": self.crop, "margin_mm": self.margin_mm} if self.crop else {}
        return {"label": self.label, **cropped, **super().options}

    def scan_number(self, epoch: int, index: int) -> int:
        """Return `index`: each sample is a scan."""
        del epoch
        return index

    def _make(self, epoch: int, index: int, empty: Empty = fresh) -> Sample:
        del epoch
        sample = self._boxed(index, self._box(self._open(index)), empty, label=self.label)
        if not self.crop:
            del sample["box"]
        return sample

    def _box(self, scan: OrientedScan) -> Box:
        """Return the voxels of a scan that are served."""
        return spine_box(scan, self.margin_mm) if self.crop else Box.whole(scan.shape)
