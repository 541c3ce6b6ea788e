"""Provenance as RO-Crate 1.1 (https://w3id.org/ro/crate/1.1): ``ro-crate-metadata.json``."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from verse_data.records.provenance import FileProvenance, Provenance

FILE_NAME: Final = "ro-crate-metadata.json"
_PROFILE: Final = "https://w3id.org/ro/crate/1.1"
_SOFTWARE: Final = "#verse-data"
_NO_LICENCE: Final = "No licence is stated. Ask those who hold the data before you use them."
_TERM: Final = "https://w3id.org/ro/terms/workflow-run#sha256"
_MEDIA_TYPES: Final = {
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
    """Return the media type for a file name."""
    fits = (kind for ending, kind in _MEDIA_TYPES.items() if path.lower().endswith(ending))
    return next(fits, "application/octet-stream")


def licence_url(licence: str) -> str:
    """Return the address of a licence by its SPDX identifier."""
    return f"https://spdx.org/licenses/{licence}"


def doi_url(doi: str) -> str:
    """Return the address of a DOI."""
    return f"https://doi.org/{doi}"


def to_rocrate(provenance: Provenance, *, date: str) -> dict[str, Any]:
    """Return the metadata of a crate whose root is the DataLad dataset, of a version of an ISO `date`."""
    licence, doi = provenance.licence, provenance.doi
    files = [file for file in provenance.files if file.path != FILE_NAME]  # an earlier crate
    name = f"{provenance.release} {provenance.version}"
    identifiers = [provenance.lock, f"git:{provenance.commit}", provenance.dataset_id]
    root = {
        "name": name,
        "description": provenance.title,
        "datePublished": date,
        "version": provenance.version,
        "identifier": [*identifiers, *([doi_url(doi)] if doi else [])],
        "hasPart": [{"@id": quote(file.path)} for file in files],
        "citation": [{"@id": doi_url(citation.doi)} for citation in provenance.citations],
        "creditText": provenance.attribution,
        "license": {"@id": licence_url(licence)} if licence else _NO_LICENCE,
    }
    published = {
        "name": f"{name}: publish the lock as a version",
        "instrument": {"@id": _SOFTWARE},
        "result": {"@id": "./"},
    }
    described = {"about": {"@id": "./"}, "conformsTo": {"@id": _PROFILE}}
    entities: list[tuple[str, str, dict[str, Any]]] = [
        (FILE_NAME, "CreativeWork", described),
        ("./", "Dataset", root),
    ]
    if licence:
        named = {"name": licence, "identifier": licence}
        entities.append((licence_url(licence), "CreativeWork", named))
    for cited in provenance.citations:
        article = {"name": cited.text, "identifier": cited.doi}
        entities.append((doi_url(cited.doi), "ScholarlyArticle", article))
    software = {"name": "verse-data", "version": provenance.packages["verse-data"]}
    entities += [
        (_SOFTWARE, "SoftwareApplication", software),
        ("#published", "CreateAction", published),
        *((quote(file.path), "File", _file(file)) for file in files),
    ]
    graph = [
        {"@id": key, "@type": kind, **{name: value for name, value in facts.items() if value}}
        for key, kind, facts in entities
    ]
    return {"@context": [f"{_PROFILE}/context", {"sha256": _TERM}], "@graph": graph}


def _file(file: FileProvenance) -> dict[str, Any]:
    return {
        "name": file.path.rpartition("/")[2],
        "contentSize": str(file.size),
        "encodingFormat": media_type(file.path),
        "sha256": file.sha256,
        "identifier": file.key,
        "url": list(file.urls),
    }
