"""The inputs of a store: the files of one scan and the recipe, and the fingerprint of both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field

from verse_data.errors import UsageError
from verse_data.files import sha256_of_json
from verse_data.records.base import Record
from verse_data.records.manifest import STORE_FORMAT
from verse_data.records.names import is_scan_id
from verse_data.records.source_file import SourceFile

if TYPE_CHECKING:
    from verse_data.records.centroids import CentroidFile  # brings NumPy along

RECIPE_VERSION: Final = 1
"""Increased when the same recipe would make other voxels: old stores are then not used any more."""

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
        tuple[Millimetres, Millimetres, Millimetres] | None, Field(json_schema_extra={"unit": "mm"})
    ] = None
    interpolation: Literal["linear", "cubic"] = "linear"
    codec: Literal["lz4", "zstd", "none"] = "lz4"


@dataclass(frozen=True, kw_only=True)
class StoreKeys:
    """Everything that the store of one scan depends on, beside the recipe; from lock and licence.

    Attributes
    ----------
    scan_id : str
        The scan, such as ``"verse004"``.
    image : str
        git-annex key of the CT.
    mask, centroids : str or None
        Keys of the vertebra mask and of the centroid file; None where the lock lists none.
    licence : str
        Licence of the data, as an SPDX id such as ``"CC-BY-SA-4.0"``.
    """

    scan_id: str
    image: str
    mask: str | None = None
    centroids: str | None = None
    licence: str


def fingerprint(keys: StoreKeys, recipe: Recipe) -> str:
    """Return the SHA-256 (hex) that names the store of `keys` under `recipe`.

    It needs no file, so that a store is found on machines without its sources. Every byte of a
    store depends only on these and on the versions of recipe and layout, hence nothing else may be
    written into one: no subject, no attribution, no time and no path.
    """
    document = {
        "store_format": STORE_FORMAT,
        "recipe_version": RECIPE_VERSION,
        "recipe": recipe.model_dump(mode="json"),
    }
    return sha256_of_json(document | vars(keys))


@dataclass(frozen=True, kw_only=True)
class ScanSource:
    """The source of one store: the files of a CT series, pinned by key, and their licence."""

    scan_id: str
    image: SourceFile
    mask: SourceFile | None = None
    centroids: CentroidFile | None = None
    """Its points are left out of a store of another grid than theirs."""
    centroids_key: str | None = None
    """Key of the centroid file, also if none of its points is used."""
    licence: str = "unknown"

    def __post_init__(self) -> None:
        """Refuse ids that are unsafe in a path, and points without a key."""
        if not is_scan_id(self.scan_id):
            raise UsageError(
                f"{self.scan_id!r} is not a scan id: use 64 letters, digits, '_' and '-' at most."
            )
        if self.centroids and self.centroids_key is None:
            raise UsageError(
                f"{self.scan_id}: the key of the centroid file names the store. Give centroids_key."
            )

    @property
    def keys(self) -> StoreKeys:
        """The keys that the fingerprint is made from."""
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
