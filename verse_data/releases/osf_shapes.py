"""Which fields OSF's listings have, which of them the client reads, and what differs in an answer."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final, Literal

Source = Literal["components", "api", "waterbutler"]

_SHOWN: Final = 12
_PLAIN: Final = re.compile(r"[\w.$-]{1,80}")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The fields of one kind of row.

    Attributes
    ----------
    read : dict
        Fields that the client reads, by their path, with the type that it expects.
    also : frozenset of str
        Fields that OSF is known to send beside them.
    """

    read: dict[str, str]
    also: frozenset[str]


def _shape(read: str, also: str) -> Shape:
    pairs = [word.partition(":") for word in read.split()]
    kinds = {path: kind for path, _, kind in pairs}
    return Shape(read=kinds, also=frozenset(also.split()))


_ROW: Final = "id type relationships attributes links"
_NAMES: Final = "attributes.kind:string attributes.name:string attributes.path:string"
_HASHES: Final = "attributes.extra.hashes.md5:string attributes.extra.hashes.sha256:string"
_API: Final = f"""{_ROW} attributes.guid attributes.checkout attributes.provider attributes.size
attributes.materialized_path attributes.last_touched attributes.date_modified attributes.date_created
attributes.extra attributes.extra.hashes attributes.extra.hashes.md5 attributes.extra.hashes.sha256
attributes.extra.downloads attributes.tags attributes.current_user_can_comment
attributes.current_version attributes.show_as_unviewed attributes.delete_allowed
links.info links.self links.html links.move links.upload links.delete links.download links.render
links.iri links.new_folder"""
_WATERBUTLER: Final = f"""{_ROW} attributes.extra attributes.provider attributes.materialized
attributes.etag attributes.resource attributes.size attributes.sizeInt attributes.extra.guid
attributes.extra.downloads attributes.extra.checkout attributes.extra.latestVersionSeen
attributes.extra.hashes attributes.contentType attributes.modified attributes.modified_utc
attributes.created_utc links.move links.upload links.delete links.download links.new_folder"""
_NODE: Final = f"""{_ROW} attributes.description attributes.category attributes.custom_citation
attributes.date_created attributes.date_modified attributes.registration attributes.preprint
attributes.fork attributes.collection attributes.tags attributes.access_requests_enabled
attributes.node_license attributes.node_license.copyright_holders attributes.node_license.year
attributes.analytics_key attributes.current_user_can_comment attributes.current_user_permissions
attributes.current_user_is_contributor attributes.current_user_is_contributor_or_group_member
attributes.wiki_enabled attributes.public attributes.subjects links.self links.html links.iri"""

SHAPES: Final[dict[tuple[Source, str], Shape]] = {
    ("components", "component"): _shape("id:string attributes.title:string", _NODE),
    ("api", "folder"): _shape(_NAMES, _API),
    ("api", "file"): _shape(
        f"{_NAMES} attributes.size:integer attributes.current_version:integer {_HASHES}", _API
    ),
    ("waterbutler", "folder"): _shape(_NAMES, _WATERBUTLER),
    ("waterbutler", "file"): _shape(
        f"{_NAMES} attributes.size:integer attributes.extra.version:integer {_HASHES}", _WATERBUTLER
    ),
}
"""By where a listing comes from and what a row is; from OSF's source and public reports."""


def differences(source: Source, answer: Any) -> tuple[list[str], list[str]]:
    """Return what an answer lacks or has of another type, and what is new in it.

    Names and types alone are told, never values.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        return [f"data: {_type_of(answer)} where an object with an array 'data' was expected"], []
    wrong = [] if source == "waterbutler" else _page_differences(answer)
    rows: dict[str, list[dict[str, str]]] = {}
    for row in answer["data"]:
        rows.setdefault(_kind(source, row), []).append(_fields(row))
    new: Counter[str] = Counter()
    for kind, found in rows.items():
        shape = SHAPES.get((source, kind))
        if shape is None:
            wrong.append(
                f"attributes.kind: {len(found)} of {len(answer['data'])} rows are no file or folder"
            )
            continue
        wrong += _read_differences(shape, found, kind)
        known = shape.read.keys() | shape.also
        new.update(
            path
            for fields in found
            for path in fields
            if path not in known and not _above(path, known)
        )
    return wrong, _named(new)


def _page_differences(answer: dict[str, Any]) -> list[str]:
    """Return what the client would miss in a page of the API, on its way from page to page."""
    fields = _fields(
        {"links": answer.get("links"), "meta": answer.get("meta")}, below=("links", "meta")
    )
    wrong = []
    if fields.get("links.next", "missing") not in {"string", "null"}:
        wrong.append(f"links.next: {fields.get('links.next', 'missing')}, expected string or null")
    if "integer" not in {fields.get("links.meta.total"), fields.get("meta.total")}:
        wrong.append("links.meta.total or meta.total: missing, expected integer")
    return wrong


def _read_differences(shape: Shape, rows: list[dict[str, str]], kind: str) -> list[str]:
    wrong = []
    for path, expected in shape.read.items():
        others = Counter(fields.get(path, "missing") for fields in rows)
        del others[expected]
        wrong += [
            f"{path}: {found} in {count} of {len(rows)} {kind}s, expected {expected}"
            for found, count in sorted(others.items())
        ]
    return wrong


def _kind(source: Source, row: Any) -> str:
    if source == "components":
        return "component"
    attributes = row.get("attributes") if isinstance(row, dict) else None
    kind = attributes.get("kind") if isinstance(attributes, dict) else None
    return kind if kind in {"file", "folder"} else "unknown"


def _fields(
    value: Any, prefix: str = "", below: tuple[str, ...] = ("attributes", "links")
) -> dict[str, str]:
    """Return the type of each field by its path; of what is not read, the top alone."""
    found: dict[str, str] = {}
    for name, item in (value if isinstance(value, dict) else {}).items():
        path = f"{prefix}{name}"
        found[path] = _type_of(item)
        if prefix or name in below:
            found |= _fields(item, f"{path}.", below)
    return found


def _above(path: str, known: frozenset[str] | set[str]) -> bool:
    """Whether `path` is an object on the way to a known field."""
    return any(name.startswith(f"{path}.") for name in known)


def _named(paths: Counter[str]) -> list[str]:
    """Return the first names, those that are no plain words escaped and cut; the rest are counted."""
    names = [path if _PLAIN.fullmatch(path) else ascii(path[:60]) for path in sorted(paths)]
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return names[:_SHOWN] + more


def _type_of(value: Any) -> str:
    kinds = (
        (bool, "boolean"),
        (int, "integer"),
        (float, "number"),
        (str, "string"),
        (list, "array"),
    )
    if value is None:
        return "null"
    return next((name for kind, name in kinds if isinstance(value, kind)), "object")
