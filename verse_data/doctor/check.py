"""One line of the report, and how it says sizes.

A warning is something that works worse, or one part that does not work. A problem makes the package
unusable, and has the exit code of the error that everything else would end in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

State = Literal["ok", "warning", "problem"]

GB: Final = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the report.

    Attributes
    ----------
    name : str
        What was looked at.
    state : {"ok", "warning", "problem"}
    fact : str
        What was found.
    remedy : str
        What to do or type next; empty where all is well.
    exit_code : int
        Of a problem, that of its error class in :mod:`verse_data.errors`; else 0.
    """

    name: str
    state: State
    fact: str
    remedy: str = ""
    exit_code: int = 0


def size(count: float) -> str:
    """Return bytes as a person reads them."""
    for unit, scale in (("GB", GB), ("MB", GB // 1000)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count:,.0f} bytes"
