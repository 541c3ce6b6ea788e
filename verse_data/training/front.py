"""A dataset that stands in front of another, for signatures that users know from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset

from verse_data.training.base import Index, ServedDataset

if TYPE_CHECKING:
    import pandas as pd


class FrontDataset(Dataset[Any]):
    """Hands everything on to the dataset behind it: ``loader``, ``sampler``, ``scans`` and the rest.

    Parameters
    ----------
    served : ServedDataset
        What is behind it; everything it can do is there.
    """

    def __init__(self, served: ServedDataset) -> None:
        self.served = served

    def __len__(self) -> int:
        return len(self.served)

    def __getitem__(self, index: Index) -> Any:
        """Return one sample; see :class:`verse_data.training.base.ServedDataset`."""
        return self.served[index]

    def __getattr__(self, name: str) -> Any:
        # Not for names of Python's own: copying and pickling look for some before `served` is set.
        if name.startswith("_") or name == "served":
            raise AttributeError(name)
        return getattr(self.served, name)

    def __dir__(self) -> list[str]:
        public = (name for name in dir(self.served) if not name.startswith("_"))
        return sorted({*super().__dir__(), *public})

    def set_epoch(self, epoch: int) -> None:
        """Draw for `epoch` from now on.

        Parameters
        ----------
        epoch : int
            From 0 on.
        """
        self.served.set_epoch(epoch)

    @property
    def excluded(self) -> pd.DataFrame:
        """What is not served, a row each, with its ``reason``."""
        return self.served.excluded

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where the samples come from and how they were made."""
        return self.served.provenance

    def __repr__(self) -> str:
        return f"{type(self).__name__} of a {self.served!r}"

    def _repr_html_(self) -> str:
        return self.served._repr_html_()


def behind(dataset: ServedDataset | FrontDataset) -> ServedDataset:
    """Return what `dataset` stands in front of, or itself."""
    return dataset.served if isinstance(dataset, FrontDataset) else dataset
