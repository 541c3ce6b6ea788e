"""Ways to read a patch of image and mask from disk: this package's, and its peers'.

Each prepares its files once from a made-up scan and reads a box as two contiguous torch tensors.
Peers are used as they ship where that is possible: nnU-Net's own class writes and opens its files.
A peer that is not installed is left out, and the benchmark says so.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from made_up_ct import MadeUpScan

from verse_data.files import digest_file
from verse_data.records.source_file import SourceFile
from verse_data.spine.geometry import Box
from verse_data.volumes.nifti import write_nifti
from verse_data.volumes.reader import ScanReader
from verse_data.volumes.recipe import Recipe, ScanSource
from verse_data.volumes.store import ensure_store

Tensors = tuple[torch.Tensor, torch.Tensor]
AFFINE = np.diag([0.8, 0.8, 0.9, 1.0])
PATCH = (96, 96, 96)


def slices(box: Box) -> tuple[slice, slice, slice]:
    """Return `box` as slices along x, y, z."""
    x, y, z = (slice(a, b) for a, b in zip(box.start, box.stop, strict=True))
    return x, y, z


@dataclass
class Way:
    """One way to read patches.

    Attributes
    ----------
    name : str
        For the table.
    files : str
        Folder of its files below a scan's; ways with the same files share them.
    prepare : callable
        Writes the files of one scan into a folder, once.
    open : callable
        Opens a scan's files, given the folder.
    read : callable
        Reads a box from what `open` returned.
    needs : tuple of str
        Modules without which it is left out.
    keeps : bool
        Whether the opened files are kept between reads. If not, opening is a part of each read.
    """

    name: str
    files: str
    prepare: Callable[[MadeUpScan, Path], None]
    open: Callable[[Path], Any]
    read: Callable[[Any, Box], Tensors]
    needs: tuple[str, ...] = ()
    keeps: bool = True

    @property
    def missing(self) -> str | None:
        """Name of the first module that is not installed, if any."""
        for module in self.needs:
            try:
                importlib.import_module(module)
            except ImportError:
                return module
        return None


def _tensors(image: Any, label: Any) -> Tensors:
    return (
        torch.from_numpy(np.ascontiguousarray(image)),
        torch.from_numpy(np.ascontiguousarray(label)),
    )


# ---------------------------------------------------------------------------- memory map


def _write_npy(scan: MadeUpScan, folder: Path) -> None:
    np.save(folder / "image.npy", np.ascontiguousarray(scan.image))
    np.save(folder / "label.npy", np.ascontiguousarray(scan.label))


def _open_npy(folder: Path) -> Any:
    return [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("image", "label")]


def _read_npy(opened: Any, box: Box) -> Tensors:
    where = slices(box)
    return _tensors(opened[0][where], opened[1][where])


# ---------------------------------------------------------------------------- verse-data


def write_source(scan: MadeUpScan, folder: Path) -> None:
    """Write the scan as .nii.gz, from which the stores are built."""
    write_nifti(folder / "ct.nii.gz", scan.image, AFFINE)
    write_nifti(folder / "mask.nii.gz", scan.label, AFFINE)


def source(folder: Path) -> ScanSource:
    """Return the files of :func:`write_source` as the source of a store."""
    return ScanSource(
        scan_id=folder.parent.name,
        image=_source_file(folder / "ct.nii.gz"),
        mask=_source_file(folder / "mask.nii.gz"),
    )


def _source_file(path: Path) -> SourceFile:
    found = digest_file(path)
    return SourceFile(path, f"SHA256E-s{found.size}--{found.sha256}.nii.gz")


def _write_store(codec: Any) -> Callable[[MadeUpScan, Path], None]:
    def write(scan: MadeUpScan, folder: Path) -> None:
        write_source(scan, folder)
        ensure_store(source(folder), Recipe(codec=codec), folder)
        for name in ("ct", "mask"):
            (folder / f"{name}.nii.gz").unlink()

    return write


def store_in(folder: Path) -> Path:
    """Return the one store below `folder`."""
    return next(folder.glob("??/*/zarr.json")).parent


def _open_ours(folder: Path) -> ScanReader:
    return ScanReader(store_in(folder))


def _read_ours(reader: ScanReader, box: Box) -> Tensors:
    image, label = reader.read(box)
    return torch.from_numpy(image), torch.from_numpy(label)


def _read_ours_float(reader: ScanReader, box: Box) -> Tensors:
    image, label = reader.read(box)
    return torch.from_numpy(image).float(), torch.from_numpy(label)


# ---------------------------------------------------------------------------- nnU-Net


def nnunet_arrays(scan: MadeUpScan, *, floats: bool) -> tuple[Any, Any]:
    """Return what nnU-Net's preprocessing hands to its writer: normalised CT, int16 mask."""
    image, label = scan.image.transpose(2, 1, 0)[None], scan.label.transpose(2, 1, 0)[None]
    if not floats:
        return np.ascontiguousarray(image), np.ascontiguousarray(label)
    foreground = image[label > 0]
    low, high = np.percentile(foreground, [0.5, 99.5])
    clipped = np.clip(image.astype(np.float32), low, high)
    clipped -= foreground.mean()
    clipped /= foreground.std()
    return clipped.astype(np.float32), label.astype(np.int16)


