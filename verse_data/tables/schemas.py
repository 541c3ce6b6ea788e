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

from verse_data import resources
from verse_data.errors import UsageError, did_you_mean
from verse_data.publishing import write_file
from verse_data.records.base import Record
from verse_data.records.strict_json import read_json

SCHEMA_VERSION: Final = "2.0.0"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_PUBLISHED: Final = "published.json"

MODELS: Final[dict[str, tuple[str, str]]] = {
    "scan": ("records.scan.ScanRecord", "table scans"),
    "vertebra": ("records.vertebra.VertebraRecord", "table vertebrae"),
    "subject": ("records.subject.SubjectRecord", "table subjects"),
    "patient": ("records.subject.PatientRow", "patient table of the user"),
    "centroid": ("records.centroids.Centroid", "centroid JSON"),
    "centroids": ("records.centroids.CentroidFile", "centroid JSON"),
    "ct_sidecar": ("records.scan.CtSidecar", "_ct.json"),
    "grading_row": ("records.grading.GradingRow", "grading workbook"),
    "catalog_entry": ("records.catalog.CatalogEntry", "catalog"),
    "release_lock": ("records.lock.ReleaseLock", "lock"),
    "store_manifest": ("records.manifest.StoreManifest", "manifest of a store"),
    "recipe": ("volumes.recipe.Recipe", "argument of the caller"),
    "provenance": ("records.provenance.Provenance", "lock, dataset, catalog, fetch log"),
    "folds": ("tables.folds.Folds", "folds.json"),
}
"""Name of each schema: the model it is made from, and the source of fields that name none."""


def model(name: str) -> type[Record]:
    """Return the model of the schema `name`.

    Raises
    ------
    UsageError
        If there is no such schema.
    """
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
    described = {root.__name__: root, **_parts(root)}
    _complete(schema, root, MODELS[name][1])
    for title, part in schema.get("$defs", {}).items():
        if title in described:
            _complete(part, described[title], MODELS[name][1])
    head = {"$schema": DIALECT, "$id": f"urn:verse-data:schema:{name}:{SCHEMA_VERSION}"}
    return (json.dumps({**head, **schema}, indent=2, ensure_ascii=False) + "\n").encode()


def _parts(root: type[Record]) -> dict[str, type[Record]]:
    """Return the records that `root` is made of, found in the modules they come from."""
    module = inspect.getmodule(root)
    members = vars(module).values() if module else ()
    return {m.__name__: m for m in members if isinstance(m, type) and issubclass(m, Record)}


def _complete(schema: dict[str, Any], record: type[Record], source: str) -> None:
    """Give each field a description and a source where the model says them in its docstring."""
    said = _attributes(inspect.getdoc(record) or "")
    schema["description"] = (inspect.getdoc(record) or "").partition("\n")[0]
    for name, field in record.model_fields.items():
        place = schema["properties"][field.alias or name]
        if "description" not in place and name in said:
            place["description"] = said[name]
        place.setdefault("source", source)


def _attributes(docstring: str) -> dict[str, str]:
    """Read the Attributes section of a NumPy docstring: what it says of each name."""
    _, _, section = docstring.partition("Attributes\n----------\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if re.match(r"\S", line):
            names = [name.strip() for name in line.partition(" : ")[0].split(",")]
            found |= dict.fromkeys(names, "")
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}".strip() for name in names}
    return found


def write(folder: Path) -> list[Path]:
    """Write every schema of this version below `folder`; return the files that changed.

    Raises
    ------
    UsageError
        If a schema that has been published would change.
    """
    published = _published(folder).get(SCHEMA_VERSION, {})
    rendered = {f"{name}.schema.json": render(name) for name in MODELS}
    moved = [
        name
        for name, content in rendered.items()
        if published.get(name, _digest(content)) != _digest(content)
    ]
    if moved:
        raise UsageError(
            f"{', '.join(moved)} of version {SCHEMA_VERSION} has been published and must not change. "
            f"Raise SCHEMA_VERSION in verse_data/tables/schemas.py."
        )
    changed = []
    for name, content in rendered.items():
        path = folder / SCHEMA_VERSION / name
        if not path.exists() or path.read_bytes() != content:
            write_file(path, content)
            changed.append(path)
    return changed


def publish(folder: Path) -> None:
    """Write this version's schemas, and note their digests: from now on they never change."""
    write(folder)
    known = _published(folder)
    known[SCHEMA_VERSION] = {f"{name}.schema.json": _digest(render(name)) for name in MODELS}
    content = json.dumps(known, indent=2, sort_keys=True) + "\n"
    write_file(folder / _PUBLISHED, content.encode())


def check(folder: Path | None = None) -> list[str]:
    """Return what is wrong with the schemas in `folder`: stale, missing, or changed after release.

    Parameters
    ----------
    folder : Path, optional
        The package's own ``schemas/`` by default.
    """
    folder = folder or resources.locate("schemas")
    problems = []
    for name in MODELS:
        path = folder / SCHEMA_VERSION / f"{name}.schema.json"
        if not path.exists():
            problems.append(f"{path} is missing: verse-data schemas write")
        elif path.read_bytes() != render(name):
            problems.append(f"{path} is not what the model gives: verse-data schemas write")
    for version, digests in _published(folder).items():
        for name, digest in digests.items():
            path = folder / version / name
            if not path.exists() or _digest(path.read_bytes()) != digest:
                problems.append(f"{path} was published and has changed: restore it")
    return problems


def _published(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / _PUBLISHED
    if not path.exists():
        return {}
    known: dict[str, dict[str, str]] = read_json(path.read_bytes(), name=str(path))
    return known


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
