"""The JSON that OSF's API v2 and WaterButler v1 say of nodes, folders and files."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from osf_standin.tree import File, Folder, Node

Json = dict[str, Any]
_DATE = "2021-01-11T16:36:04.608531"
_LARGEST_PAGE = 100


def api_row(node: Node, path: str, thing: File | Folder, hosts: dict[str, str]) -> Json:
    """Return one row of the API's listing of a folder."""
    is_file = isinstance(thing, File)
    storage = f"{hosts['storage']}/v1/resources/{node.id}/providers/osfstorage/{thing.id}"
    api, site = hosts["api"], hosts["site"]
    attributes: Json = {
        "guid": thing.guid if isinstance(thing, File) else None,
        "checkout": None,
        "name": thing.name,
        "kind": "file" if is_file else "folder",
        "path": f"/{thing.id}" if is_file else f"/{thing.id}/",
        "size": len(thing.newest) if isinstance(thing, File) else None,
        "provider": "osfstorage",
        "materialized_path": path,
        "last_touched": None,
        "date_modified": _DATE if is_file else None,
        "date_created": f"{_DATE}Z" if is_file else None,
        "extra": {
            "hashes": thing.hashes(len(thing.versions))
            if isinstance(thing, File)
            else {"md5": None, "sha256": None},
            **({"downloads": 0} if is_file else {}),
        },
        "tags": [],
        "current_user_can_comment": False,
        "current_version": len(thing.versions) if isinstance(thing, File) else 1,
        "show_as_unviewed": False,
    }
    links: Json = {"info": f"{api}/files/{thing.id}/", "self": f"{api}/files/{thing.id}/"}
    links |= dict.fromkeys(("move", "upload", "delete"), storage if is_file else f"{storage}/")
    relationships: Json = {
        "node": {"links": {"related": {"href": f"{api}/nodes/{node.id}/", "meta": {}}}},
        "target": {"data": {"type": "nodes", "id": node.id}},
    }
    if isinstance(thing, File):
        links["download"] = f"{site}/download/{thing.guid or thing.id}/"
        href = f"{api}/files/{thing.id}/versions/"
        relationships["versions"] = {"links": {"related": {"href": href, "meta": {}}}}
    else:
        links["new_folder"] = f"{storage}/?kind=folder"
        href = f"{api}/nodes/{node.id}/files/osfstorage/{thing.id}/"
        relationships["files"] = {"links": {"related": {"href": href, "meta": {}}}}
    return {
        "id": thing.id,
        "type": "files",
        "attributes": attributes,
        "relationships": relationships,
        "links": links,
    }


def storage_row(node: Node, path: str, thing: File | Folder, hosts: dict[str, str]) -> Json:
    """Return one row of WaterButler's listing of a folder."""
    where = f"/{thing.id}" if isinstance(thing, File) else f"/{thing.id}/"
    attributes: Json = {
        "extra": {},
        "kind": "folder",
        "name": thing.name,
        "path": where,
        "provider": "osfstorage",
        "materialized": path,
        "etag": f"{len(path):064x}",
        "resource": node.id,
        "size": None,
        "sizeInt": None,
    }
    if isinstance(thing, File):
        attributes |= {
            "kind": "file",
            "extra": {
                "guid": thing.guid,
                "version": len(thing.versions),
                "downloads": 0,
                "checkout": None,
                "latestVersionSeen": None,
                "hashes": thing.hashes(len(thing.versions)),
            },
            "contentType": None,
            "size": len(thing.newest),
            "sizeInt": len(thing.newest),
            "modified": f"{_DATE}+00:00",
            "modified_utc": f"{_DATE}+00:00",
            "created_utc": None,
        }
    url = f"{hosts['storage']}/v1/resources/{node.id}/providers/osfstorage{where}"
    links = dict.fromkeys(("move", "upload", "delete"), url)
    if isinstance(thing, File):
        links["download"] = url
    return {"id": f"osfstorage{where}", "type": "files", "attributes": attributes, "links": links}


def versions(file: File) -> list[Json]:
    """Return WaterButler's list of a file's versions, newest first; the only one with hashes."""
    return [
        {
            "id": str(number),
            "type": "file_versions",
            "attributes": {
                "version": str(number),
                "versionIdentifier": "version",
                "modified": f"{_DATE}+00:00",
                "modified_utc": f"{_DATE}+00:00",
                "extra": {"user": None, "downloads": 0, "hashes": file.hashes(number)},
            },
        }
        for number in range(len(file.versions), 0, -1)
    ]


def child_row(node: Node, hosts: dict[str, str]) -> Json:
    """Return one row of the API's listing of a node's components."""
    return {
        "id": node.id,
        "type": "nodes",
        "attributes": {
            "title": node.title,
            "category": "data",
            "public": node.public,
            "registration": False,
            "date_modified": _DATE,
        },
        "relationships": {},
        "links": {
            "self": f"{hosts['api']}/nodes/{node.id}/",
            "html": f"{hosts['site']}/{node.id}/",
        },
    }


def page(rows: list[Json], url: str, query: dict[str, str], *, modern: bool = False) -> Json | None:
    """Return one page of an API listing as the query asks, or None beyond the last page.

    `modern` is the form since API 2.1, where the counts moved.
    """
    size = min(int(query.get("page[size]", 10)), _LARGEST_PAGE)
    number = int(query.get("page", 1))
    last = max(1, -(-len(rows) // size))
    if not 1 <= number <= last:
        return None

    def link(to: int) -> str:
        return f"{url}?{urlencode({**query, 'page': to})}"

    counts = {"total": len(rows), "per_page": size}
    links: Json = {
        "first": link(1) if number > 1 else None,
        "last": link(last) if number < last else None,
        "prev": link(number - 1) if number > 1 else None,
        "next": link(number + 1) if number < last else None,
    }
    meta: Json = {"version": "2.20" if modern else "2.0"}
    if modern:
        links["self"] = link(number)
        meta |= counts
    else:
        links["meta"] = counts
    return {"data": rows[(number - 1) * size : number * size], "links": links, "meta": meta}
