"""Bridge to Lightning: a data module for a split or fold. Needs ``verse-data[lightning]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from verse_data.errors import UsageError, needed
from verse_data.training.base import ServedDataset
from verse_data.training.loader import EpochLoader
from verse_data.training.sampler import EpochSampler

with needed(by=__name__):
    from lightning.pytorch import LightningDataModule


class VerSeDataModule(LightningDataModule):  # type: ignore[misc]
    """Serves datasets to a ``Trainer``, with this package's order, ranks and resuming.

    With more than one device use ``Trainer(use_distributed_sampler=False)``: the samplers split the
    epoch over the ranks themselves. A checkpoint that Lightning writes in the middle of an epoch
    contains the loader's state, and the run resumes with the next sample.

    Parameters
    ----------
    train : ServedDataset
        Shuffled in every epoch.
    val, test, predict : ServedDataset, optional
        Served in their own order.
    sampler : EpochSampler, optional
        Sampler of `train`, such as a `BalancedSampler`. By default a shuffled one.
    batch_size, threads, num_workers : int
        Options of every loader; see :class:`verse_data.training.loader.EpochLoader`.
    loader_options : mapping, optional
        Further options of ``DataLoader``, such as ``pin_memory`` or ``collate_fn``.

    Raises
    ------
    UsageError
        If a subject is both trained on and evaluated on.
    """

    def __init__(
        self,
        *,
        train: ServedDataset,
        val: ServedDataset | None = None,
        test: ServedDataset | None = None,
        predict: ServedDataset | None = None,
        sampler: EpochSampler | None = None,
        batch_size: int = 1,
        threads: int | None = None,
        num_workers: int = 0,
        loader_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.train, self.val, self.test, self.predict = train, val, test, predict
        self.train_sampler = sampler
        self._options = {
            "batch_size": batch_size,
            "threads": threads,
            "num_workers": num_workers,
            **(loader_options or {}),
        }
        for name, other in (("val", val), ("test", test)):
            shared = np.intersect1d(train.scans.subject_id, other.scans.subject_id) if other else ()
            if len(shared):
                raise UsageError(
                    f"These subjects are in train and in {name}, which leaks patients: "
                    f"{', '.join(shared[:5])}. Take train and {name} from different splits or folds."
                )

    @property
    def provenance(self) -> dict[str, Any]:
        """Provenance of each dataset, by its name here."""
        served = {"train": self.train, "val": self.val, "test": self.test, "predict": self.predict}
        return {name: dict(dataset.provenance) for name, dataset in served.items() if dataset}

    def train_dataloader(self) -> EpochLoader:
        """Return the loader of `train`."""
        sampler = self.train_sampler or self.train.sampler()
        return self.train.loader(sampler=sampler, **self._options)

    def val_dataloader(self) -> EpochLoader | list[Any]:
        """Return the loader of `val`."""
        return self._in_order(self.val)

    def test_dataloader(self) -> EpochLoader | list[Any]:
        """Return the loader of `test`."""
        return self._in_order(self.test)

    def predict_dataloader(self) -> EpochLoader | list[Any]:
        """Return the loader of `predict`."""
        return self._in_order(self.predict)

    def _in_order(self, dataset: ServedDataset | None) -> EpochLoader | list[Any]:
        if dataset is None:
            return []
        return dataset.loader(sampler=dataset.sampler(shuffle=False), **self._options)
