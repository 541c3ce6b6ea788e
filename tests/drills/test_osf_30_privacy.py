"""Drill 30: what is private stays out of cache, logs, tables and messages.

Two kinds of canaries: free text that a converter may have left in files (NIfTI header fields,
a gzip's file name), and secrets of the person who runs the command (a token, a proxy's
password, the signature of a temporary address).
"""

from __future__ import annotations

import gzip
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest
from osf_standin import MODES, FakeClock, Node, OsfStandin, Seen
from support.releases import write_scan

import verse_data
from tests.support.command import verse_data as verse_data_command
from verse_data.api import lock_tree
from verse_data.config import Config
from verse_data.errors import ValidationFailed, VerseDataError
from verse_data.records.lock import LockedFile, LockSource, ReleaseLock
from verse_data.releases.annex import ObjectStore
from verse_data.releases.fetch import FetchResult, fetch_each
from verse_data.releases.http import Backoff
from verse_data.releases.osf import walk_node
from verse_data.releases.repository import Repository

pytestmark = pytest.mark.usefixtures("one_core")

CANARY = "Mustermann"
PASSWORD, EXPORTS = "p4ss-canary", ("prov", "croissant", "rocrate")
SECRETS = ("t0ken-canary", "pr0xy-canary", "c00kie-canary", "Signature", "Expires")
# Where a NIfTI-1 header holds text: data_type, db_name, descrip, aux_file, intent_name.
FIELDS = {4: 10, 14: 18, 148: 80, 228: 24, 328: 16}


