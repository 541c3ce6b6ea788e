"""Zips as the standard library writes them are adopted, from the disk and from a server alike."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from osf_standin import OsfStandin

from verse_data.config import Config
from verse_data.records.lock import LockedFile, LockSource, ReleaseLock
from verse_data.releases import adopt, remote_zip
from verse_data.releases.annex import ObjectStore

NAMES = st.from_regex(r"[a-zé-]{1,8}(/[a-z0-9_.]{1,8}[a-z0-9]){0,3}", fullmatch=True)
BODIES = st.binary(max_size=3000) | st.binary(min_size=1, max_size=9).map(lambda part: part * 1500)


def written(files: dict[str, bytes], method: int) -> bytes:
    """Return a zip of `files`."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return stream.getvalue()


@pytest.fixture(scope="module")
def osf() -> Iterator[OsfStandin]:
    """A server that gives ranges."""
    with OsfStandin() as standin:
        yield standin


@settings(deadline=None, max_examples=60)
@given(
    files=st.dictionaries(NAMES, BODIES, max_size=6),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    tail=st.integers(1, 2000),
    unlocked=st.integers(0, 2),
)
def test_what_the_standard_library_writes_is_adopted(
    osf: OsfStandin, files: dict[str, bytes], method: int, tail: int, unlocked: int
):
    """Each locked member is taken as it went in, however much comes at once; others are not."""
    locked = tuple(
        LockedFile(path=f"{number}.bin", size=len(body), sha256=hashlib.sha256(body).hexdigest())
        for number, body in enumerate(list(files.values())[unlocked:])
    )
    lock = ReleaseLock(release="lab", source=LockSource(kind="tree"), files=locked)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote_zip, "_TAIL", tail)
        patch.setattr(adopt, "_BLOCK", 1000)
        patch.setattr(adopt, "_RANGE", 5000)
        path = Path(folder) / "some.zip"
        path.write_bytes(written(files, method))
        osf.mirror["/some.zip"] = path.read_bytes()
        config = Config(
            home=Path(folder),
            offline=False,
            osf_api="https://api.osf.io/v2",
            osf_site="https://osf.io",
        )
        reports = []
        for source in (path, f"{osf.hosts['mirror']}/some.zip"):
            store = ObjectStore(Path(folder) / f"store{len(reports)}")
            reports.append(adopt.adopt_sources([source], lock, store, config=config))
            for file in locked:
                assert (
                    hashlib.sha256(store.object_path(file).read_bytes()).hexdigest() == file.sha256
                )
        digests = {file.sha256 for file in locked}
        others = [n for n, body in files.items() if hashlib.sha256(body).hexdigest() not in digests]
        assert [file.path for file in reports[0].new] == [file.path for file in locked]
        assert (sorted(others), []) == (reports[0].unknown, reports[0].different)
        assert reports[0] == reports[1]
