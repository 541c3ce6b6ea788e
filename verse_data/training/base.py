"""What the three datasets share: lazy reading, epochs, error wrapping, provenance, description."""

from __future__ import annotations

import json
import operator
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from verse_data.errors import UsageError
from verse_data.files import sha256_of_json
from verse_data.spine.geometry import check_axcodes
from verse_data.training.arguments import whole
from verse_data.training.draw import seeded_transform
from verse_data.training.loader import EpochLoader
from verse_data.training.sampler import EpochDataset, EpochSampler
from verse_data.training.samples import Sample, UnevenSample, check_dtype, check_plain, named
from verse_data.training.scans import (
    LeftOut,
    OrientedScan,
    Readers,
    ScanColumns,
    ServedScan,
    left_out_table,
    part_served,
)
from verse_data.training.workers import in_worker

if TYPE_CHECKING:
    import pandas as pd


_GIVEN = ("release", "version", "licence")
_SHOWN_HEX = 12

Transform = Callable[[Any], Any]
Index = int | tuple[int, int]
"""Number of a sample in the current epoch, or (epoch, number)."""


class ServedOptions(TypedDict, total=False):
    """Options of every unit; see :class:`ServedDataset`."""

    orientation: str
    transform: Transform | None
    seed: int
    image_dtype: str
    provenance: Mapping[str, Any] | None
    left_out: Sequence[LeftOut]


