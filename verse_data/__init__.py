"""VerSe'19 vertebra CT: versioned by DataLad, validated by Pydantic, cached as Zarr, served to torch.

The public names are resolved on first use (PEP 562), so that ``import verse_data`` loads none
of torch, zarr, xarray, nibabel, datalad and pandas.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from verse_data import lazy

if sys.platform == "win32":
    message = (
        "verse-data needs the file locks and links of Linux or macOS; on Windows, install it in the "
        "Windows Subsystem for Linux: https://learn.microsoft.com/windows/wsl/install"
    )
    raise ImportError(message)

if TYPE_CHECKING:
    from verse_data import errors, export, metrics, phantom, predictions
    from verse_data.api import (
        TrustOnFirstUse,
        VerSeDataset,
        cite,
        describe_release,
        list_releases,
        load_split,
        load_table,
        lock_sibling,
        lock_tree,
        open_release,
        open_releases,
    )
    from verse_data.config import __version__
    from verse_data.errors import IncompleteTable, VerseDataError
    from verse_data.release import Release
    from verse_data.united import UnitedReleases

__all__ = [
    "IncompleteTable",
    "Release",
    "TrustOnFirstUse",
    "UnitedReleases",
    "VerSeDataset",
    "VerseDataError",
    "__version__",
    "cite",
    "describe_release",
    "errors",
    "export",
    "list_releases",
    "load_split",
    "load_table",
    "lock_sibling",
    "lock_tree",
    "metrics",
    "open_release",
    "open_releases",
    "phantom",
    "predictions",
]
_MODULE_OF_NAME = {
    **{name: name for name in ("errors", "export", "metrics", "phantom", "predictions")},
    "IncompleteTable": "errors",
    "Release": "release",
    "UnitedReleases": "united",
    "VerseDataError": "errors",
    "__version__": "config",
}
"""Module of each public name that is not in ``api``."""

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__, __dir__ = lazy.attach(__name__, dict.fromkeys(__all__, "api") | _MODULE_OF_NAME)
