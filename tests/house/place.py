"""Where the record is taken: two made-up releases, a stand-in for OSF, and the command line in-process.

Only public seams are used: the names of ``import verse_data as vd``, and ``python -m verse_data``.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import os
import re
import runpy
import signal
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from osf_standin import File, Node, OsfStandin

import verse_data as vd

SHAPE = (32, 64, 24)
WORKBOOK = "ryai190138_AppendixE1.xlsx"
_BLOCK = 65_535
_HEADER_BYTES = 352
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_SETTINGS = ("VERSE_DATA_", "GIT_", "DATALAD_")


@dataclass(frozen=True)
class Said:
    """What one command ended with and said, with placeholders for what must vary."""

    exit: int
    stdout: str
    stderr: str

    @property
    def complaint(self) -> str:
        """The first line of stderr that tells something; before a wrong option, the usage is shown."""
        lines = [line.strip() for line in self.stderr.splitlines()]
        telling = (line for line in lines if line and not line.startswith(("Usage:", "Try ")))
        return next(telling, "")


@dataclass
class Place:
    """A folder with the releases, and the stand-in while it runs."""

    folder: Path
    osf: OsfStandin
    node: Node

    @property
    def home(self) -> Path:
        """The cache root in use."""
        return Path(os.environ["VERSE_DATA_HOME"])

    def call(self, *words: str) -> Said:
        """Run one command as ``python -m verse_data`` does, in this process."""
        out, err = io.StringIO(), io.StringIO()
        code: Any = 0
        before = signal.getsignal(signal.SIGTERM)
        with ExitStack() as stack:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(sys, "argv", ["verse-data", *words])
            stack.callback(signal.signal, signal.SIGTERM, before)
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("default")
            stack.enter_context(redirect_stdout(out))
            stack.enter_context(redirect_stderr(err))
            try:
                runpy.run_module("verse_data", run_name="__main__")
            except SystemExit as end:
                code = end.code or 0
        return Said(int(code), self.tidy(out.getvalue()), self.tidy(err.getvalue()))

    def tidy(self, text: str) -> str:
        """Put placeholders for folders, addresses of the stand-in, times and our own version."""
        for name, address in sorted(self.osf.hosts.items()):
            text = text.replace(address, f"<{name}>")
        text = text.replace(str(self.folder), "<folder>")
        text = text.replace("python -m verse_data", "verse-data")
        text = _TIME.sub("<time>", text)
        version = re.escape(vd.__version__)
        own = rf"(verse-data |[Vv]ersion (?:= \{{)?|ET  - ){version}(?![\d.]*\d)"
        return re.sub(own, r"\1<version>", text)

    @contextmanager
    def elsewhere(self, name: str) -> Iterator[None]:
        """Work for a while in another cache root, which is empty."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VERSE_DATA_HOME", str(self.folder / name))
            yield


@contextmanager
def made(folder: Path) -> Iterator[Place]:
    """Make the place below `folder`: lock the phantom, and let the stand-in serve another as VerSe'19."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    node = Node("jtfa5")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        _environment(patch, folder)
        _build_commands_once(patch)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        osf = stack.enter_context(OsfStandin(node))
        for name, value in osf.environment.items():
            patch.setenv(name, value)
        place = Place(folder, osf, node)
        vd.phantom.write(folder / "written", shape=SHAPE)
        _repack(folder / "written", folder / "tree")
        small = vd.phantom.write(folder / "four", n_subjects=4, shape=SHAPE)
        _repack(small, folder / "osf", rename=("phantom", "verse19"))
        (folder / "osf" / "verse19_grading.xlsx").rename(folder / WORKBOOK)
        node.upload_tree(folder / "osf")
        things = sorted(node.walk().values(), key=lambda found: found[0])
        for number, (_, thing) in enumerate(things):
            thing.id = f"{number:024x}"  # the stand-in counts over all tests of a process
        yield place


def _environment(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let nothing of the person who runs it count: no settings, no git configuration, no width."""
    for name in [name for name in os.environ if name.startswith(_SETTINGS)]:
        patch.delenv(name)
    for name in ("FORCE_COLOR", "PY_COLORS", "TERMINAL_WIDTH"):
        patch.delenv(name, raising=False)
    (folder / "gitconfig").touch()
    patch.setenv("GIT_CONFIG_GLOBAL", str(folder / "gitconfig"))
    patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    patch.setenv("VERSE_DATA_HOME", str(folder / "home"))
    patch.setenv("VERSE_DATA_PROGRESS", "off")
    patch.setenv("COLUMNS", "100")
    patch.chdir(folder)


def _build_commands_once(patch: pytest.MonkeyPatch) -> None:
    """Let typer build its commands once and not at each call: that took a third of the time."""
    with suppress(ImportError):
        import typer.main

        patch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))


def _repack(written: Path, target: Path, rename: tuple[str, str] = ("", "")) -> None:
    """Copy a tree with its volumes stored and not compressed, so that no zlib matters."""
    for path in sorted(written.rglob("*")):
        if path.is_file():
            name = path.relative_to(written).as_posix().replace(*rename)
            content = path.read_bytes()
            packed = stored(gzip.decompress(content)) if path.suffix == ".gz" else content
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(packed)


def stored(content: bytes) -> bytes:
    """Return `content` as gzip of stored blocks."""
    starts = range(0, max(len(content), 1), _BLOCK)
    blocks = []
    for start in starts:
        block = content[start : start + _BLOCK]
        last = start == starts[-1]
        blocks.append(struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block)
    head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    tail = struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)
    return head + b"".join(blocks) + tail


def change_upstream(place: Place) -> None:
    """Let OSF hold a second version: workbook there, a label and a point changed, a snapshot gone."""
    node = place.node
    node.upload(WORKBOOK, (place.folder / WORKBOOK).read_bytes()).id = "e" * 24
    training = "dataset-verse19training/derivatives/sub-verse901/sub-verse901_seg-"
    mask = gzip.decompress(newest(node, f"{training}vert_msk.nii.gz"))
    voxels = mask[_HEADER_BYTES:].replace(bytes([24]), bytes([25]))
    node.upload(f"{training}vert_msk.nii.gz", stored(mask[:_HEADER_BYTES] + voxels))
    points = newest(node, f"{training}subreg_ctd.json")
    node.upload(f"{training}subreg_ctd.json", points.replace(b'"X": ', b'"X": 1', 1))
    gone = "dataset-verse19test/derivatives/sub-verse904/sub-verse904_seg-vert_snp.png"
    node.delete(gone)


def newest(node: Node, path: str) -> bytes:
    """Return the bytes that the stand-in holds under a path."""
    file = node.find(path)
    assert isinstance(file, File)
    return file.newest


def file_digests(folder: Path, *, unpacked: bool = False) -> dict[str, str]:
    """Return the SHA-256 of each file below `folder`, by its path; of ``.gz`` what is packed in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if unpacked and path.suffix == ".gz":
                content = gzip.decompress(content)
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def one_digest(digests: dict[str, str]) -> str:
    """Return one SHA-256 over paths and digests, sorted."""
    lines = (f"{digest}  {path}\n" for path, digest in sorted(digests.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
