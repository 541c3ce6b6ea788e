"""Windows of Hounsfield units by name: one table for transforms, stores, pictures and the explorer."""

from __future__ import annotations

from typing import Final

from verse_data.errors import UsageError, did_you_mean

WINDOWS: Final[dict[str, tuple[int, int]]] = {
    "bone": (-500, 1300),
    "soft tissue": (-160, 240),
    "full": (-1024, 3071),
}
"""Lowest and highest HU. Bone and soft tissue are what radiologists set: 1800 wide about 400, and 400
about 40; full is what twelve bits hold."""


def window_range(name: str) -> tuple[int, int]:
    """Return lowest and highest HU of a window."""
    if name not in WINDOWS:
        raise UsageError(
            f"There is no window {name!r}; windows are {', '.join(WINDOWS)}, or two numbers in HU."
            f"{did_you_mean(name, WINDOWS)}"
        )
    return WINDOWS[name]
