"""What exports of metadata say of files alike: media types, addresses of licences and DOIs."""

from __future__ import annotations

from typing import Final

_TYPES: Final = {
    ".nii.gz": "application/gzip",
    ".nii": "application/octet-stream",
    ".json": "application/json",
    ".png": "image/png",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".csv": "text/csv",
    ".txt": "text/plain",
    ".md": "text/markdown",
}


def media_type(path: str) -> str:
    """Return the media type of a file by its name."""
    fits = (kind for ending, kind in _TYPES.items() if path.lower().endswith(ending))
    return next(fits, "application/octet-stream")


def licence_url(licence: str) -> str:
    """Return the address of a licence that is named by its SPDX identifier."""
    return f"https://spdx.org/licenses/{licence}"


def doi_url(doi: str) -> str:
    """Return the address of a DOI."""
    return f"https://doi.org/{doi}"
