"""The release in other people's formats; each function writes one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verse_data import lazy

if TYPE_CHECKING:
    from verse_data.export.bids_folder import bids
    from verse_data.export.datalist import monai
    from verse_data.export.hf_folder import hf
    from verse_data.export.nnunet_raw import nnunet

__all__ = ["bids", "hf", "monai", "nnunet"]

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__, __dir__ = lazy.attach(
        __name__,
        {"bids": "bids_folder", "hf": "hf_folder", "monai": "datalist", "nnunet": "nnunet_raw"},
    )
