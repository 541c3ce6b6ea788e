"""Provenance as W3C PROV-JSON (https://www.w3.org/submissions/prov-json/), and as RO-Crate 1.1."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final
from urllib.parse import quote

from verse_data.records.provenance import FileProvenance, Provenance, StoreProvenance

_OURS: Final = "verse:package-verse-data"
_PREFIXES: Final = {
    "annex": "urn:git-annex:key:",
    "git": "urn:git:commit:",
    "verse": "urn:verse-data:",
    "dcterms": "http://purl.org/dc/terms/",
    "web": "urn:verse-data:address:",
}


def to_prov(provenance: Provenance) -> dict[str, Any]:
    """Return a PROV-JSON document.

    Entities are the release's commit, its files (named by annex key), their addresses, and stores;
    activities are the publishing of the version, each logged fetch, and each conversion; agents are
    this package and its dependencies.
    """
    release = f"git:{provenance.commit}"
    document: dict[str, Any] = defaultdict(dict, prefix=dict(_PREFIXES))
    facts = {
        **_kind("Collection", f"{provenance.release} {provenance.version}"),
        "dcterms:title": provenance.title,
        "dcterms:license": provenance.licence,
        "dcterms:bibliographicCitation": [citation.text for citation in provenance.citations],
        "verse:lock": provenance.lock,
        "verse:datalad-id": provenance.dataset_id,
    }
    document["entity"][release] = {name: value for name, value in facts.items() if value}
    document["agent"] = {
        f"verse:package-{name}": {**_kind("SoftwareAgent", name), "verse:version": version}
        for name, version in provenance.packages.items()
    }
    publishing = f"verse:publish-{provenance.release}-{provenance.version}"
    _generate(document, "0", release, publishing, {"prov:label": "publish the lock as a version"})
    for number, file in enumerate(provenance.files):
        _add_file(document, number, file, release)
    for number, store in enumerate(provenance.stores):
        _add_store(document, number, store, provenance.files)
    return dict(document)


def _kind(name: str, label: str) -> dict[str, Any]:
    return {"prov:type": {"$": f"prov:{name}", "type": "prov:QUALIFIED_NAME"}, "prov:label": label}


def _relate(document: dict[str, Any], relation: str, key: str, **ends: str) -> None:
    document[relation][f"_:{key}"] = {f"prov:{end}": value for end, value in ends.items()}


def _generate(
    document: dict[str, Any], number: str, entity: str, activity: str, facts: dict[str, Any]
) -> None:
    """Add an activity of this package, and the entity that it made."""
    document["activity"][activity] = facts
    _relate(document, "wasGeneratedBy", f"g{number}", entity=entity, activity=activity)
    _relate(document, "wasAssociatedWith", f"w{number}", activity=activity, agent=_OURS)


def _add_file(document: dict[str, Any], number: int, file: FileProvenance, release: str) -> None:
    content = f"annex:{file.key}"
    document["entity"][content] = {
        "prov:label": file.path,
        "prov:location": file.path,
        "verse:size": file.size,
        "verse:sha256": file.sha256,
    }
    _relate(document, "hadMember", f"m{number}", collection=release, entity=content)
    for place, url in enumerate(file.urls):
        # Where the file is available; where it was fetched from is recorded below.
        address = f"web:{number}-{place}"
        document["entity"][address] = {"prov:location": url}
        key = f"l{number}-{place}"
        _relate(document, "alternateOf", key, alternate1=content, alternate2=address)
    fetched = file.fetched
    if fetched is None:
        return
    fetch, origin = f"verse:fetch-{number}", f"verse:origin-{number}"
    facts = {
        "prov:endTime": fetched.time,
        "prov:label": f"fetch with {fetched.engine}",
        "verse:bytes": fetched.bytes,
        "verse:tries": fetched.tries,
    }
    _generate(document, str(number + 1), content, fetch, facts)
    if fetched.url or fetched.source not in {None, "web"}:
        sibling = {"prov:label": f"sibling {fetched.source}"}
        document["entity"][origin] = {"prov:location": fetched.url} if fetched.url else sibling
        _relate(document, "used", f"f{number}", activity=fetch, entity=origin)
        ends = {"generatedEntity": content, "usedEntity": origin, "activity": fetch}
        _relate(document, "wasDerivedFrom", f"d{number}", **ends)


def _add_store(
    document: dict[str, Any], number: int, made: StoreProvenance, files: tuple[FileProvenance, ...]
) -> None:
    store, conversion = f"verse:store-{made.fingerprint}", f"verse:convert-{number}"
    document["entity"][store] = {"prov:label": "Zarr store", "verse:fingerprint": made.fingerprint}
    recipe = str(sorted(made.recipe.items()))
    document["activity"][conversion] = {"prov:label": "convert to Zarr", "verse:recipe": recipe}
    _relate(document, "wasGeneratedBy", f"s{number}", entity=store, activity=conversion)
    for place, file in enumerate(files):
        if file.role in {"ct", "mask", "centroids"}:
            key = f"u{number}-{place}"
            _relate(document, "used", key, activity=conversion, entity=f"annex:{file.key}")


# --- RO-Crate 1.1 (https://w3id.org/ro/crate/1.1): ro-crate-metadata.json -------------------------

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
        *((quote(file.path), "File", _crated(file)) for file in files),
    ]
    graph = [
        {"@id": key, "@type": kind, **{name: value for name, value in facts.items() if value}}
        for key, kind, facts in entities
    ]
    return {"@context": [f"{_PROFILE}/context", {"sha256": _TERM}], "@graph": graph}


def _crated(file: FileProvenance) -> dict[str, Any]:
    return {
        "name": file.path.rpartition("/")[2],
        "contentSize": str(file.size),
        "encodingFormat": media_type(file.path),
        "sha256": file.sha256,
        "identifier": file.key,
        "url": list(file.urls),
    }
