"""Drill 10: everything a server does wrong, fresh and resumed, on the git-annex engine."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from osf_standin import FakeClock, Node, OsfStandin

from verse_data.config import Config
from verse_data.errors import (
    DownloadCorrupt,
    NotTheFile,
    RateLimited,
    ServerUnavailable,
    SourceChanged,
    Truncated,
    UrlRefused,
    VerseDataError,
)
from verse_data.records.lock import LockedFile
from verse_data.releases.annex_engine import AnnexEngine
from verse_data.releases.dataset import ReleaseDataset
from verse_data.releases.environment import tool_environment
from verse_data.releases.fetch import FetchResult
from verse_data.releases.osf_walk import walk_node
from verse_data.releases.pacing import Backoff

# The fault and the classes it may end in; none where git-annex gets over it.
TABLE: dict[str, set[type[VerseDataError]]] = {
    "cut_length": {Truncated},
    "cut_no_length": {Truncated},
    "cut_chunked": {Truncated},
    "reset": {Truncated, ServerUnavailable},
    "stall": {Truncated, ServerUnavailable},
    "html": {NotTheFile},
    "html_as_bytes": {NotTheFile},
    "gzip": {NotTheFile},
    "negative_length": set(),
    "redirect_file": {UrlRefused},
    "redirect_private": {UrlRefused},
    "extra": {DownloadCorrupt},
    "flip": {DownloadCorrupt},
    "throttle": {RateLimited},
    "unavailable": {ServerUnavailable},
    "gone": {SourceChanged},
}
LARGE, SMALL = "rawdata/sub-verse004_ct.nii.gz", "derivatives/sub-verse004_ctd.json"


@dataclass
class Place:
    """A stand-in, and a dataset of its node."""

    osf: OsfStandin
    dataset: ReleaseDataset

    def fetch(self, *, stall: float = 120.0) -> dict[str, FetchResult]:
        """Fetch all files; return the results by path."""
        results: dict[str, FetchResult] = {}
        engine = AnnexEngine(
            self.dataset.config,
            self.dataset,
            stall=stall,
            backoff=Backoff(tries=3, first=0.01, most=0.02),
        )

        def keep(result: FetchResult) -> None:
            assert result.file.path not in results
            results[result.file.path] = result

        engine.fetch(self.dataset.lock().files, jobs=2, on_result=keep)
        return results

    def forget(self) -> None:
        """Remove everything that came, and what was left of it."""
        self.osf.faults.clear()
        annex = self.dataset.path / ".git" / "annex"
        for folder in (annex / "objects", annex / "tmp", self.dataset.store.incoming):
            subprocess.run(["chmod", "-R", "u+w", folder], check=False, capture_output=True)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Serve a CT-sized file and a centroid file that is smaller than a web page."""
    node = Node("jtfa5")
    node.upload(LARGE, b"\x1f\x8b" + random.Random(10).randbytes(300_000))
    node.upload(SMALL, b'[{"direction": ["P", "I", "R"]}, {"label": 20, "X": 1.5}]')
    with OsfStandin(node) as osf:
        home = tmp_path_factory.mktemp("home")
        config = Config(
            home=home, offline=False, osf_api=osf.hosts["api"], osf_site=osf.hosts["site"]
        )
        dataset = ReleaseDataset(home / "lab", config=config)
        dataset.publish(walk_node("jtfa5", config=config, release="lab", clock=FakeClock()))
        yield Place(osf, dataset)


def right(dataset: ReleaseDataset, file: LockedFile) -> bool:
    """Whether the content of `file` is here and is the locked one."""
    return hashlib.sha256(dataset.content(file).read_bytes()).hexdigest() == file.sha256


@pytest.mark.parametrize("start", ["fresh", "resumed"])
@pytest.mark.parametrize("mode", TABLE)
def test_no_fault_puts_a_wrong_file_in_place(place: Place, mode: str, start: str) -> None:
    """A fault that stays is its named error and leaves nothing wrong; then the files come."""
    place.forget()
    if start == "resumed":
        place.osf.play("cut_length", times=1, match="")
        place.osf.play("gone")
        place.fetch()
        place.osf.faults.clear()
    place.osf.play(mode, seconds=60 if mode == "stall" else 2)

    results = place.fetch(stall=1.0 if mode == "stall" else 120.0)

    for file in place.dataset.lock().files:
        result = results[file.path]
        assert result.error_class in (TABLE[mode] or {None}), result.error
        assert result.ok is place.dataset.has(file)
        assert file.path in (result.error or file.path)
        assert "Signature" not in str(result.error)
        assert result.tries <= 10
    place.osf.faults.clear()
    assert all(result.ok for result in place.fetch().values())
    assert all(right(place.dataset, file) for file in place.dataset.lock().files)


def test_control_plain_git_annex_stays_poisoned(place: Place) -> None:
    """A page in place of a small file, cut short on its way: plain git-annex cannot get over what is left."""
    small = place.dataset.lock().by_path[SMALL]
    settings = ("-c", "annex.security.allowed-ip-addresses=127.0.0.1", "-c", "annex.retry=0")

    def plain() -> int:
        command = ["git-annex", "get", "--key", small.annex_key, *settings]
        done = subprocess.run(
            command,
            cwd=place.dataset.path,
            env=tool_environment(),
            capture_output=True,
            check=False,
        )
        return done.returncode

    place.forget()
    left = place.dataset.path / ".git" / "annex" / "tmp" / small.annex_key
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"<html>" + b"x" * 500)
    assert plain() != 0
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"<html>" + b"x" * 500)
    assert place.fetch()[SMALL].ok


def test_neither_token_nor_password_reaches_a_server(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A token in the environment, and a credential helper that would answer, are given to nobody."""
    place.forget()
    marker = tmp_path / "asked"
    monkeypatch.setenv("VERSE_DATA_OSF_TOKEN", "very-secret")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "credential.helper")
    monkeypatch.setenv(
        "GIT_CONFIG_VALUE_0", f"!touch {marker}; echo username=u; echo password=very-secret"
    )
    first = len(place.osf.seen)

    results = place.fetch()

    assert all(result.ok for result in results.values())
    assert "very-secret" not in repr(place.osf.seen[first:])
    assert not marker.exists()
