"""One training dataset out of what one or several releases contribute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from verse_data.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from verse_data.training import (
        LeftOut,
        PatchDataset,
        ScanDataset,
        ServedScan,
        VertebraDataset,
    )
    from verse_data.training.base import ServedDataset


Served = TypeVar("Served", bound="ServedDataset")


@dataclass(frozen=True)
class Contribution:
    """What one release contributes to a dataset.

    Attributes
    ----------
    scans : tuple of ServedScan
        Scans whose stores are ready to be read.
    left_out : tuple of LeftOut
        Scans that were asked for and have no CT.
    vertebrae : DataFrame
        Rows of its vertebrae table that may be served.
    facts : mapping
        Its provenance; at least ``release``, ``version`` and ``licence``.
    """

    scans: tuple[ServedScan, ...]
    left_out: tuple[LeftOut, ...]
    vertebrae: pd.DataFrame
    facts: Mapping[str, Any]


def dataset(
    parts: Sequence[Contribution], *, unit: str, **options: Any
) -> ScanDataset | PatchDataset | VertebraDataset:
    """Serve what the releases contribute; a series that two of them hold comes from the first."""
    import pandas as pd

    scans: dict[str, ServedScan] = {}
    left_out: dict[str, LeftOut] = {}
    source: dict[str, int] = {}
    for number, part in enumerate(parts):
        new = {scan.scan_id: scan for scan in part.scans if scan.scan_id not in scans}
        scans |= new
        source |= dict.fromkeys(new, number)
    for number, part in enumerate(parts):
        # What another release can serve is not left out; what none can is, once.
        lost = {scan.scan_id: scan for scan in part.left_out if scan.scan_id not in source}
        left_out |= lost
        source |= dict.fromkeys(lost, number)
    rows = [
        part.vertebrae[part.vertebrae["scan_id"].map(source).eq(number)]
        for number, part in enumerate(parts)
    ]
    vertebrae = rows[0] if len(rows) == 1 else pd.concat(rows, ignore_index=True)
    common = {
        "provenance": _provenance([part.facts for part in parts]),
        "left_out": list(left_out.values()),
        **options,
    }
    return _refuse_empty(_made(unit, list(scans.values()), vertebrae, common))


def _made(
    unit: str, scans: list[ServedScan], vertebrae: pd.DataFrame, options: Mapping[str, Any]
) -> ScanDataset | PatchDataset | VertebraDataset:
    from verse_data import training

    if unit == "scan":
        return training.ScanDataset(scans, **options)
    if unit == "patch":
        return training.PatchDataset(scans, vertebrae=vertebrae, **options)
    return training.VertebraDataset(scans, vertebrae, **options)


def check_options(unit: str, options: Mapping[str, Any]) -> None:
    """Raise `UsageError` for an option that a unit refuses, before anything is fetched for it."""
    from verse_data.tables.columns import to_frame

    if not isinstance(options.get("orientation", "RAS"), str):
        raise UsageError(
            f"orientation={options['orientation']!r}: give axis codes such as 'RAS' or 'PIR'."
        )
    # Whether the weights of a class fit is a question to the data.
    by_class = options.get("sampling") in ("level", "grade")
    alone = {name: value for name, value in options.items() if name != "weights" or not by_class}
    _made(unit, [], to_frame("vertebrae", []), alone)


def _refuse_empty(made: Served) -> Served:
    """Raise `UsageError` instead of a dataset that would train on nothing without a word."""
    if len(made):
        return made
    counts = made.excluded["reason"].value_counts()
    left_out = ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "nothing"
    raise UsageError(
        f"There is nothing to serve: no {made.unit} was asked for that could be. Left out: {left_out}. "
        f"Look at the split and at where=."
    )


def _provenance(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def joined(name: str) -> str:
        return " + ".join(dict.fromkeys(str(fact[name]) for fact in facts))

    return {
        "release": " + ".join(str(fact["release"]) for fact in facts),
        "version": " + ".join(str(fact["version"]) for fact in facts),
        "licence": joined("licence"),
        "releases": [dict(fact) for fact in facts],
    }
