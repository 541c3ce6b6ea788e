"""PyTorch datasets over the stores: scans, vertebrae, patches. The only package that imports torch.

Bridges to other packages are modules of their own, loaded when imported:
``verse_data.training.monai``, ``verse_data.training.torchio``, ``verse_data.training.lightning``.
"""

from __future__ import annotations

from verse_data.records.tables import FRACTURE_TYPES
from verse_data.training import transforms
from verse_data.training.base import ScanDataset
from verse_data.training.loader import EpochLoader
from verse_data.training.patch import PatchDataset
from verse_data.training.sampler import BalancedSampler, EpochSampler
from verse_data.training.samples import centroid_voxels, pad_collate
from verse_data.training.scans import LeftOut, ServedScan
from verse_data.training.slice import SpineSliceDataset, VertebraSliceDataset
from verse_data.training.vertebra import VertebraDataset

__all__ = [
    "FRACTURE_TYPES",
    "BalancedSampler",
    "EpochLoader",
    "EpochSampler",
    "LeftOut",
    "PatchDataset",
    "ScanDataset",
    "ServedScan",
    "SpineSliceDataset",
    "VertebraDataset",
    "VertebraSliceDataset",
    "centroid_voxels",
    "pad_collate",
    "transforms",
]
