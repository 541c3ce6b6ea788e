"""Findings: what a reader of the tables should know, kept and listed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Final, Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One disagreement or oddity that a reader of the tables should know, with its place.

    Attributes
    ----------
    rule : str
        Short name of the kind, such as ``"bmd-zero"``.
    message : str
        What was seen.
    severity : str
        ``"error"`` where a file cannot be read, ``"warning"`` where data disagree or are missing,
        ``"note"`` where they are merely odd.
    scan_id, subject_id, level : str
        What it is about; empty where it is about more.
    file, place : str
        Path in the release, and the place in the file.
    """

    rule: str
    message: str
    severity: Severity = "warning"
    scan_id: str = ""
    subject_id: str = ""
    level: str = ""
    file: str = ""
    place: str = ""


FINDING_COLUMNS: Final = tuple(field.name for field in fields(Finding))


def as_rows(findings: Iterable[Finding]) -> list[dict[str, str]]:
    """Return findings as plain rows, each once, in the order of scan, then as found."""
    unique = dict.fromkeys(findings)
    rows = [{name: getattr(finding, name) for name in FINDING_COLUMNS} for finding in unique]
    return sorted(rows, key=lambda row: (row["scan_id"] == "", row["scan_id"]))
