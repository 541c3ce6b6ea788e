"""JSON Schemas of the records, generated from the models; a published version never changes.

``schemas/<version>/<name>.schema.json`` is what :func:`render` returns with the pinned Pydantic,
and ``schemas/published.json`` holds the digest of every schema that has been released. A change of
a released model needs a new :data:`SCHEMA_VERSION`.
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

# Name of each schema: the model that it is made from, and the source of fields without one.
MODELS: Final[dict[str, tuple[str, str]]] = {
    "scan": ("records.tables.ScanRecord", "table scans"),
    "vertebra": ("records.tables.VertebraRecord", "table vertebrae"),
    "subject": ("records.tables.SubjectRecord", "table subjects"),
    "patient": ("records.tables.PatientRow", "patient table of the user"),
    "centroid": ("records.centroids.Centroid", "centroid JSON"),
    "centroids": ("records.centroids.CentroidFile", "centroid JSON"),
    "ct_sidecar": ("records.tables.CtSidecar", "_ct.json"),
    "grading_row": ("records.tables.GradingRow", "grading workbook"),
    "catalog_entry": ("records.catalog.CatalogEntry", "catalog"),
    "release_lock": ("records.lock.ReleaseLock", "lock"),
    "store_manifest": ("records.manifest.StoreManifest", "manifest of a store"),
    "recipe": ("volumes.recipe.Recipe", "argument of the caller"),
    "provenance": ("records.provenance.Provenance", "lock, dataset, catalog, fetch log"),
    "folds": ("tables.folds.Folds", "folds.json"),
    "overlay": ("records.overlay.Overlay", "overlay"),
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
    # Nested records are found by name in the module of the model.
    parts = vars(importlib.import_module(root.__module__))
    for title, part in {**schema.get("$defs", {}), root.__name__: schema}.items():
        if isinstance(parts.get(title), type) and issubclass(parts[title], Record):
            _describe(part, parts[title], MODELS[name][1])
    head = {"$schema": DIALECT, "$id": f"urn:verse-data:schema:{name}:{SCHEMA_VERSION}"}
    return (json.dumps({**head, **schema}, indent=2, ensure_ascii=False) + "\n").encode()


def _describe(schema: dict[str, Any], record: type[Record], source: str) -> None:
    """Add the description from the model's docstring, and a source, to each field that has none."""
    docstring = inspect.getdoc(record) or ""
    schema["description"] = docstring.partition("\n")[0]
    attributes = docstring.partition("Attributes\n----------\n")[2]
    entries = re.findall(r"^(\S.*?)(?: : .*)?\n((?: +\S.*\n?)+)", attributes, re.MULTILINE)
    described = {
        name.strip(): " ".join(text.split()) for names, text in entries for name in names.split(",")
    }
    for name, field in record.model_fields.items():
        place = schema["properties"][field.alias or name]
        if name in described:
            place.setdefault("description", described[name])
        place.setdefault("source", source)


def _rendered() -> dict[str, bytes]:
    """Return the content of every schema by the name of its file."""
    return {f"{name}.schema.json": render(name) for name in MODELS}


def _stale(folder: Path) -> dict[Path, bytes]:
    """Return the files of this version below `folder` that are missing or stale, with content."""
    paths = {folder / SCHEMA_VERSION / name: content for name, content in _rendered().items()}
    return {p: new for p, new in paths.items() if not p.exists() or p.read_bytes() != new}


def write(folder: Path) -> list[Path]:
    """Write every schema of this version below `folder`; return the files that changed."""
    published, stale = _published(folder).get(SCHEMA_VERSION, {}), _stale(folder)
    changed = [
        p.name for p, new in stale.items() if published.get(p.name, _digest(new)) != _digest(new)
    ]
    if changed:
        raise UsageError(
            f"{', '.join(sorted(changed))} of version {SCHEMA_VERSION} has been published and must "
            f"not change. Raise SCHEMA_VERSION in verse_data/tables/schemas.py."
        )
    for path, content in stale.items():
        write_file(path, content)
    return list(stale)


def publish(folder: Path) -> None:
    """Write this version's schemas, and record their digests: from now on they never change."""
    write(folder)
    digests = {name: _digest(content) for name, content in _rendered().items()}
    known = {**_published(folder), SCHEMA_VERSION: digests}
    content = json.dumps(known, indent=2, sort_keys=True) + "\n"
    write_file(folder / _PUBLISHED, content.encode())


def check(folder: Path | None = None) -> list[str]:
    """Return what is wrong with the schemas in `folder`: stale, missing, or changed after release."""
    folder = folder or locate("schemas")
    problems = [
        f"{path} is {'not up to date with the model' if path.exists() else 'missing'}: "
        f"verse-data schemas write"
        for path in _stale(folder)
    ]
    for version, digests in _published(folder).items():
        for name, digest in digests.items():
            path = folder / version / name
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
