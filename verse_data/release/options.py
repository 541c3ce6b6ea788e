"""The options of `load_split`, unit by unit, so that editors and type checkers know them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, Literal, TypedDict

from verse_data.errors import UsageError, did_you_mean, warn
from verse_data.progress import Progress


class CommonOptions(TypedDict, total=False):
    """Options of every unit; see :class:`verse_data.training.base.ServedDataset`."""

    orientation: str
    spacing: float | Sequence[float] | None
    interpolation: Literal["linear", "cubic"]
    codec: Literal["lz4", "zstd", "none"]
    transform: Callable[[Any], Any] | None
    seed: int
    image_dtype: Literal["float32", "int16"]
    workers: int | None
    progress: Progress | None


class ScanOptions(CommonOptions, total=False):
    """Options of ``unit="scan"``; see :class:`verse_data.training.ScanDataset`."""

    label: bool


class PatchOptions(CommonOptions, total=False):
    """Options of ``unit="patch"``; see :class:`verse_data.training.PatchDataset`."""

    label: bool
    patch_size: int | Sequence[int]
    sampling: Literal["uniform", "foreground", "level", "grade"]
    weights: Mapping[Any, float] | None
    patches_per_scan: int
    patches_per_epoch: int | None


class VertebraOptions(CommonOptions, total=False):
    """Options of ``unit="vertebra"``; see :class:`verse_data.training.VertebraDataset`."""

    around: Literal["centroid", "mask"]
    crop_size_mm: float | Sequence[float]
    margin_mm: float
    voxel_mm: float | Sequence[float] | None
    axes: Literal["scan", "spine"]
    label_mode: Literal["vertebra", "all", "binary", "none"]
    fracture_threshold: int
    include: Sequence[str]


_OF_UNIT: Final = {"scan": ScanOptions, "patch": PatchOptions, "vertebra": VertebraOptions}
_PREPARING: Final = {"spacing", "interpolation", "codec", "workers", "progress"}


def split_options(unit: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options that say how scans are fetched and converted, and the dataset's own.

    Raises
    ------
    UsageError
        If there is no such unit, or it has no such option.
    """
    if not isinstance(unit, str) or unit not in _OF_UNIT:
        guess = did_you_mean(unit, _OF_UNIT)
        raise UsageError(f"unit={unit!r} is not served; units are {', '.join(_OF_UNIT)}.{guess}")
    options = dict(options)
    notice_engine(options.pop("engine", None))
    known = sorted(_OF_UNIT[unit].__annotations__)
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            guess = f" Did you mean {near[0]!r}?" if near else ""
            raise UsageError(
                f"unit={unit!r} has no option {name!r}.{guess} Its options are {', '.join(known)}."
            )
    preparing = {name: value for name, value in options.items() if name in _PREPARING}
    return preparing, {n: value for n, value in options.items() if n not in _PREPARING}


def notice_engine(engine: object) -> None:
    """Warn where somebody still chooses what fetches: there is one way now."""
    if engine is not None:
        warn(
            FutureWarning(
                f"engine={engine!r} has no effect: contents come over HTTP, and from siblings in folders "
                f"of this machine. Leave it out; a later version will refuse it."
            )
        )


class Needs(TypedDict):
    """What a dataset needs beside the stores of its scans."""

    with_rows: bool
    graded: bool


def needs(unit: str, own: Mapping[str, Any]) -> Needs:
    """Return whether a dataset with these options needs rows of vertebrae, and their grades."""
    sampling = own.get("sampling")
    return {
        "with_rows": unit == "vertebra" or sampling in ("level", "grade"),
        "graded": unit == "vertebra" or sampling == "grade",
    }
