"""VerSe'19 vertebra CT: versioned by DataLad, validated by Pydantic, cached as Zarr, served to torch.

The public names are resolved on first use (PEP 562), so that ``import verse_data`` loads none
of torch, zarr, xarray, nibabel, datalad and pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verse_data import errors, phantom
    from verse_data.api import (
        TrustOnFirstUse,
        VerSeDataset,
        cite,
        list_releases,
        load_split,
        load_table,
        lock_sibling,
        lock_tree,
        open_release,
    )
    from verse_data.errors import IncompleteTable, VerseDataError
    from verse_data.release import Release

__version__ = "0.1.0"

_HOME_OF_NAME = {
    "IncompleteTable": "verse_data.errors",
    "TrustOnFirstUse": "verse_data.api",
    "cite": "verse_data.api",
    "list_releases": "verse_data.api",
    "load_split": "verse_data.api",
    "load_table": "verse_data.api",
    "lock_sibling": "verse_data.api",
    "lock_tree": "verse_data.api",
    "open_release": "verse_data.api",
    "Release": "verse_data.release",
    "VerSeDataset": "verse_data.api",
    "VerseDataError": "verse_data.errors",
}
_SUBMODULES = {"errors", "phantom"}

__all__ = [
    "IncompleteTable",
    "Release",
    "TrustOnFirstUse",
    "VerSeDataset",
    "VerseDataError",
    "__version__",
    "cite",
    "errors",
    "list_releases",
    "load_split",
    "load_table",
    "lock_sibling",
    "lock_tree",
    "open_release",
    "phantom",
]


def __getattr__(name: str) -> Any:
    """Import the module that holds `name`, once, when it is first asked for."""
    if name in _SUBMODULES:
        return importlib.import_module(f"verse_data.{name}")
    if name in _HOME_OF_NAME:
        value = getattr(importlib.import_module(_HOME_OF_NAME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'verse_data' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names for completion."""
    return sorted(__all__)
