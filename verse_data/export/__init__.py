"""The release in other people's formats; each function writes one."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verse_data.export.bids_folder import bids
    from verse_data.export.datalist import monai
    from verse_data.export.hf_folder import hf
    from verse_data.export.nnunet_raw import nnunet

__all__ = ["bids", "hf", "monai", "nnunet"]
_MODULE_OF_NAME = {
    "bids": "bids_folder",
    "hf": "hf_folder",
    "monai": "datalist",
    "nnunet": "nnunet_raw",
}

if not TYPE_CHECKING:  # a type checker would take any name for one of the package

    def __getattr__(name: str) -> Any:
        """Import the module that holds the function `name`, once, when it is first asked for."""
        if name not in _MODULE_OF_NAME:
            raise AttributeError(f"module 'verse_data.export' has no attribute {name!r}")
        module = importlib.import_module(f"verse_data.export.{_MODULE_OF_NAME[name]}")
        value = globals()[name] = getattr(module, name)
        return value


def __dir__() -> list[str]:
    """List the public names for completion."""
    return sorted(__all__)
