"""VerSe'19 vertebra CT: versioned by DataLad, validated by Pydantic, cached as Zarr, served to torch.

The public names are resolved on first use (PEP 562), so that ``import verse_data`` loads none
of torch, zarr, xarray, nibabel, datalad and pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verse_data import errors, export, metrics, phantom, predictions
    from verse_data.api import (
        TrustOnFirstUse,
        VerSeDataset,
        cite,
        describe_release,
        explore,
        list_releases,
        load_split,
        load_table,
        lock_sibling,
        lock_tree,
        open_release,
        open_releases,
        save_explorer,
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
    "explore",
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
    "save_explorer",
]
_MODULE_OF_NAME = {
    "IncompleteTable": "errors",
    "Release": "release",
    "UnitedReleases": "united",
    "VerseDataError": "errors",
    "__version__": "config",
}
"""Module of each public name that is not in ``api``."""

if not TYPE_CHECKING:  # a type checker would take any name for one of the package

    def __getattr__(name: str) -> Any:
        """Import the module that holds `name`, once, when it is first asked for."""
        if name in {"errors", "export", "metrics", "phantom", "predictions"}:
            return importlib.import_module(f"verse_data.{name}")
        if name not in __all__:
            raise AttributeError(f"module 'verse_data' has no attribute {name!r}")
        module = importlib.import_module(f"verse_data.{_MODULE_OF_NAME.get(name, 'api')}")
        value = globals()[name] = getattr(module, name)
        return value


def __dir__() -> list[str]:
    """List the public names for completion."""
    return sorted(__all__)