def _write_nnunet(*, floats: bool) -> Callable[[MadeUpScan, Path], None]:
    def write(scan: MadeUpScan, folder: Path) -> None:
        from nnunetv2.training.dataloading.nnunet_dataset import (
            comp_blosc2_params,
            nnUNetDatasetBlosc2,
        )

        data, mask = nnunet_arrays(scan, floats=floats)
        blocks, chunks = comp_blosc2_params(data.shape, PATCH, data.itemsize)
        mask_blocks, mask_chunks = comp_blosc2_params(mask.shape, PATCH, mask.itemsize)
        nnUNetDatasetBlosc2.save_case(
            data,
            mask,
            {},
            str(folder / "case"),
            chunks=chunks,
            blocks=blocks,
            chunks_seg=mask_chunks,
            blocks_seg=mask_blocks,
        )

    return write


def _write_tuned_blosc2(scan: MadeUpScan, folder: Path) -> None:
    import blosc2

    data, mask = nnunet_arrays(scan, floats=False)
    settings: dict[str, Any] = {"codec": blosc2.Codec.LZ4, "clevel": 5}
    layout = {"chunks": (1, 96, 128, 128), "blocks": (1, 32, 32, 32)}
    bits = settings | {"filters": [blosc2.Filter.BITSHUFFLE]}
    none = settings | {"filters": [blosc2.Filter.NOFILTER]}
    blosc2.asarray(data, urlpath=str(folder / "case.b2nd"), cparams=bits, **layout)
    blosc2.asarray(mask, urlpath=str(folder / "case_seg.b2nd"), cparams=none, **layout)


def _open_nnunet(folder: Path) -> Any:
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    data, mask, _, _ = nnUNetDatasetBlosc2(str(folder), ["case"]).load_case("case")
    return data, mask


def _open_blosc2(folder: Path) -> Any:
    import blosc2

    return [
        blosc2.open(str(folder / name), mode="r", dparams={"nthreads": 1}, mmap_mode="r")
        for name in ("case.b2nd", "case_seg.b2nd")
    ]


def _read_nnunet(opened: Any, box: Box) -> Tensors:
    """Cut a box as nnU-Net's loader does, without its conversion of the mask."""
    from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd

    limits = [[a, b] for a, b in zip(box.start[::-1], box.stop[::-1], strict=True)]
    image = crop_and_pad_nd(opened[0], limits, 0)
    label = crop_and_pad_nd(opened[1], limits, -1, cast_cropped_to=np.int16)
    return torch.from_numpy(image), torch.from_numpy(label)


def _read_blosc2(opened: Any, box: Box) -> Tensors:
    where = (slice(None), *slices(box)[::-1])
    return torch.from_numpy(opened[0][where]), torch.from_numpy(opened[1][where])


# ---------------------------------------------------------------------------- Zarr readers


