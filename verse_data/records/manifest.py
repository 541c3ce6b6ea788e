"""The manifest of a Zarr store: digest of every file, checksum of every chunk."""

from __future__ import annotations

import base64
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from verse_data.errors import StoreCorrupt
from verse_data.files import canonical_json, sha256_of_json
from verse_data.records.base import Record, rule_of

MANIFEST_SCHEMA: Final = "2.0.0"
# Version of the on-disk layout. Part of every fingerprint: another layout is another store.
STORE_FORMAT: Final = 2
# What to type when a store is damaged: it is derived, so nothing is lost.
REPAIR: Final = (
    "Remove the store with `verse-data cache verify --repair` (and --root, as for the call that "
    "met it); it is built again when next used."
)

Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SafeId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Extent = Annotated[int, Field(ge=1, le=32767)]


class StoredKey(Record):
    """One file of the store.

    Attributes
    ----------
    size : int
        Bytes.
    sha256 : str
        Lower-case hex digest.
    """

    size: Annotated[int, Field(ge=0, json_schema_extra={"unit": "byte"})]
    sha256: Hex64


class StoredArray(Record):
    """Shape, chunking and the checksum of every inner chunk of one array.

    Attributes
    ----------
    shape : (int, int, int)
        Voxels along z, y, x.
    chunk : (int, int, int)
        Voxels of an inner chunk along z, y, x. Chunks at the border are stored whole.
    dtype : {"int16", "uint8"}
        Little-endian.
    codec : {"lz4", "zstd", "none"}
        What the bytes of a chunk pass through, before the CRC-32C that ends them.
    shard : str
        Key of the one shard.
    crc32c : str
        Base64 of little-endian uint32: per inner chunk, in C order of the chunk grid, the CRC-32C
        of its encoded bytes (without the four trailing bytes, which hold the same number).
    constant : str
        Base64 of `dtype`, little-endian: per inner chunk the one value that fills it, or the
        array's fill value (image -32768, label 255, which occur in no voxel) if it has several.
    """

    shape: Annotated[tuple[Extent, Extent, Extent], Field(json_schema_extra={"unit": "voxel"})]
    chunk: Annotated[tuple[Extent, Extent, Extent], Field(json_schema_extra={"unit": "voxel"})]
    dtype: Literal["int16", "uint8"]
    codec: Literal["lz4", "zstd", "none"]
    shard: str
    crc32c: str
    constant: str

    @property
    def grid(self) -> tuple[int, int, int]:
        """Number of inner chunks along z, y, x."""
        z, y, x = (-(-n // c) for n, c in zip(self.shape, self.chunk, strict=True))
        return (z, y, x)

    @model_validator(mode="after")
    def _one_entry_per_chunk(self) -> Self:
        z, y, x = self.grid
        width = {"int16": 2, "uint8": 1}[self.dtype]
        for name, text, size in (("crc32c", self.crc32c, 4), ("constant", self.constant, width)):
            if len(base64.b64decode(text, validate=True)) != z * y * x * size:
                raise ValueError(f"{name} does not hold one entry for each of {z * y * x} chunks")
        return self


class StoreManifest(Record):
    """Everything that a store consists of.

    Attributes
    ----------
    schema_version : str
        Version of this model.
    store_format : int
        Version of the on-disk layout.
    fingerprint : str
        Name of the store: SHA-256 over the keys of its sources, recipe and layout.
    scan_id : str
        Whose volume it is.
    arrays : dict
        ``"image"`` and, where there is a mask, ``"label"``.
    keys : dict
        Every file of the store but the manifest itself: path below the store, size and digest.
    root : str
        SHA-256 of the canonical JSON of all the other fields.
    """

    schema_version: Literal["2.0.0"] = MANIFEST_SCHEMA
    store_format: Literal[2] = STORE_FORMAT
    fingerprint: Hex64
    scan_id: SafeId
    arrays: dict[Literal["image", "label"], StoredArray]
    keys: dict[str, StoredKey]
    root: Hex64

    @field_validator("keys")
    @classmethod
    def _keys_stay_inside(cls, keys: dict[str, StoredKey]) -> dict[str, StoredKey]:
        for key in keys:
            inside = all(part and part not in {".", ".."} for part in key.split("/"))
            if not (inside and key.isprintable()):
                raise ValueError(f"{key!r} is not a key of a store")
        return keys

    @model_validator(mode="after")
    def _complete(self) -> Self:
        files = {key for name, a in self.arrays.items() for key in (f"{name}/zarr.json", a.shard)}
        if "image" not in self.arrays or not {"zarr.json", *files} <= self.keys.keys():
            raise ValueError("an array or one of its files is not listed")
        return self

    @classmethod
    def seal(
        cls,
        *,
        fingerprint: str,
        scan_id: str,
        arrays: dict[Literal["image", "label"], StoredArray],
        keys: dict[str, StoredKey],
    ) -> Self:
        """Return the manifest of these parts, with its root digest."""
        parts = cls(
            fingerprint=fingerprint, scan_id=scan_id, arrays=arrays, keys=keys, root="0" * 64
        )
        return parts.model_copy(update={"root": parts.expected_root()})

    def expected_root(self) -> str:
        """Return the root digest that these fields should have."""
        return sha256_of_json(self.model_dump(mode="json", exclude={"root"}))

    def to_bytes(self) -> bytes:
        """Return the manifest as it is stored: canonical JSON."""
        return canonical_json(self.model_dump(mode="json"))

    @classmethod
    def parse(cls, content: bytes, *, where: str, remedy: str = REPAIR) -> Self:
        """Read a manifest and check its root digest; `where` names it in messages."""
        try:
            manifest = cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "the whole file"
            raise StoreCorrupt(
                f"{where}: the manifest of this store is damaged or of another layout "
                f"({place}: {rule_of(first)}; {len(content)} bytes). {remedy}"
            ) from None
        if manifest.to_bytes() != content or manifest.expected_root() != manifest.root:
            raise StoreCorrupt(
                f"{where}: the manifest of this store does not have its root digest "
                f"{manifest.root[:12]}: bytes of it were changed. {remedy}"
            )
        return manifest
