"""How a dataset says what it is: fingerprint, provenance, counts, ``repr`` and notebook table."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from verse_data.digests import sha256_of_json
from verse_data.training.scans import ScanColumns

if TYPE_CHECKING:
    import pandas as pd

_GIVEN = ("release", "version", "licence")
_SHOWN_HEX = 12


class Described(ABC):
    """The part of a dataset that tells of it."""

    unit: str
    scans: ScanColumns
    _given: str

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples of an epoch."""

    @property
    @abstractmethod
    def excluded(self) -> pd.DataFrame:
        """What was asked for and is not served, a row each, with its ``reason``."""

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]:
        """What, beside the scans, decides the samples; plain JSON."""

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


def facts(dataset: Described) -> list[tuple[str, str]]:
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


def describe(dataset: Described) -> str:
    """Return the text of ``repr``."""
    lines = [f"  {key:<12}{value}" for key, value in facts(dataset)]
    return "\n".join([type(dataset).__name__, *lines])


def describe_html(dataset: Described) -> str:
    """Return the table that notebooks show; everything in it is escaped."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(key)}</th>"
        f"<td style='text-align:left'>{escape(value)}</td></tr>"
        for key, value in facts(dataset)
    )
    return f"<table><caption>{escape(type(dataset).__name__)}</caption>{rows}</table>"
