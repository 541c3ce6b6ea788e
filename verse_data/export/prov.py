"""Provenance as W3C PROV-JSON (https://www.w3.org/submissions/prov-json/)."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

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