class ServedDataset(EpochDataset):
    """Base of :class:`ScanDataset`, :class:`PatchDataset` and :class:`VertebraDataset`.

    Sample ``dataset[i]`` is a pure function of the stores, the options, ``seed``, the epoch and
    ``i``: neither the number of workers, nor their start method, nor the order of the calls enters.

    Parameters
    ----------
    scans : sequence of ServedScan
        What is served, in this order.
    needs_label : bool
        Whether a scan without a mask is excluded, with the reason ``no_mask``.
    orientation : str
        Axis codes of the image that is handed out, such as ``"RAS"`` or ``"PIR"``.
    transform : callable, optional
        Called with each sample; what it returns is the sample. Random transforms that use the
        generators of torch, NumPy or ``random``, or MONAI's, are seeded per sample.
    seed : int
        Root of everything that is drawn.
    image_dtype : {"float32", "int16"}
        Type of ``image``; int16 halves what workers copy.
    provenance : mapping, optional
        What the stores were made from; shown by ``repr`` and returned by :attr:`provenance`.
    left_out : sequence of LeftOut
        What cannot be served for another reason, so that :attr:`excluded` is complete.

    Raises
    ------
    UsageError
        If a scan was given twice, a subject lies in two splits, or an option is unknown.
    """

    unit: str
    uneven: bool = False
    """Whether images differ in size, so that a batch of them needs padding."""

    def __init__(
        self,
        scans: Sequence[ServedScan],
        *,
        needs_label: bool,
        orientation: str = "RAS",
        transform: Transform | None = None,
        seed: int = 0,
        image_dtype: str = "float32",
        provenance: Mapping[str, Any] | None = None,
        left_out: Sequence[LeftOut] = (),
    ) -> None:
        super().__init__(seed)
        self.orientation = check_axcodes(orientation)
        self.transform = transform
        _check_callable(transform)
        self.image_dtype = check_dtype(image_dtype)
        served, without = part_served(scans, label=needs_label)
        self.scans = ScanColumns(served)
        self._left_out = (*left_out, *without)
        self._given = json.dumps(dict(provenance or {}), default=str)
        self._readers = Readers(self.orientation)

    @property
    def options(self) -> dict[str, Any]:
        """What, beside the scans, decides the samples."""
        return {
            "orientation": self.orientation,
            "image_dtype": self.image_dtype,
            "seed": self.seed,
        }

    @property
    def excluded(self) -> pd.DataFrame:
        """Scans that were given and are not served: ``scan_id``, ``subject_id``, ``reason``."""
        return left_out_table(self._left_out)

    @property
    def sampled_scans(self) -> frozenset[str]:
        """Ids of the scans that a sample can come from."""
        return frozenset(self.scans.scan_id.tolist())

    @property
    def fingerprint(self) -> str:
        """SHA-256 over stores, rows and options: equal for datasets that serve the same samples.

        The transform is not part of it.
        """
        content = {
            "unit": self.unit,
            "scans": [[s.scan_id, s.store.name] for s in self.scans],
            "options": self.options,
            "rows": self._rows_digest(),
        }
        return sha256_of_json(content)

    def _rows_digest(self) -> str | None:
        """Return the digest of the rows of the vertebrae table that decide the samples."""
        return None

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the samples come from and how they were made, as plain JSON."""
        return {
            **json.loads(self._given),
            "unit": self.unit,
            "options": self.options,
            "stores": {s.scan_id: s.store.name for s in self.scans},
            "dataset_fingerprint": self.fingerprint,
        }

    def counts(self) -> dict[str, int]:
        """Return how many samples, scans and subjects are served, and how much was left out."""
        return {
            "samples": len(self),
            "scans": len(self.scans),
            "subjects": len(np.unique(self.scans.subject_id)),
            "excluded": len(self.excluded),
        }

    def details(self) -> list[tuple[str, str]]:
        """Return what only this unit has to tell, as pairs of words."""
        return []

    def __repr__(self) -> str:
        return describe(self)

    def _repr_html_(self) -> str:
        return describe_html(self)

    @abstractmethod
    def _make(self, epoch: int, index: int) -> Sample:
        """Return sample `index` of `epoch`, before the transform."""

    @abstractmethod
    def scan_number(self, epoch: int, index: int) -> int:
        """Return the number of the scan that sample `index` of `epoch` is cut from."""

    def __getitem__(self, index: Index) -> Any:
        """Return one sample: number `index` of the current epoch, or ``(epoch, number)``."""
        epoch, number = index if isinstance(index, tuple) else (self.epoch, index)
        epoch, number = whole("epoch", epoch), operator.index(number)
        if not -len(self) <= number < len(self):
            raise IndexError(f"There is no sample {number}; there are {len(self):,}.")
        number %= len(self)
        self._board.begin(epoch, number)
        # Not a context manager: contextlib takes a RuntimeError that was raised from a
        # StopIteration for the interpreter's own, and lets the StopIteration out.
        try:
            return self._finished(self._make(epoch, number), epoch, number)
        except (Exception, SystemExit) as error:
            raise named(self.place(epoch, number), error) from error
        finally:
            self._board.end()

    def _finished(self, sample: Sample, epoch: int, number: int) -> Any:
        if self.transform is not None:
            sample = seeded_transform(self.transform, sample, self.seed, epoch, number)
            check_plain(sample, in_worker=in_worker())
        return UnevenSample(sample) if self.uneven and type(sample) is dict else sample

    def _open(self, number: int) -> OrientedScan:
        """Return scan `number`, open in this process."""
        return self._readers.get(str(self.scans.store[number]))

    def place(self, epoch: int, index: int) -> str:
        """Return the words by which errors name sample `index` of `epoch`."""
        scan_id = self.scans.scan_id[self.scan_number(epoch, index)]
        return f"{scan_id}, {self.unit} sample {index} of epoch {epoch}"

    def sampler(self, **options: Any) -> EpochSampler:
        """Return an :class:`~verse_data.training.sampler.EpochSampler` over this dataset."""
        return EpochSampler(self, **options)

    def loader(self, **options: Any) -> EpochLoader:
        """Return an :class:`~verse_data.training.loader.EpochLoader` over this dataset."""
        return EpochLoader(self, **options)


def facts(dataset: ServedDataset) -> list[tuple[str, str]]:
    """Return what is worth knowing of `dataset`, as pairs of words."""
    given: dict[str, Any] = dataset.provenance
    counts = dataset.counts()
    left_out = dataset.excluded["reason"].value_counts()
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    options = ", ".join(f"{key}={value!r}" for key, value in dataset.options.items())
    return [
        *((key, str(given[key])) for key in _GIVEN if key in given),
        ("samples", f"{counts['samples']:,}"),
        ("scans", f"{counts['scans']:,} of {counts['subjects']:,} subjects"),
        *dataset.details(),
        ("excluded", f"{counts['excluded']:,}" + (f" ({reasons})" if reasons else "")),
        ("options", options),
        ("fingerprint", dataset.fingerprint[:_SHOWN_HEX]),
    ]


def describe(dataset: ServedDataset) -> str:
    """Return the text of ``repr``."""
    lines = [f"  {key:<12}{value}" for key, value in facts(dataset)]
    return "\n".join([type(dataset).__name__, *lines])


def describe_html(dataset: ServedDataset) -> str:
    """Return the table that notebooks show; everything in it is escaped."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(key)}</th>"
        f"<td style='text-align:left'>{escape(value)}</td></tr>"
        for key, value in facts(dataset)
    )
    return f"<table><caption>{escape(type(dataset).__name__)}</caption>{rows}</table>"


def _check_callable(transform: object) -> None:
    if transform is not None and not callable(transform):
        raise UsageError(
            f"transform={transform!r} cannot be called; give a function of one sample."
        )
