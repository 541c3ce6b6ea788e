"""What the three datasets share: lazy reading, epochs, error wrapping, provenance, description."""

from __future__ import annotations

import json
import operator
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch.utils.data import Dataset

from verse_data.errors import UsageError
from verse_data.spine.geometry import check_axcodes
from verse_data.training.collate import UnevenSample
from verse_data.training.describe import Described
from verse_data.training.numbers import whole
from verse_data.training.oriented import OrientedScan, Readers
from verse_data.training.randomness import seeded_transform
from verse_data.training.samples import Sample, check_dtype, check_plain, named
from verse_data.training.scans import (
    LeftOut,
    ScanColumns,
    ServedScan,
    left_out_table,
    part_served,
)
from verse_data.training.workers import WorkBoard, in_worker, shared

if TYPE_CHECKING:
    import pandas as pd

    from verse_data.training.loader import EpochLoader
    from verse_data.training.order import EpochSampler

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


class ServedDataset(Described, Dataset[Any]):
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
        self.orientation = check_axcodes(orientation)
        self.transform = transform
        _check_callable(transform)
        self.seed = whole("seed", seed)
        self.image_dtype = check_dtype(image_dtype)
        served, without = part_served(scans, label=needs_label)
        self.scans = ScanColumns(served)
        self._left_out = (*left_out, *without)
        self._given = json.dumps(dict(provenance or {}), default=str)
        self._readers = Readers(self.orientation)
        # Shared memory, so that workers that outlive an epoch see the next one.
        self._epoch = shared(torch.zeros(1, dtype=torch.int64))
        self._board = WorkBoard()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # A pickled or deeply copied tensor is private again; one sent to a worker stays shared.
        self._epoch = shared(self._epoch)

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples of an epoch."""

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

    @abstractmethod
    def _make(self, epoch: int, index: int) -> Sample:
        """Return sample `index` of `epoch`, before the transform."""

    @abstractmethod
    def scan_number(self, epoch: int, index: int) -> int:
        """Return the number of the scan that sample `index` of `epoch` is cut from."""

    def __getitem__(self, index: Index) -> Any:
        """Return one sample: number `index` of the current epoch, or ``(epoch, number)``.

        Raises
        ------
        IndexError, TypeError
            If there is no such sample, or `index` is no number.
        SampleError
            If the transform, or anything else that is not ours, fails; the text names the scan.
        IntegrityError
            If the store's bytes are not what its manifest promised.
        """
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

    def in_work(self) -> list[str]:
        """Return the places of the samples that workers have begun and not finished."""
        return [self.place(epoch, number) for epoch, number in self._board.begun()]

    def forget_work(self) -> None:
        """Forget what earlier workers were at."""
        self._board.clear()

    @property
    def epoch(self) -> int:
        """The epoch that ``dataset[i]`` draws for."""
        return int(self._epoch[0])

    def set_epoch(self, epoch: int) -> None:
        """Draw for `epoch` from now on, in workers that already run as well.

        Parameters
        ----------
        epoch : int
            From 0 on.
        """
        self._epoch[0] = whole("epoch", epoch)

    def sampler(self, **options: Any) -> EpochSampler:
        """Return an :class:`~verse_data.training.order.EpochSampler` over this dataset."""
        from verse_data.training.order import EpochSampler

        return EpochSampler(self, **options)

    def loader(self, **options: Any) -> EpochLoader:
        """Return an :class:`~verse_data.training.loader.EpochLoader` over this dataset."""
        from verse_data.training.loader import EpochLoader

        return EpochLoader(self, **options)


def _check_callable(transform: object) -> None:
    if transform is not None and not callable(transform):
        message = f"transform={transform!r} cannot be called; give a function of one sample."
        raise UsageError(message)
