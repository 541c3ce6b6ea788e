"""Zips as the standard library writes them are read as it reads them."""

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

from verse_data.errors import ArchiveRefused
from verse_data.releases.zip_directory import read_members
from verse_data.releases.zip_members import extract

NAMES = st.from_regex(r"[a-zé-]{1,8}(/[a-z0-9_.]{1,8}[a-z0-9]){0,3}", fullmatch=True)
BODIES = st.binary(max_size=3000) | st.binary(min_size=1, max_size=9).map(lambda part: part * 90)


class Memory:
    """A zip in memory, given away in pieces of a few bytes."""

    def __init__(self, data: bytes, piece: int) -> None:
        self.name = "memory.zip"
        self.size = len(data)
        self._data = data
        self._piece = piece

    def read(self, first: int, length: int) -> bytes:
        """Return bytes."""
        return self._data[first : first + length]

    def stream(self, first: int, length: int) -> Iterator[bytes]:
        """Yield bytes piece by piece."""
        for place in range(first, first + length, self._piece):
            yield self._data[place : min(place + self._piece, first + length)]


def written(files: dict[str, bytes], method: int) -> bytes:
    """Return a zip of `files`."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return stream.getvalue()


@settings(deadline=None, max_examples=150)
@given(
    files=st.dictionaries(NAMES, BODIES, max_size=6),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    piece=st.integers(1, 5000),
)
def test_what_the_standard_library_writes_is_read(files: dict[str, bytes], method: int, piece: int):
    """Each member comes out as it went in, whatever the pieces; name clashes alone are refused."""
    source = Memory(written(files, method), piece)
    names = {name.casefold() for name in files}
    clash = len(names) < len(files) or any(
        other.startswith(f"{name}/") for name in names for other in names
    )
    if clash:
        with pytest.raises(ArchiveRefused, match=r"one name|is a file"):
            read_members(source)
        return
    members = read_members(source)
    assert {member.name: member.size for member in members} == {
        name: len(body) for name, body in files.items()
    }
    with TemporaryDirectory() as folder:
        for member in members:
            target = Path(folder) / "member"
            found = extract(source, member, target, advance=lambda _: None)
            assert target.read_bytes() == files[member.name]
            assert found == hashlib.sha256(files[member.name]).hexdigest()
