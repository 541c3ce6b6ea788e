"""JSON Schemas of the records, generated from the models; a published version never changes.

``schemas/<version>/<name>.schema.json`` is what :func:`render` gives under the locked Pydantic, and
``schemas/published.json`` holds the digest of every schema that has been released. A change of a
released model needs a new :data:`SCHEMA_VERSION`.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any, Final

from verse_data.errors import UsageError, did_you_mean
from verse_data.files import locate, write_file
from verse_data.records.base import Record, read_json

SCHEMA_VERSION: Final = "2.0.0"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_PUBLISHED: Final = "published.json"

# Name of each schema: the model it is made from, and the source of fields that name none.
MODELS: Final[dict[str, tuple[str, str]]] = {
    "scan": ("records.tables.ScanRecord", "table scans"),
    "vertebra": ("records.tables.VertebraRecord", "table vertebrae"),
    "subject": ("records.tables.SubjectRecord", "table subjects"),
    "patient": ("records.tables.PatientRow", "patient table of the user"),
    "centroid": ("records.centroids.Centroid", "centroid JSON"),
    "centroids": ("records.centroids.CentroidFile", "centroid JSON"),
    "ct_sidecar": ("records.tables.CtSidecar", "_ct.json"),
    "grading_row": ("records.grading.GradingRow", "grading workbook"),
    "catalog_entry": ("records.catalog.CatalogEntry", "catalog"),
    "release_lock": ("records.lock.ReleaseLock", "lock"),
    "store_manifest": ("records.manifest.StoreManifest", "manifest of a store"),
    "recipe": ("volumes.recipe.Recipe", "argument of the caller"),
    "provenance": ("records.provenance.Provenance", "lock, dataset, catalog, fetch log"),
    "folds": ("tables.folds.Folds", "folds.json"),
}


def model(name: str) -> type[Record]:
    """Return the model of the schema `name`."""
    if name not in MODELS:
        guess = did_you_mean(name, MODELS)
        raise UsageError(f"There is no schema {name!r}; schemas are {', '.join(MODELS)}.{guess}")
    module, _, attribute = MODELS[name][0].rpartition(".")
    found: type[Record] = getattr(importlib.import_module(f"verse_data.{module}"), attribute)
    return found


def render(name: str) -> bytes:
    """Return the JSON Schema `name` as it is written to disk."""
    root = model(name)
    schema = root.model_json_schema(mode="validation")
    # The records that it is made of are found in the module of its model.
    parts = vars(importlib.import_module(root.__module__))
    for title, part in {**schema.get("$defs", {}), root.__name__: schema}.items():
        if isinstance(parts.get(title), type) and issubclass(parts[title], Record):
            _describe(part, parts[title], MODELS[name][1])
    head = {"$schema": DIALECT, "$id": f"urn:verse-data:schema:{name}:{SCHEMA_VERSION}"}
    return (json.dumps({**head, **schema}, indent=2, ensure_ascii=False) + "\n").encode()


def _describe(schema: dict[str, Any], record: type[Record], source: str) -> None:
    """Give each field a description and a source where the model says them in its docstring."""
    docstring = inspect.getdoc(record) or ""
    schema["description"] = docstring.partition("\n")[0]
    described: dict[str, str] = {}
    names: list[str] = []
    for line in docstring.partition("Attributes\n----------\n")[2].splitlines():
        if re.match(r"\S", line):
            names = [name.strip() for name in line.partition(" : ")[0].split(",")]
        elif line.strip():
            described |= {name: f"{described.get(name, '')} {line.strip()}" for name in names}
    for name, field in record.model_fields.items():
        place = schema["properties"][field.alias or name]
        if name in described:
            place.setdefault("description", described[name].strip())
        place.setdefault("source", source)


def write(folder: Path) -> list[Path]:
    """Write every schema of this version below `folder`; return the files that changed."""
    changed, published = [], _published(folder).get(SCHEMA_VERSION, {})
    rendered = {f"{name}.schema.json": render(name) for name in MODELS}
    moved = [
        name for name in published.keys() & rendered if published[name] != _digest(rendered[name])
    ]
    if moved:
        raise UsageError(
            f"{', '.join(sorted(moved))} of version {SCHEMA_VERSION} has been published and must "
            f"not change. Raise SCHEMA_VERSION in verse_data/tables/schemas.py."
        )
    for name, content in rendered.items():
        path = folder / SCHEMA_VERSION / name
        if not path.exists() or path.read_bytes() != content:
            write_file(path, content)
            changed.append(path)
    return changed


def publish(folder: Path) -> None:
    """Write this version's schemas, and note their digests: from now on they never change."""
    write(folder)
    digests = {f"{name}.schema.json": _digest(render(name)) for name in MODELS}
    known = {**_published(folder), SCHEMA_VERSION: digests}
    content = json.dumps(known, indent=2, sort_keys=True) + "\n"
    write_file(folder / _PUBLISHED, content.encode())


def check(folder: Path | None = None) -> list[str]:
    """Return what is wrong with the schemas in `folder`: stale, missing, or changed after release."""
    folder, problems = folder or locate("schemas"), []
    for name in MODELS:
        path = folder / SCHEMA_VERSION / f"{name}.schema.json"
        if not path.exists():
            problems.append(f"{path} is missing: verse-data schemas write")
        elif path.read_bytes() != render(name):
            problems.append(f"{path} is not what the model gives: verse-data schemas write")
    for version, digests in _published(folder).items():
        for path, digest in ((folder / version / name, digests[name]) for name in digests):
            if not path.exists() or _digest(path.read_bytes()) != digest:
                problems.append(f"{path} was published and has changed: restore it")
    return problems


def _published(folder: Path) -> dict[str, dict[str, str]]:
    """Return the digest of every published schema, by version and file."""
    path = folder / _PUBLISHED
    known: dict[str, dict[str, str]] = {}
    return read_json(path.read_bytes(), name=str(path)) if path.exists() else known


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
