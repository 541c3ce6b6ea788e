"""What a store is made from and how: the files of one scan, the recipe, and the name that follows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field

from verse_data.errors import UsageError
from verse_data.files import sha256_of_json
from verse_data.records.base import Record
from verse_data.records.manifest import STORE_FORMAT
from verse_data.records.source_file import SourceFile
from verse_data.spine.levels import LEVEL_OF_LABEL

RECIPE_VERSION: Final = 1
"""Raised when the same recipe would give other voxels: old stores are then never served."""

SMALLEST_MM: Final = 0.1
LARGEST_MM: Final = 20.0
Millimetres = Annotated[float, Field(ge=SMALLEST_MM, le=LARGEST_MM)]


class Recipe(Record):
    """How a scan is converted. The default keeps the scan's own grid.

    Attributes
    ----------
    spacing : (float, float, float) or None
        Voxel size in mm along the patient's right-left, posterior-anterior and inferior-superior
        axis; None keeps what the scan has.
    interpolation : {"linear", "cubic"}
        For the image, if it is resampled; labels always take the nearest voxel.
    codec : {"lz4", "zstd", "none"}
        ``lz4`` is the default; ``zstd`` is a little smaller and slower, ``none`` the fastest to
        read and 2 to 3 times as large.
    """

    spacing: Annotated[
        tuple[Millimetres, Millimetres, Millimetres] | None,
        Field(json_schema_extra={"unit": "mm"}),
    ] = None
    interpolation: Literal["linear", "cubic"] = "linear"
    codec: Literal["lz4", "zstd", "none"] = "lz4"


@dataclass(frozen=True, kw_only=True)
class StoreKeys:
    """What the store of one scan follows from, beside the recipe: a lock and a licence say it all.

    Attributes
    ----------
    scan_id : str
        Whose volumes they are, such as ``"verse004"``.
    image : str
        git-annex key of the CT.
    mask, centroids : str or None
        Keys of the vertebra mask and of the centroid file; None where the lock lists none.
    licence : str
        Of the data, as an SPDX id such as ``"CC-BY-SA-4.0"``.
    """

    scan_id: str
    image: str
    mask: str | None = None
    centroids: str | None = None
    licence: str


def fingerprint(keys: StoreKeys, recipe: Recipe) -> str:
    """Return the SHA-256 (hex) that names the store of `keys` under `recipe`.

    No file is needed for it, so that a store is found where its sources are not. Every byte of a
    store follows from these and from the versions of recipe and layout, hence nothing else may be
    written into one: no subject, no text of attribution, no time and no path.
    """
    made_of = {
        "store_format": STORE_FORMAT,
        "recipe_version": RECIPE_VERSION,
        "recipe": recipe.model_dump(mode="json"),
    }
    return sha256_of_json(made_of | vars(keys))


@dataclass(frozen=True)
class CentroidPoint:
    """Centre of one vertebral body: label and voxel index in the source grid."""

    label: int
    ijk: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class ScanSource:
    """One CT series on its way into a store: its files by content, and their licence."""

    scan_id: str
    image: SourceFile
    mask: SourceFile | None = None
    centroids: tuple[CentroidPoint, ...] = ()
    centroids_key: str | None = None
    """Key of the centroid file, also if no point of it is taken; points need one."""
    centroids_axes: str | None = None
    """Axis codes of the grid that centroids are indices of; None means those of the CT.

    They are left out of a store whose CT has others.
    """
    licence: str = "unknown"

    def __post_init__(self) -> None:
        """Refuse names that could leave their folder, and points of no level or no place."""
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.scan_id):
            raise UsageError(f"{self.scan_id!r} is no scan id: use letters, digits, '_' and '-'.")
        labels = [point.label for point in self.centroids]
        places = [value for point in self.centroids for value in point.ijk]
        levels = len(LEVEL_OF_LABEL.keys() & set(labels)) == len(labels)
        if not levels or not all(map(math.isfinite, places)):
            raise UsageError(
                f"{self.scan_id}: its centroids, of labels {labels}, must be finite points of "
                f"different vertebral levels."
            )
        if labels and self.centroids_key is None:
            raise UsageError(
                f"{self.scan_id}: the key of the centroid file names the store. Give centroids_key."
            )

    @property
    def keys(self) -> StoreKeys:
        """What the name of the store follows from."""
        return StoreKeys(
            scan_id=self.scan_id,
            image=self.image.key,
            mask=self.mask.key if self.mask else None,
            centroids=self.centroids_key,
            licence=self.licence,
        )

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Run a block that reads and hashes the volumes; see :meth:`SourceFile.checked`."""
        with ExitStack() as files:
            for file in filter(None, (self.image, self.mask)):
                files.enter_context(file.checked())
            yield
