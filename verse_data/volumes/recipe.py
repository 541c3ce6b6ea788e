"""What is done to a volume on its way into a store, and the name that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field

from verse_data.digests import sha256_of_json
from verse_data.records.base import Record
from verse_data.records.manifest import STORE_FORMAT

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
    return sha256_of_json(
        {
            "store_format": STORE_FORMAT,
            "recipe_version": RECIPE_VERSION,
            "recipe": recipe.model_dump(mode="json"),
            "scan_id": keys.scan_id,
            "image": keys.image,
            "mask": keys.mask,
            "centroids": keys.centroids,
            "licence": keys.licence,
        }
    )
