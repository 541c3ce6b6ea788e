"""A release as Croissant 1.1 with the fields for responsible AI (https://docs.mlcommons.org/croissant/)."""

from __future__ import annotations

import tomllib
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError

from verse_data import resources
from verse_data.errors import ValidationFailed
from verse_data.export.media import doi_url, licence_url, media_type
from verse_data.records.base import Record, rules_of
from verse_data.records.names import split_of
from verse_data.records.provenance import FileProvenance, Provenance

_CONFORMS: Final = ("http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0")
_CONTEXT: Final[dict[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context that the format prescribes, word for word."""
_ROLES: Final = ("ct", "mask", "centroids")

Text = Annotated[str, Field(min_length=1)]


class ResponsibleAI(Record):
    """What users of a release should know before they train on it: the fields of Croissant's RAI 1.0."""

    data_collection: Text
    data_collection_type: tuple[Text, ...]
    data_collection_timeframe: Text | None = None
    data_collection_missing_data: Text
    data_preprocessing_protocol: Text
    data_annotation_protocol: Text
    data_limitations: Text
    data_biases: Text
    data_social_impact: Text
    data_use_cases: Text
    data_release_maintenance_plan: Text
    personal_sensitive_information: Text


def load_rai(release: str) -> ResponsibleAI | None:
    """Return what the catalog says of a release for responsible AI, or None if it says nothing.

    Raises
    ------
    ValidationFailed
        If ``rai.toml`` breaks a rule of its model.
    """
    path = resources.locate("catalog") / release / "rai.toml"
    if not path.is_file():
        return None
    value = tomllib.loads(path.read_text(encoding="utf-8"))
    value["data_collection_type"] = tuple(value.get("data_collection_type", ()))
    try:
        return ResponsibleAI.model_validate(value)
    except ValidationError as error:
        raise ValidationFailed(f"{path}: {rules_of(error)}.") from error


def to_croissant(
    provenance: Provenance, *, date: str, rai: ResponsibleAI | None = None
) -> dict[str, Any]:
    """Return the Croissant description of a release.

    Parameters
    ----------
    provenance : Provenance
        Of a release, or of one scan.
    date : str
        ISO date of the export.
    rai : ResponsibleAI, optional
        What the catalog says of collection, annotation, limits and biases.
    """
    facts: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": list(_CONFORMS) if rai else _CONFORMS[0],
        "name": provenance.release,
        "description": _description(provenance),
        "url": doi_url(provenance.doi) if provenance.doi else None,
        "license": licence_url(provenance.licence) if provenance.licence else None,
        "creditText": provenance.attribution,
        "citeAs": "; ".join(f"{c.text} {doi_url(c.doi)}" for c in provenance.citations) or None,
        "version": f"{provenance.version.removeprefix('v')}.0.0",
        "datePublished": date,
        "isLiveDataset": False,
        "distribution": [_file_object(file) for file in provenance.files],
        "recordSet": _record_sets(provenance),
        **(_rai(rai) if rai else {}),
    }
    return {name: value for name, value in facts.items() if value not in (None, [], "")}


def _description(provenance: Provenance) -> str:
    return (
        f"{provenance.title}. Version {provenance.version}, lock {provenance.lock}, "
        f"DataLad dataset {provenance.dataset_id} at commit {provenance.commit}."
    )


def _file_object(file: FileProvenance) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "contentUrl": file.urls[0] if file.urls else file.path,
        "contentSize": f"{file.size} B",
        "encodingFormat": media_type(file.path),
        "sha256": file.sha256,
    }


def _record_sets(provenance: Provenance) -> list[dict[str, Any]]:
    """Return one record a scan: who it is of, which split it is in, and its files."""
    scans: dict[str, dict[str, FileProvenance]] = {}
    for file in provenance.files:
        if file.scan_id and file.role in _ROLES:
            scans.setdefault(file.scan_id, {})[str(file.role)] = file
    if not scans:
        return []
    columns = ("scan_id", "subject_id", "split", *_ROLES)
    rows = [
        {f"scans/{name}": value for name, value in _row(scan_id, files).items()}
        for scan_id, files in sorted(scans.items())
    ]
    return [
        {
            "@type": "cr:RecordSet",
            "@id": "scans",
            "name": "scans",
            "description": "One record a CT series; files by their path in the release.",
            "key": {"@id": "scans/scan_id"},
            "field": [
                {
                    "@type": "cr:Field",
                    "@id": f"scans/{name}",
                    "name": f"scans/{name}",
                    "description": _WHAT[name],
                    "dataType": "sc:Text",
                }
                for name in columns
            ],
            "data": rows,
        }
    ]


_WHAT: Final = {
    "scan_id": "CT series",
    "subject_id": "Patient; split data by this",
    "split": "Published split: training, validation or test",
    "ct": "Path of the CT volume",
    "mask": "Path of the vertebra mask",
    "centroids": "Path of the centroid file",
}


def _row(scan_id: str, files: dict[str, FileProvenance]) -> dict[str, str]:
    path = next(iter(files.values())).path
    return {
        "scan_id": scan_id,
        "subject_id": scan_id.split("_", 1)[0],
        "split": split_of(path) or "",
        **{role: files[role].path if role in files else "" for role in _ROLES},
    }


def _rai(rai: ResponsibleAI) -> dict[str, Any]:
    """Return the fields under their names in the vocabulary: ``rai:dataCollection`` and so on."""
    values = rai.model_dump(mode="json", exclude_none=True)
    return {f"rai:{_camel(name)}": value for name, value in values.items()}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
