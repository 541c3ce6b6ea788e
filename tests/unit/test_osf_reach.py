"""Which addresses are opened."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import verse_data

from verse_data.errors import UrlRefused
from verse_data.records.lock import LockedFile
from verse_data.releases.fetch import file_urls
from verse_data.releases.urls import check_url, download_url, redacted

PUBLIC = ("https://api.osf.io/v2", "https://osf.io")
LOOPBACK = ("http://127.0.0.1:8000/v2", "http://127.0.0.1:8001")
INSTITUTE = ("https://10.1.2.3/v2", "https://10.1.2.3")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x",
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://2130706433/x",
        "https://0x7f.1/x",
        "https://0.0.0.0/x",
        "https://localhost/x",
        "https://10.0.0.1/x",
        "https://172.16.0.1/x",
        "https://192.168.1.1/x",
        "https://100.64.0.1/x",
        "http://169.254.169.254/latest/meta-data",
        "https://[fe80::1]/x",
        "https://[fd00::1]/x",
        "https://224.0.0.1/x",
        "http://8.8.8.8/x",
        "file:///etc/passwd",
        "ftp://8.8.8.8/x",
        "gopher://8.8.8.8/x",
        "https:///x",
        "//8.8.8.8/x",
        "https://user:word@8.8.8.8/x",
        "https://8.8.8.8:notaport/x",
        "https://[::1/x",
        "",
    ],
)
def test_near_and_odd_addresses_are_refused(url: str):
    """With OSF itself configured, no spelling of a private address is opened, nor plain http."""
    with pytest.raises(UrlRefused, match=r"Nothing was sent"):
        check_url(url, named=PUBLIC)


@pytest.mark.parametrize("url", ["https://8.8.8.8/x", "https://[2606:4700::1111]:8443/x?y#z"])
def test_public_addresses_over_https_are_opened(url: str):
    """A public host over https needs no permission."""
    check_url(url, named=PUBLIC)
    check_url(url, named=LOOPBACK)


def test_a_configured_loopback_endpoint_opens_loopback_and_nothing_else_near():
    """The stand-in's other ports are open; an institute's network is not."""
    check_url("http://127.0.0.1:9999/v1/resources", named=LOOPBACK)
    check_url("http://localhost:9999/", named=LOOPBACK)
    for url in ("http://10.1.2.3/", "http://169.254.169.254/", "http://8.8.8.8/"):
        with pytest.raises(UrlRefused):
            check_url(url, named=LOOPBACK)


def test_a_configured_private_endpoint_opens_exactly_its_own_host():
    """Its neighbour stays closed, and so does plain http where https was named."""
    check_url("https://10.1.2.3:8443/bucket", named=INSTITUTE)
    for url in ("https://10.1.2.4/", "http://10.1.2.3/", "https://127.0.0.1/"):
        with pytest.raises(UrlRefused):
            check_url(url, named=INSTITUTE)


@pytest.mark.parametrize("places", [("8.8.8.8", "10.0.0.1"), ("10.0.0.2", "8.8.4.4")])
def test_a_name_that_leads_to_a_public_and_a_private_address_is_refused(
    monkeypatch: pytest.MonkeyPatch, places: tuple[str, str]
):
    """Whichever of them comes first: a connection may go to any."""
    name = f"two-faces-{places[0]}.invalid"

    def look_up(host: str, *_: object, **__: object) -> list[object]:
        if host != name:
            raise OSError(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, 0)) for place in places]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(UrlRefused, match=r"an address of this machine or a private network"):
        check_url(f"https://{name}/x", named=PUBLIC)


def test_behind_a_proxy_names_are_the_proxys_but_literal_addresses_are_judged():
    """A name that cannot be looked up here passes; 127.0.0.1 does not."""
    check_url("https://only-the-proxy-knows.invalid/x", named=PUBLIC, proxied=True)
    for literal in ("127.0.0.1", "[::1]", "0x7f.1"):
        with pytest.raises(UrlRefused):
            check_url(f"https://{literal}/x", named=PUBLIC, proxied=True)


def test_what_is_shown_of_an_address_holds_no_secret():
    """User, password and signature are gone; the version stays."""
    text = redacted("https://me:word@osf.io/download/5f/?version=2&Signature=abc&token=t#frag")
    assert text == "https://osf.io/download/5f/?version=2"
    assert "cannot be read" in redacted("https://[::1")


def test_addresses_on_osf_are_made_from_ids_and_come_first():
    """A lock holds ids; the address is pinned to the version, below the configured site."""
    file = LockedFile(
        path="a.json",
        size=1,
        sha256="0" * 64,
        node="jtfa5",
        file_id="5ffca086e80d370320a594cc",
        file_version=3,
        urls=("https://mirror.example/a.json",),
    )
    assert file_urls(file, osf_site="https://osf.io") == (
        "https://osf.io/download/5ffca086e80d370320a594cc/?version=3",
        "https://mirror.example/a.json",
    )
    assert (
        download_url("http://127.0.0.1:1", "ab", 1) == "http://127.0.0.1:1/download/ab/?version=1"
    )


@pytest.fixture
def proxy(request: pytest.FixtureRequest) -> Iterator[str]:
    """Serve a proxy that answers every request with one status."""

    def answer() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:  # closed
                return
            with connection:
                connection.recv(65536)
                connection.sendall(
                    f"HTTP/1.1 {request.param}\r\nContent-Length: 0\r\n\r\n".encode()
                )

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def told(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the error of asking OSF with these settings alone, in at most one try."""
    for stem in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", *BUNDLES):
        for name in (stem, stem.upper()):
            monkeypatch.delenv(name, raising=False)
    done = verse_data("lock", "verse19", **variables)
    assert "Traceback" not in done.stderr
    assert "Tried" not in done.stderr
    assert done.returncode in {5, 7}
    return done.stderr.splitlines()[-1]


BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.mark.parametrize("variable", BUNDLES)
@pytest.mark.parametrize("content", [None, "", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_certificates_that_are_none_are_named_at_once(
    variable: str, content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is absent, empty or no PEM file lets no request succeed: no second is made."""
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_text(content)
    proxies = {"HTTPS_PROXY": "http://127.0.0.1:9"}  # so that no name is looked up

    text = told({**proxies, variable: str(bundle)}, monkeypatch)
    assert f"{variable}={bundle} holds no certificates" in text
    assert "Unset it" in text


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("http://127.0.0.1:9", "The proxy is not there (Connection refused)"),
        ("http://nobody.invalid:3128", "The proxy is not there ("),
        ("http://", "Check how the proxy is written"),
        ("http://host:port", "Check how the proxy is written"),
        ("http://[::1", "Check how the proxy is written"),
        ("http://a b:3128", "Check how the proxy is written"),
        ("ftp://127.0.0.1:9", "Check how the proxy is written"),
        ("socks5h://127.0.0.1:9", "pip install pysocks"),
    ],
)
def test_a_proxy_that_cannot_work_is_named_at_once(
    variable: str, address: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cause and the variable to change are told; an odd NO_PROXY changes nothing."""
    text = told({variable: address, "NO_PROXY": "[::1,10.0.0.0/99,http://x/,*.y,,"}, monkeypatch)
    assert why in text
    assert variable in text


@pytest.mark.parametrize(
    ("proxy", "status"), [("407 Log In", 407), ("403 Forbidden", 403)], indirect=["proxy"]
)
def test_a_proxy_that_refuses_is_asked_once(
    proxy: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its status is told, and what to write where."""
    why = f"(status {status}). Change HTTPS_PROXY; one that wants a password is written http://USER"
    assert why in told({"HTTPS_PROXY": proxy}, monkeypatch)


@pytest.mark.parametrize("proxy", ["407 Log In"], indirect=True)
def test_a_proxy_of_plain_http_wants_a_password_too(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer is told to be the proxy's, and not the mirror's."""
    mirror = {"VERSE_DATA_OSF_API": "http://10.1.2.3/v2"}
    assert "the proxy wants a user and a password" in told(
        {"HTTP_PROXY": proxy, **mirror}, monkeypatch
    )


def test_an_https_address_of_a_proxy_that_speaks_http_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """urllib3 calls it a failure of the proxy, of which another try could get rid."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        address = f"https://127.0.0.1:{server.getsockname()[1]}"
        assert "Write http:// in HTTPS_PROXY" in told({"HTTPS_PROXY": address}, monkeypatch)
