"""The stand-in is as strict as OSF, so that what passes here has a chance there."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from typing import Any

import pytest
from osf_standin import Node, OsfStandin

BODY = bytes(range(256)) * 40


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Shows redirects instead of following them."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nothing."""


@pytest.fixture
def osf() -> Iterator[OsfStandin]:
    """Serve 250 small files and one with two versions."""
    node = Node("jtfa5")
    for number in range(250):
        node.upload(f"many/{number:03}.txt", b"%d" % number)
    node.upload("ct.nii.gz", b"old")
    node.upload("ct.nii.gz", BODY)
    with OsfStandin(node) as standin:
        yield standin


def ask(url: str, **headers: str) -> tuple[int, bytes, Message]:
    """Return status, body and headers of one request, redirects shown."""
    opener = urllib.request.build_opener(NoRedirect())
    request = urllib.request.Request(
        url, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
    try:
        with opener.open(request, timeout=60) as response:
            return response.status, response.read(), response.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def listing(osf: OsfStandin, query: str) -> tuple[int, dict[str, Any]]:
    """Return status and JSON of the large folder's listing."""
    folder = osf.nodes["jtfa5"].find("many").id
    status, body, _ = ask(f"{osf.hosts['api']}/nodes/jtfa5/files/osfstorage/{folder}/{query}")
    return status, json.loads(body)


def test_pages_are_ten_long_a_hundred_at_most_and_end(osf: OsfStandin):
    """The default is 10, 1000 becomes 100, and beyond the last page lies a 404."""
    assert len(listing(osf, "")[1]["data"]) == 10
    assert len(listing(osf, "?page[size]=1000")[1]["data"]) == 100
    status, last = listing(osf, "?page[size]=100&page=3")
    assert (status, len(last["data"]), last["links"]["next"]) == (200, 50, None)
    assert last["links"]["meta"] == {"total": 250, "per_page": 100}
    status, beyond = listing(osf, "?page[size]=100&page=4")
    assert (status, beyond["errors"][0]["detail"]) == (404, "Invalid page.")


def test_a_listing_has_one_level_ids_and_no_guids(osf: OsfStandin):
    """Folders end in a slash, files have version and digests, and nobody has opened a page yet."""
    _, body, _ = ask(f"{osf.hosts['api']}/nodes/jtfa5/files/osfstorage/")
    folder, file = json.loads(body)["data"]
    assert folder["attributes"]["path"] == f"/{folder['id']}/"
    assert "download" not in folder["links"]
    assert (file["attributes"]["guid"], file["attributes"]["current_version"]) == (None, 2)
    assert file["links"]["upload"].startswith(osf.hosts["storage"])
    assert len(file["id"]) == 24


def test_a_download_takes_three_hosts_and_ends_at_a_signed_address(osf: OsfStandin):
    """Site, storage, bucket; the pin to a version holds, odd and unknown versions are refused."""
    file = osf.nodes["jtfa5"].find("ct.nii.gz")
    site = f"{osf.hosts['site']}/download/{file.id}/"
    status, _, headers = ask(f"{site}?version=1")
    assert (status, headers["Location"].startswith(osf.hosts["storage"])) == (302, True)
    status, _, headers = ask(headers["Location"])
    assert (status, headers["Location"].startswith(osf.hosts["bucket"])) == (302, True)
    assert ask(headers["Location"])[:2] == (200, b"old")
    assert ask(headers["Location"] + "0")[0] == 403
    osf.clock_offset = 61.0
    assert ask(headers["Location"])[0] == 400
    assert ask(f"{site}?version=x")[0] == 400
    assert ask(f"{site}?version=3")[0] == 404
    assert ask(f"{osf.hosts['site']}/download/abcde/")[0] == 404


def test_the_bucket_serves_ranges_as_buckets_do(osf: OsfStandin):
    """206 with Content-Range, 416 beyond the end, the whole where If-Range does not hold."""
    url = osf.signed(BODY)
    status, body, headers = ask(url, Range="bytes=100-199")
    assert (status, body, headers["Content-Range"]) == (206, BODY[100:200], "bytes 100-199/10240")
    assert ask(url, Range="bytes=-5")[1] == BODY[-5:]
    assert ask(url, Range="bytes=10240-")[0] == 416
    assert ask(url, Range="bytes=5-", If_Range=headers["ETag"])[0] == 206
    assert ask(url, Range="bytes=5-", If_Range='"other"')[0] == 200


def test_identical_bytes_make_no_version_and_deletion_takes_all(osf: OsfStandin):
    """As on OSF: a version is made by other bytes only, and no pin survives deletion."""
    node = osf.nodes["jtfa5"]
    file = node.upload("ct.nii.gz", BODY)
    assert len(file.versions) == 2
    node.rename("ct.nii.gz", "renamed.nii.gz")
    assert len(file.versions) == 2
    node.delete("renamed.nii.gz")
    assert ask(f"{osf.hosts['site']}/download/{file.id}/?version=1")[0] == 404


def test_hashes_of_old_versions_are_waterbutlers_alone(osf: OsfStandin):
    """``?versions=`` tells both versions with digests, newest first."""
    file = osf.nodes["jtfa5"].find("ct.nii.gz")
    where = f"{osf.hosts['storage']}/v1/resources/jtfa5/providers/osfstorage/{file.id}"
    rows = json.loads(ask(f"{where}?versions=")[1])["data"]
    assert [row["attributes"]["version"] for row in rows] == ["2", "1"]
    assert all(row["attributes"]["extra"]["hashes"]["sha256"] for row in rows)


def test_a_private_node_leads_to_a_page_and_a_token_is_refused_elsewhere(osf: OsfStandin):
    """The log-in page comes with status 200; a token at any host but the API is an error."""
    file = osf.nodes["jtfa5"].find("ct.nii.gz")
    osf.nodes["jtfa5"].public = False
    status, _, headers = ask(f"{osf.hosts['site']}/download/{file.id}/")
    assert (status, "/login" in headers["Location"]) == (302, True)
    status, body, _ = ask(headers["Location"])
    assert (status, b"<html>" in body) == (200, True)
    assert ask(f"{osf.hosts['api']}/nodes/jtfa5/files/osfstorage/")[0] == 401
    assert ask(f"{osf.hosts['site']}/download/{file.id}/", Authorization="Bearer x")[0] == 400


def test_limits_throttle_with_retry_after(osf: OsfStandin):
    """The third request in a second waits, and is told for how long."""
    osf.limit("api", "", 2, 1.0)
    statuses = [listing(osf, "")[0] for _ in range(2)]
    status, body, headers = ask(f"{osf.hosts['api']}/nodes/jtfa5/children/")
    assert (statuses, status, headers["Retry-After"]) == ([200, 200], 429, "1")
    assert "throttled" in json.loads(body)["errors"][0]["detail"]