def plant(path: Path) -> None:
    """Write the canary into every text field of a NIfTI file, and as the gzip's file name."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    for offset, length in FIELDS.items():
        raw[offset : offset + length] = CANARY.encode()[:length].ljust(length, b"\0")
    with (
        path.open("wb") as stream,
        gzip.GzipFile(f"{CANARY}.nii", "wb", fileobj=stream, mtime=0) as out,
    ):
        out.write(raw)


def hits(folder: Path, words: tuple[str, ...], *, without: tuple[str, ...] = ()) -> list[str]:
    """Return the files below `folder` that hold one of the words, also inside gzip."""
    found = []
    links = {path for path in folder.rglob("*") if path.is_symlink()}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path not in links):
        name = path.relative_to(folder).as_posix()
        if any(part in name for part in without):
            continue
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data += gzip.decompress(data)
        found += [f"{name}: {word}" for word in words if word.encode() in data]
    return found


@pytest.mark.filterwarnings("ignore::verse_data.errors.IncompleteTable")
def test_text_in_headers_gets_nowhere(
    tmp_path: Path, home: Path, capfd: pytest.CaptureFixture[str]
):
    """Store, derived facts, tables, findings and messages hold none of it; only the originals do."""
    tree = tmp_path / "tree"
    for split, stem in (("training", "verse901"), ("validation", "verse902"), ("test", "verse903")):
        write_scan(tree, stem, [20, 21, 22], split=split)
    for path in tree.rglob("*.nii.gz"):
        plant(path)
    lock_tree("lab", tree)
    release = verse_data.open_release("lab")
    samples = [verse_data.load_split(split, release="lab")[0] for split in ("training", "test")]
    texts = [repr(sample) for sample in samples]
    for name in ("scans", "vertebrae", "subjects"):
        table = getattr(release, name)
        table.to_csv(home / f"{name}.csv")
        texts.append(table.to_json())
    texts.append(repr(release.findings))
    texts += capfd.readouterr()
    assert not any(CANARY in text for text in texts)
    assert list((home / "stores").rglob("zarr.json"))
    assert hits(home, (CANARY,), without=(".git/annex/objects",)) == []


def test_secrets_of_the_user_and_of_the_server_get_nowhere(home: Path):
    """Token and signatures are in no file, no result and no error, whatever the server does."""
    node = Node("jtfa5")
    for number in range(3):
        node.upload(f"sub-verse00{number}_ctd.json", f'["{number}", "{"x" * 500}"]'.encode())
    texts: list[str] = []
    with OsfStandin(node) as osf:
        config = Config(
            home=home,
            offline=False,
            osf_api=osf.hosts["api"],
            osf_site=osf.hosts["site"],
            osf_token=SECRETS[0],
        )
        texts.append(repr(config))
        lock = walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
        dataset = Repository(config.releases / "lab", config=config)
        dataset.publish(lock)
        for mode in MODES:
            osf.faults.clear()
            osf.play(mode, seconds=0)
            results: list[FetchResult] = []
            quick = Backoff(tries=2, first=0.001, most=0.01)
            fetch_each(
                ObjectStore(home / "faults" / mode),  # empty, so that each fault is met
                lock.files[:1],
                config=config,
                jobs=1,
                on_result=results.append,
                clock=FakeClock(),
                backoff=quick,
            )
            texts += [repr(result) for result in results]
        osf.faults.clear()
        texts.append(repr(dataset.fetch(lock.files, jobs=2)))
        assert all(dataset.has(file) for file in lock.files)
        assert [seen.token for seen in osf.seen if seen.token] != []
        assert {seen.host for seen in osf.seen if seen.token} == {"api"}
    assert not any(secret in text for text in texts for secret in SECRETS)
    assert hits(home, SECRETS) == []


@pytest.mark.parametrize(
    "address",
    [
        f"https://me:{PASSWORD}@127.0.0.1/a.nii.gz",
        f"https://me:pa/{PASSWORD}@127.0.0.1/a.nii.gz",
        f"https://127.0.0.1/a.nii.gz?token={PASSWORD}",
        f"https://127.0.0.1/a.nii.gz?version=2&X-Amz-Signature={PASSWORD}&sig={PASSWORD}",
        f"https://127.0.0.1/a.nii.gz#access_token={PASSWORD}",
    ],
)
def test_secrets_in_the_addresses_of_a_lock_get_nowhere(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    """Provenance, its exports, status, errors and logs show host and path alone."""
    caplog.set_level("DEBUG")
    file = LockedFile(
        path="rawdata/sub-verse004_ct.nii.gz", size=9, sha256="0" * 64, urls=(address,)
    )
    lock = ReleaseLock(release="lab", source=LockSource(kind="tree"), files=(file,))
    handed = tmp_path / "lock.json"
    handed.write_bytes(lock.canonical())
    out, words = tmp_path / "out", ["--root", str(home)]
    made = verse_data_command("lock", "lab", "--from-lock", str(handed), *words)
    assert made.returncode == 0, made.stderr
    runs = [
        ("get", "lab", *words),
        ("get", "lab", "--offline", *words),
        ("status", "lab", "--json", *words),
        ("provenance", "lab", "--json", *words),
        *(("export", kind, "lab", "--out", str(out / kind), *words) for kind in EXPORTS),
        ("lock", "lab", "--from-lock", address.replace("https", "ftp"), *words),
        ("lock", "other", "--from-sibling", address.replace("https", "ftp"), *words),
    ]
    for run in runs:
        done = verse_data_command(*run)
        assert PASSWORD not in done.stdout + done.stderr, run
    assert len(list(out.iterdir())) == len(EXPORTS)
    assert hits(out, (PASSWORD,)) == []
    assert PASSWORD not in caplog.text
    broken = handed.read_text().replace("https://", "ftp://")
    with pytest.raises(ValidationFailed) as refused:
        ReleaseLock.parse(broken.encode())
    assert PASSWORD not in str(refused.value)


def headers_with(seen: Sequence[Seen], words: tuple[str, ...]) -> set[str]:
    """Return which headers of some request hold one of the words."""
    named = {(name, value) for one in seen for name, value in one.headers.items()}
    return {name for name, value in named if any(word in value for word in words)}


def test_a_host_that_the_api_leads_to_is_told_nothing(home: Path):
    """Neither token nor cookie nor where it was led from goes along; nor is any of it written."""
    node = Node("jtfa5")
    node.upload("rawdata/sub-verse004_ctd.json", b"[]")
    with OsfStandin(node) as osf, OsfStandin(node) as elsewhere:
        osf.moved["api"] = elsewhere.hosts["api"]
        config = Config(
            home=home,
            offline=False,
            osf_api=osf.hosts["api"],
            osf_site=osf.hosts["site"],
            osf_token=SECRETS[0],
        )
        lock = walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
        origin = osf.hosts["api"].removeprefix("http://").removesuffix("/v2")
        assert len(lock.files) == 1
        assert headers_with(osf.seen, SECRETS) == {"authorization"}
        assert elsewhere.count("api") > 0
        assert headers_with(elsewhere.seen, (*SECRETS, origin)) == set()
    assert hits(home, SECRETS) == []


def test_control_urllib_takes_the_token_along():
    """The naive way, urllib, shows the token to whichever host the API leads to."""
    node = Node("jtfa5")
    with OsfStandin(node) as osf, OsfStandin(node) as elsewhere:
        osf.moved["api"] = elsewhere.hosts["api"]
        url = f"{osf.hosts['api']}/nodes/jtfa5/files/osfstorage/"
        asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {SECRETS[0]}"})
        urllib.request.urlopen(asked, timeout=60).close()
        assert headers_with(elsewhere.seen, SECRETS) == {"authorization"}


def test_the_password_of_a_proxy_is_not_told(home: Path, monkeypatch: pytest.MonkeyPatch):
    """An error names the proxy's host and not its password."""
    with OsfStandin() as osf:
        proxy = osf.hosts["mirror"].replace("http://", f"http://me:{SECRETS[1]}@")
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    config = Config(
        home=home, offline=False, osf_api="https://api.osf.io/v2", osf_site="https://osf.io"
    )
    with pytest.raises(VerseDataError, match=r"through the proxy http://127\.0\.0\.1") as caught:
        walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
    assert SECRETS[1] not in str(caught.value)


def test_control_a_copy_of_a_header_keeps_the_text(tmp_path: Path):
    """The naive way, loading and saving with nibabel, carries the text into the new file."""
    nibabel = pytest.importorskip("nibabel")
    write_scan(tmp_path / "tree", "verse901", [20, 21])
    source = next((tmp_path / "tree").rglob("*_ct.nii.gz"))
    plant(source)
    image = nibabel.load(source)
    nibabel.save(
        nibabel.Nifti1Image(image.dataobj, image.affine, image.header), tmp_path / "copy.nii.gz"
    )
    assert hits(tmp_path, (CANARY,), without=("tree/",)) == [f"copy.nii.gz: {CANARY}"]
