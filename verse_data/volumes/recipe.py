"""What is done to a volume on its way into a store, and the name that follows from it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from verse_data.digests import sha256_of_json
from verse_data.records.base import Record
from verse_data.records.manifest import STORE_FORMAT
from verse_data.volumes.source import ScanSource

RECIPE_VERSION: Final = 1
"""Raised when the same recipe would give other voxels: old stores are then never served."""

Millimetres = Annotated[float, Field(ge=0.1, le=20.0)]


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


def fingerprint(source: ScanSource, recipe: Recipe) -> str:
    """Return the SHA-256 (hex) that names the store of `source` under `recipe`.

    It covers everything that the store's bytes follow from: contents by key, ids, centroids and
    attribution, recipe, and the versions of recipe and layout. Times and paths are not part of it.
    """
    return sha256_of_json(
        {
            "store_format": STORE_FORMAT,
            "recipe_version": RECIPE_VERSION,
            "recipe": recipe.model_dump(mode="json"),
            "scan_id": source.scan_id,
            "subject_id": source.subject_id,
            "image": source.image.key,
            "mask": source.mask.key if source.mask else None,
            "centroids": [[point.label, *point.ijk] for point in source.centroids],
            "centroids_key": source.centroids_key,
            "attribution": dict(source.attribution),
        }
    )
