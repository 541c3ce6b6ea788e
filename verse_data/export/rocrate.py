"""Provenance as RO-Crate 1.1 (https://w3id.org/ro/crate/1.1): ``ro-crate-metadata.json``."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from verse_data.export.media import doi_url, licence_url, media_type
from verse_data.records.provenance import FileProvenance, Provenance

FILE_NAME: Final = "ro-crate-metadata.json"
_PROFILE: Final = "https://w3id.org/ro/crate/1.1"
_SOFTWARE: Final = "#verse-data"
_TERM: Final = "https://w3id.org/ro/terms/workflow-run#sha256"


def to_rocrate(provenance: Provenance, *, date: str) -> dict[str, Any]:
    """Return the metadata of a crate whose root is the DataLad dataset.

    Parameters
    ----------
    provenance : Provenance
        Of a release, or of one scan.
    date : str
        ISO date of the export, which the format demands.
    """
    files = [_file(file) for file in provenance.files]
    return {
        "@context": [f"{_PROFILE}/context", {"sha256": _TERM}],
        "@graph": [
            {
                "@id": FILE_NAME,
                "@type": "CreativeWork",
                "about": {"@id": "./"},
                "conformsTo": {"@id": _PROFILE},
            },
            _root(provenance, date),
            *_licence(provenance),
            *(_article(text=c.text, doi=c.doi) for c in provenance.citations),
            {
                "@id": _SOFTWARE,
                "@type": "SoftwareApplication",
                "name": "verse-data",
                "version": provenance.packages["verse-data"],
            },
            {
                "@id": "#published",
                "@type": "CreateAction",
                "name": f"{provenance.release} {provenance.version}: publish the lock as a version",
                "instrument": {"@id": _SOFTWARE},
                "result": {"@id": "./"},
            },
            *files,
        ],
    }


def _root(provenance: Provenance, date: str) -> dict[str, Any]:
    identifiers = [provenance.lock, f"git:{provenance.commit}", provenance.dataset_id]
    facts: dict[str, Any] = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"{provenance.release} {provenance.version}",
        "description": provenance.title,
        "datePublished": date,
        "version": provenance.version,
        "identifier": [*identifiers, *([doi_url(provenance.doi)] if provenance.doi else [])],
        "hasPart": [{"@id": _identifier(file)} for file in provenance.files],
        "citation": [{"@id": doi_url(citation.doi)} for citation in provenance.citations],
        "creditText": provenance.attribution,
    }
    if provenance.licence:
        facts["license"] = {"@id": licence_url(provenance.licence)}
    return {name: value for name, value in facts.items() if value}


def _licence(provenance: Provenance) -> list[dict[str, Any]]:
    if not provenance.licence:
        return []
    name = provenance.licence
    return [{"@id": licence_url(name), "@type": "CreativeWork", "name": name, "identifier": name}]


def _article(*, text: str, doi: str) -> dict[str, Any]:
    return {"@id": doi_url(doi), "@type": "ScholarlyArticle", "name": text, "identifier": doi}


def _file(file: FileProvenance) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "@id": _identifier(file),
        "@type": "File",
        "name": file.path.rpartition("/")[2],
        "contentSize": str(file.size),
        "encodingFormat": media_type(file.path),
        "sha256": file.sha256,
        "identifier": file.key,
        "url": list(file.urls),
    }
    return {name: value for name, value in facts.items() if value}


def _identifier(file: FileProvenance) -> str:
    return quote(file.path)
