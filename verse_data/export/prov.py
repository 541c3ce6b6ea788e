"""Provenance as W3C PROV-JSON (https://www.w3.org/submissions/prov-json/)."""

from __future__ import annotations

from typing import Any, Final

from verse_data.records.provenance import FetchedFrom, FileProvenance, Provenance, StoreProvenance

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

    Entities are the release's commit, its contents (named by annex key), their addresses, and
    stores; activities are the publishing of the version, each logged fetch, and each conversion;
    agents are this package and those that it stands on.
    """
    release = f"git:{provenance.commit}"
    publishing = f"verse:publish-{provenance.release}-{provenance.version}"
    document: dict[str, Any] = {
        "prefix": dict(_PREFIXES),
        "entity": {release: _release(provenance)},
        "activity": {publishing: {"prov:label": "publish the lock as a version"}},
        "agent": {
            f"verse:package-{name}": {
                "prov:type": {"$": "prov:SoftwareAgent", "type": "prov:QUALIFIED_NAME"},
                "prov:label": name,
                "verse:version": version,
            }
            for name, version in provenance.packages.items()
        },
        "wasGeneratedBy": {"_:g0": _pair("entity", release, "activity", publishing)},
        "wasAssociatedWith": {"_:w0": _pair("activity", publishing, "agent", _OURS)},
        "hadMember": {},
        "wasDerivedFrom": {},
        "alternateOf": {},
        "used": {},
    }
    for number, file in enumerate(provenance.files):
        _add_file(document, number, file, release)
    for number, store in enumerate(provenance.stores):
        _add_store(document, number, store, provenance.files)
    return {name: value for name, value in document.items() if value}


def _pair(one: str, value: str, other: str, others: str) -> dict[str, str]:
    """Return a relation of two things."""
    return {f"prov:{one}": value, f"prov:{other}": others}


def _release(provenance: Provenance) -> dict[str, Any]:
    facts = {
        "prov:type": {"$": "prov:Collection", "type": "prov:QUALIFIED_NAME"},
        "prov:label": f"{provenance.release} {provenance.version}",
        "dcterms:title": provenance.title,
        "dcterms:license": provenance.licence,
        "dcterms:bibliographicCitation": [citation.text for citation in provenance.citations],
        "verse:lock": provenance.lock,
        "verse:datalad-id": provenance.dataset_id,
    }
    return {name: value for name, value in facts.items() if value}


def _add_file(document: dict[str, Any], number: int, file: FileProvenance, release: str) -> None:
    content = f"annex:{file.key}"
    document["entity"][content] = {
        "prov:label": file.path,
        "prov:location": file.path,
        "verse:size": file.size,
        "verse:sha256": file.sha256,
    }
    document["hadMember"][f"_:m{number}"] = _pair("collection", release, "entity", content)
    for place, url in enumerate(file.urls):
        # Where it can be had. Where it came from is another question: the fetch below answers it.
        address = f"web:{number}-{place}"
        document["entity"][address] = {"prov:location": url}
        relation = _pair("alternate1", content, "alternate2", address)
        document["alternateOf"][f"_:l{number}-{place}"] = relation
    if file.fetched:
        fetch = f"verse:fetch-{number}"
        _add_origin(document, number, content, fetch, file.fetched)
        document["activity"][fetch] = {
            "prov:endTime": file.fetched.time,
            "prov:label": f"fetch with {file.fetched.engine}",
            "verse:bytes": file.fetched.bytes,
            "verse:tries": file.fetched.tries,
        }
        made, by = (f"_:{letter}{number + 1}" for letter in "gw")
        document["wasGeneratedBy"][made] = _pair("entity", content, "activity", fetch)
        document["wasAssociatedWith"][by] = _pair("activity", fetch, "agent", _OURS)


def _add_origin(
    document: dict[str, Any], number: int, content: str, fetch: str, came: FetchedFrom
) -> None:
    """Say what gave the content: an address or a sibling; nothing if that is not known."""
    if came.url:
        facts = {"prov:location": came.url}
    elif came.source not in {None, "web"}:
        facts = {"prov:label": f"sibling {came.source}"}
    else:
        return
    origin = f"verse:origin-{number}"
    document["entity"][origin] = facts
    document["used"][f"_:f{number}"] = _pair("activity", fetch, "entity", origin)
    derived = _pair("generatedEntity", content, "usedEntity", origin) | {"prov:activity": fetch}
    document["wasDerivedFrom"][f"_:d{number}"] = derived


def _add_store(
    document: dict[str, Any], number: int, made: StoreProvenance, files: tuple[FileProvenance, ...]
) -> None:
    store, conversion = f"verse:store-{made.fingerprint}", f"verse:convert-{number}"
    document["entity"][store] = {"prov:label": "Zarr store", "verse:fingerprint": made.fingerprint}
    recipe = str(sorted(made.recipe.items()))
    document["activity"][conversion] = {"prov:label": "convert to Zarr", "verse:recipe": recipe}
    document["wasGeneratedBy"][f"_:s{number}"] = _pair("entity", store, "activity", conversion)
    for place, file in enumerate(files):
        if file.role in {"ct", "mask", "centroids"}:
            used = _pair("activity", conversion, "entity", f"annex:{file.key}")
            document["used"][f"_:u{number}-{place}"] = used
