"""Where a redirect may lead, and what goes along: no token, no cookie, no step back to http."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import requests
from osf_standin import FakeClock, Node, OsfStandin, Seen, TlsFront

from verse_data.config import Config
from verse_data.errors import UrlRefused
from verse_data.releases.http import Http, read_url
from verse_data.releases.osf import walk_node

TOKEN = "t0ken-canary"


def node() -> Node:
    """Return a node with one file in a folder."""
    made = Node("jtfa5")
    made.upload("rawdata/sub-verse004_ct.nii.gz", b"voxels")
    return made


@pytest.fixture
def hosts() -> Iterator[tuple[OsfStandin, OsfStandin]]:
    """Serve the same node twice: by the API that is configured, and by one elsewhere."""
    served = node()
    with OsfStandin(served) as ours, OsfStandin(served) as elsewhere:
        yield ours, elsewhere


def config_of(home: Path, api: str, site: str) -> Config:
    """Return settings with a token."""
    return Config(home=home, offline=False, osf_api=api, osf_site=site, osf_token=TOKEN)


def taken_along(seen: list[Seen]) -> set[str]:
    """Return which headers that tell of a person or a place came with some request."""
    private = {"authorization", "cookie", "referer", "origin", "proxy-authorization"}
    return {name for one in seen for name in one.headers if name in private}


def test_a_cookie_of_one_answer_is_not_shown_at_the_next(
    hosts: tuple[OsfStandin, OsfStandin], home: Path
):
    """Not even the host that asked to keep one gets it back."""
    ours, elsewhere = hosts
    ours.moved["api"] = elsewhere.hosts["api"]
    config = config_of(home, ours.hosts["api"], ours.hosts["site"])

    walk_node("jtfa5", config=config, release="lab", clock=FakeClock())

    assert ours.count("api") > 1
    assert taken_along(ours.seen) == {"authorization"}


def test_only_an_address_of_the_api_gets_the_token(
    hosts: tuple[OsfStandin, OsfStandin], home: Path
):
    """Asked to send it, a session sends it to the API's own scheme, host and port alone."""
    ours, elsewhere = hosts
    config = config_of(home, ours.hosts["api"], ours.hosts["site"])
    listing = "/nodes/jtfa5/files/osfstorage/"

    with closing(Http(config, clock=FakeClock(), token=True)) as http:
        for standin in hosts:
            with http.open(f"{standin.hosts['api']}{listing}") as response:
                assert response.status_code == 200

    assert [seen.token for seen in ours.seen] == [f"Bearer {TOKEN}"]
    assert [seen.token for seen in elsewhere.seen] == [None]


@pytest.fixture
def secure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[TlsFront, OsfStandin]]:
    """Serve a node over plain http, and before it a host over https that leads there."""
    served = node()
    with OsfStandin(served) as plain, TlsFront(plain.hosts["mirror"], tmp_path) as front:
        plain.mirror["/lock.json"] = b"{}"
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(front.certificate))
        yield front, plain


def test_no_redirect_leads_from_https_to_http(secure: tuple[TlsFront, OsfStandin], home: Path):
    """A host that may be asked over http is not asked so where the way there began with https."""
    front, plain = secure
    config = config_of(home, plain.hosts["api"], plain.hosts["site"])

    with pytest.raises(UrlRefused, match=r"from https to plain http\. Nothing was sent"):
        read_url(f"{front.url}/lock.json", config=config, most=100)

    assert front.paths == ["/lock.json"]
    assert plain.seen == []


def test_no_listing_is_read_over_http_where_the_api_is_https(
    secure: tuple[TlsFront, OsfStandin], home: Path
):
    """A listing names digests: whoever sits on the line could write others."""
    front, plain = secure
    front.target = plain.hosts["api"].removesuffix("/v2")
    config = config_of(home, f"{front.url}/v2", plain.hosts["site"])

    with pytest.raises(UrlRefused, match=r"from https to plain http\. Nothing was sent"):
        walk_node("jtfa5", config=config, release="lab", clock=FakeClock())

    assert len(front.paths) == 1
    assert plain.seen == []


def test_control_requests_follows_from_https_to_http(secure: tuple[TlsFront, OsfStandin]):
    """Left to itself, the library goes where it is led: the certificate is good, the way is open."""
    front, plain = secure

    assert requests.get(f"{front.url}/lock.json", timeout=60).content == b"{}"

    assert [seen.path for seen in plain.seen] == ["/lock.json"]