def _open_tensorstore(folder: Path) -> Any:
    import tensorstore

    context = tensorstore.Context({"data_copy_concurrency": {"limit": 1}})
    return [
        tensorstore.open(
            {"driver": "zarr3", "kvstore": f"file://{store_in(folder)}/{name}/"},
            context=context,
            read=True,
        ).result()
        for name in ("image", "label")
    ]


def _read_tensorstore(opened: Any, box: Box) -> Tensors:
    where = slices(box)[::-1]
    image, label = (array[where].read().result().transpose(2, 1, 0) for array in opened)
    return _tensors(image, label)


def _open_zarr(folder: Path) -> Any:
    import zarr

    group = zarr.open_group(store_in(folder), mode="r", use_consolidated=False)
    return group["image"], group["label"]


def _read_zarr(opened: Any, box: Box) -> Tensors:
    where = slices(box)[::-1]
    image, label = (array[where].transpose(2, 1, 0) for array in opened)
    return _tensors(image, label)


def _open_zarrs(folder: Path) -> Any:
    import zarr

    settings = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": 1}
    with zarr.config.set(settings):
        return _open_zarr(folder)


# ---------------------------------------------------------------------------- NIfTI


def _open_nibabel(folder: Path) -> Any:
    import nibabel as nib

    return nib.load(folder / "ct.nii.gz"), nib.load(folder / "mask.nii.gz")


def _read_nibabel(opened: Any, box: Box) -> Tensors:
    where = slices(box)
    return _tensors(*(np.asarray(image.dataobj)[where] for image in opened))


_NNUNET = ("blosc2", "nnunetv2.training.dataloading.nnunet_dataset")

MEMORY_MAP = "memory map, kept open"
MEMORY_MAP_AGAIN = "memory map, opened at each read"
OURS = "verse-data"
OURS_NONE = "verse-data, codec none"
NNUNET = "nnU-Net, float32, as it ships"
NNUNET_INT16 = "nnU-Net, int16, opened at each read"
BLOSC2 = "blosc2 int16, lz4 + bitshuffle, kept open"

WAYS = {
    way.name: way
    for way in (
        Way(MEMORY_MAP, "npy", _write_npy, _open_npy, _read_npy),
        Way(MEMORY_MAP_AGAIN, "npy", _write_npy, _open_npy, _read_npy, keeps=False),
        Way(OURS, "lz4", _write_store("lz4"), _open_ours, _read_ours),
        Way("verse-data, float32 out", "lz4", _write_store("lz4"), _open_ours, _read_ours_float),
        Way(OURS_NONE, "none", _write_store("none"), _open_ours, _read_ours),
        Way("verse-data, codec zstd", "zstd", _write_store("zstd"), _open_ours, _read_ours),
        Way(NNUNET, "nnunet-f4", _write_nnunet(floats=True), _open_nnunet, _read_nnunet, _NNUNET, keeps=False),
        Way(NNUNET_INT16, "nnunet-i2", _write_nnunet(floats=False), _open_nnunet, _read_nnunet, _NNUNET, keeps=False),
        Way("nnU-Net, int16, kept open", "nnunet-i2", _write_nnunet(floats=False), _open_nnunet, _read_blosc2, _NNUNET),
        Way(BLOSC2, "blosc2-i2", _write_tuned_blosc2, _open_blosc2, _read_blosc2, ("blosc2",)),
        Way("tensorstore, on our store", "lz4", _write_store("lz4"), _open_tensorstore, _read_tensorstore, ("tensorstore",)),
        Way("zarrs, on our store", "lz4", _write_store("lz4"), _open_zarrs, _read_zarr, ("zarrs",)),
        Way("zarr-python, on our store", "lz4", _write_store("lz4"), _open_zarr, _read_zarr),
        Way("nibabel, .nii.gz", "nii", write_source, _open_nibabel, _read_nibabel, keeps=False),
    )
}  # fmt: skip
"""Every way, by name."""
EVERY = {"nibabel, .nii.gz": 50, "zarr-python, on our store": 4, "zarrs, on our store": 2}
"""Slow ways are read only at every so many boxes."""
