"""A release as Croissant 1.1 with the fields for responsible AI (https://docs.mlcommons.org/croissant/)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final
from urllib.parse import quote

from pydantic import Field
from pydantic.alias_generators import to_camel

from verse_data.errors import IncompleteTable, warn
from verse_data.export.prov import doi_url, licence_url, media_type
from verse_data.files import locate
from verse_data.records.base import Record
from verse_data.records.names import split_of
from verse_data.records.provenance import FileProvenance, Provenance
from verse_data.tables.columns import columns
from verse_data.tables.export import plain_rows

_CONFORMS: Final = ("http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0")
_TERMS: Final = """arrayShape citeAs column containedIn equivalentProperty extract field fileObject
fileProperty fileSet format includes isArray isLiveDataset jsonPath key md5 parentField path recordSet
references regex repeated replace samplingRate separator source subField transform"""
_OTHERS: Final[dict[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}
# The context that the format prescribes literally.
_CONTEXT: Final = dict(sorted({**_OTHERS, **{t: f"cr:{t}" for t in _TERMS.split()}}.items()))
_SCANS: Final = {
    "scan_id": "CT series",
    "subject_id": "Patient; split data by this",
    "split": "Published split: training, validation or test",
    "ct": "Path of the CT volume",
    "mask": "Path of the vertebra mask",
    "centroids": "Path of the centroid file",
}
_GRADES: Final = ("scan_id", "level", "label", "grade", "fracture_type", "foreign_material")
_TYPES: Final = {"label": "sc:Integer", "grade": "sc:Integer", "foreign_material": "sc:Boolean"}
_ROLES: Final = ("ct", "mask", "centroids")
_OF_SCANS: Final = "One record a CT series; files by their path in the release."
_OF_GRADES: Final = (
    "One record a vertebra that the readers assessed. Vertebrae without a record were not assessed."
)

Text = Annotated[str, Field(min_length=1)]


class ResponsibleAI(Record):
    """The fields of Croissant's RAI 1.0: what to know about a release before training on it."""

    data_collection: Text
    data_collection_type: list[Text]
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
    """Return the catalog's RAI fields of a release, or None if it has none."""
    path = locate("catalog") / release / "rai.toml"
    if not path.is_file():
        return None
    return ResponsibleAI.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))


def croissant(release: Any, scan_id: str | None = None) -> dict[str, Any]:
    """Return the Croissant description of a release, or of one of its scans.

    It has the grades of the release, if they are here, and warns if they should be.
    """
    facts, date = release.provenance(scan_id), release.files.date(release.version)
    rows = release.graded_vertebrae()
    if rows is None and release.workbook.is_listed and not release.workbook.is_here:
        warn(IncompleteTable(f"Without grades. {release.workbook.absence()}"))
    grades = [] if rows is None else plain_rows(rows[[*_GRADES]])
    if scan_id is not None:
        grades = [row for row in grades if row["scan_id"] == scan_id]
    return to_croissant(facts, date=date, rai=load_rai(release.name), grades=grades)


def to_croissant(
    provenance: Provenance,
    *,
    date: str,
    rai: ResponsibleAI | None = None,
    grades: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the Croissant description of a release or scan, whose version is of an ISO `date`.

    `grades` has a row for each vertebra that was assessed.
    """
    meanings = {c.name: c.description for c in columns("vertebrae") if c.name in _GRADES}
    facts: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": list(_CONFORMS) if rai else _CONFORMS[0],
        "name": provenance.release,
        "description": f"{provenance.title}. Version {provenance.version}, lock {provenance.lock}, "
        f"DataLad dataset {provenance.dataset_id} at commit {provenance.commit}.",
        "url": doi_url(provenance.doi) if provenance.doi else None,
        "license": licence_url(provenance.licence) if provenance.licence else None,
        "creditText": provenance.attribution,
        "citeAs": "; ".join(f"{c.text} {doi_url(c.doi)}" for c in provenance.citations)
        or f"{provenance.title}, {provenance.release} {provenance.version}, {provenance.lock}",
        "version": f"{provenance.version.removeprefix('v')}.0.0",
        "datePublished": date,
        "isLiveDataset": False,
        "distribution": [_file_object(file) for file in provenance.files],
        "recordSet": [
            _record_set("scans", _OF_SCANS, _SCANS, ["scan_id"], _scans(provenance)),
            _record_set("grades", _OF_GRADES, meanings, ["scan_id", "level"], grades),
        ],
    }
    facts["recordSet"] = [records for records in facts["recordSet"] if records["data"]]
    fields = rai.model_dump(mode="json") if rai else {}
    facts |= {f"rai:{to_camel(name)}": value for name, value in fields.items()}
    return {name: value for name, value in facts.items() if value not in (None, [], "")}


def _file_object(file: FileProvenance) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": quote(file.path),
        "name": file.path,
        "contentUrl": file.urls[0] if file.urls else file.path,
        "contentSize": f"{file.size} B",
        "encodingFormat": media_type(file.path),
        "sha256": file.sha256,
    }


def _scans(provenance: Provenance) -> list[dict[str, str]]:
    """Return a record for each scan: its subject, its split and its files."""
    scans: dict[str, dict[str, str]] = {}
    for file in provenance.files:
        if file.scan_id and file.role in _ROLES:
            known = {"scan_id": file.scan_id, "subject_id": file.scan_id.split("_", 1)[0]}
            empty = dict.fromkeys(_SCANS, "") | known | {"split": split_of(file.path) or ""}
            scans.setdefault(file.scan_id, empty)[str(file.role)] = file.path
    return [record for _, record in sorted(scans.items())]


def _record_set(
    name: str,
    description: str,
    meanings: Mapping[str, str],
    key: Sequence[str],
    records: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return a record set with its records; scans of another set are those of ``scans``."""
    fields: list[dict[str, Any]] = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/{column}",
            "name": f"{name}/{column}",
            "description": meaning,
            "dataType": _TYPES.get(column, "sc:Text"),
        }
        for column, meaning in meanings.items()
    ]
    keys = [{"@id": f"{name}/{column}"} for column in key]
    if name != "scans":
        fields[0]["references"] = {"field": {"@id": "scans/scan_id"}}
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": description,
        "key": keys if len(keys) > 1 else keys[0],
        "field": fields,
        "data": [{f"{name}/{c}": record[c] for c in meanings} for record in records],
    }
