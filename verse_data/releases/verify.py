"""Is what lies here what is locked? Each answer that is no says which command mends it."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from verse_data.digests import digest_file
from verse_data.errors import UsageError, VerseDataError, counted
from verse_data.progress import Advance, Progress, silent
from verse_data.records.keys import size_and_digest
from verse_data.records.lock import LockedFile
from verse_data.records.names import parse_path
from verse_data.releases.commands import command

if TYPE_CHECKING:
    from verse_data.releases.dataset import ReleaseDataset

Level = Literal["presence", "size", "hash", "content"]
LEVELS: Final[tuple[Level, ...]] = ("presence", "size", "hash", "content")
"""Each level includes the ones before it."""
Inspect = Callable[[LockedFile], None]
"""Raises one of our errors if the content of a file cannot be used."""

_WORKERS: Final = 4
_SHOWN: Final = 5


@dataclass(frozen=True, kw_only=True)
class FileFinding:
    """One file, or one version, that is not as it should be.

    Attributes
    ----------
    rule : str
        ``missing``, ``wrong-size``, ``corrupt``, ``unusable``, ``wrong-key`` or ``not-in-lock``.
    message : str
        What was found.
    command : str
        What mends it.
    path, scan_id : str
        The file in the release, and the scan that its name tells; empty where it tells none.
    upstream : bool
        Whether the lock itself lacks something, so that nothing on this machine is wrong.
    """

    rule: str
    message: str
    command: str
    path: str = ""
    scan_id: str = ""
    upstream: bool = False


class Verification(tuple[FileFinding, ...]):
    """Everything that is not as it should be; empty means clean.

    A plain tuple of findings, which shows itself in a few lines.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        if not self:
            return "<Verification: clean>"
        counts = Counter(finding.rule for finding in self)
        lines = [f"<Verification: {counted(len(self), 'finding')}>"]
        for rule, count in counts.most_common(_SHOWN):
            first = next(finding for finding in self if finding.rule == rule)
            lines.append(f"  {rule}: {count:,}, such as {first.path or first.scan_id}")
            lines.append(f"    mend: {first.command}")
        return "\n".join(lines)


def verify_files(
    dataset: ReleaseDataset,
    files: Sequence[LockedFile],
    *,
    level: Level = "hash",
    inspect: Inspect | None = None,
    version: str | None = None,
    progress: Progress = silent,
) -> tuple[FileFinding, ...]:
    """Check the contents of `files`, in their order.

    Parameters
    ----------
    dataset : ReleaseDataset
        Where they are.
    files : sequence of LockedFile
        What is checked.
    level : {"presence", "size", "hash", "content"}
        How deep; ``"content"`` calls `inspect` on each file whose digest is right.
    inspect : callable, optional
        Needed for ``"content"``.
    version : str, optional
        The one that `files` are of, for the commands that mend. Default: the newest.
    progress : Progress, optional
        Shows bytes from ``"hash"`` on.

    Raises
    ------
    UsageError
        If there is no such level.
    """
    if level not in LEVELS:
        raise UsageError(
            f"There is no level {level!r} of checking; levels are {', '.join(LEVELS)}."
        )
    deep = LEVELS.index(level) >= LEVELS.index("hash")
    total = sum(file.size for file in files) if deep else len(files)
    with (
        progress(f"Verifying {level}", total, "bytes" if deep else "items") as advance,
        ThreadPoolExecutor(_WORKERS if deep else 1) as pool,
    ):
        inspect = inspect if level == "content" else None
        look = _Look(dataset, level, inspect, advance, _Mends(dataset, version))
        return tuple(found for found in pool.map(look.at, files) if found)


class _Mends:
    """The commands that mend files of one version."""

    def __init__(self, dataset: ReleaseDataset, version: str | None) -> None:
        self._dataset = dataset
        self._newest = dataset.resolve()
        self._version = version or self._newest
        lock = dataset.lock()
        self._kept = {file.annex_key for file in lock.files}
        self._siblings = dataset.siblings()
        self._from_tree = lock.source.kind == "tree"

    def bring(self, file: LockedFile) -> str:
        """Return what brings a content that is not here."""
        get = self._line("get")
        if not self._dataset.addresses(file):
            if self._siblings:
                names = ", ".join(sibling.name for sibling in self._siblings)
                why = f"it has no address; {names} may have it"
                return f"{get} || {self._line('adopt', 'PATH', note=why)}"
            return self._line("adopt", "PATH", note="it has no address")
        if file.annex_key in self._kept:
            return get
        why = f"{self._newest} lacks it: if OSF no longer has it, adopt a copy"
        return f"{get} || {self._line('adopt', 'PATH', note=why)}"

    def again(self, file: LockedFile) -> str:
        """Return what replaces a content that is damaged."""
        return f"{self._line('drop', '--corrupt')} && {self.bring(file)}"

    def other_content(self) -> str:
        """Return what may help where the locked bytes themselves are no use."""
        if self._version != self._newest:
            line = command(self._dataset, "diff", self._version, self._newest)
            return f"{line}  # is the file better in {self._newest}?"
        words = ("--from-tree", "FOLDER") if self._from_tree else ()
        note = "the locked bytes are like this; a mended upload makes a new version"
        return command(self._dataset, "lock", *words, note=note)

    def _line(self, verb: str, *words: str, note: str = "") -> str:
        version = None if self._version == self._newest else self._version
        return command(self._dataset, verb, *words, version=version, note=note)


@dataclass(frozen=True)
class _Look:
    dataset: ReleaseDataset
    level: Level
    inspect: Inspect | None
    advance: Advance
    mends: _Mends

    def at(self, file: LockedFile) -> FileFinding | None:
        """Return what is wrong with one file."""
        deep = LEVELS.index(self.level) >= LEVELS.index("hash")
        found = self._shallow(file)
        if found or not deep:
            self.advance(file.size if deep else 1)
            return found
        return self._digest(file) or self._content(file)

    def _shallow(self, file: LockedFile) -> FileFinding | None:
        path = self.dataset.object_path(file)
        try:
            facts = path.lstat()
        except OSError:
            message = f"{file.size:,} bytes are locked, and are not on this machine"
            return _finding("missing", file, message, self.mends.bring(file))
        if self.level == "presence" or facts.st_size == file.size:
            if stat.S_ISREG(facts.st_mode):
                return None
            message = f"{path} is no regular file"
        else:
            message = f"{facts.st_size:,} bytes lie at {path}, and {file.size:,} are locked"
        return _finding("wrong-size", file, message, self.mends.again(file))

    def _digest(self, file: LockedFile) -> FileFinding | None:
        path = self.dataset.object_path(file)
        try:
            found = digest_file(path, advance=self.advance)
        except OSError as error:
            return _finding("corrupt", file, f"{path}: {error.strerror}", self.mends.again(file))
        if found.sha256 == file.sha256:
            return None
        message = f"sha256 {found.sha256[:12]} lies at {path}, and {file.sha256[:12]} is locked"
        return _finding("corrupt", file, message, self.mends.again(file))

    def _content(self, file: LockedFile) -> FileFinding | None:
        try:
            if self.inspect:
                self.inspect(file)
        except VerseDataError as error:
            return _finding("unusable", file, str(error), self.mends.other_content())
        return None


def audit(dataset: ReleaseDataset, version: str | None = None) -> tuple[FileFinding, ...]:
    """Check that a version's git tree holds what its lock says, under keys that pin it.

    Every key must be SHA256E with size; a URL, VURL or WORM key would accept any content.
    """
    locked = {file.path: file.annex_key for file in dataset.lock(version).files}
    return tuple(_audited(dataset.name, dataset.tree_keys(version), locked))


def _audited(release: str, tree: dict[str, str], locked: dict[str, str]) -> Iterator[FileFinding]:
    rebuild = f"verse-data lock {release} --from-lock FILE --root ANOTHER_FOLDER"
    for path in sorted(tree.keys() | locked.keys()):
        key, wanted = tree.get(path), locked.get(path)
        if key == wanted:
            continue
        if key is not None and size_and_digest(key) is None:
            message = f"key {key!r} does not pin size and SHA-256"
        elif wanted is None:
            message = f"the tree holds it (key {key}), and the lock does not"
        else:
            message = f"the tree holds key {key}, and the lock says {wanted}"
        rule = "not-in-lock" if wanted is None else "wrong-key"
        yield FileFinding(
            rule=rule, path=path, scan_id=scan_of(path), message=message, command=rebuild
        )


def scan_of(path: str) -> str:
    """Return the scan that a path's name tells, or an empty text."""
    name = parse_path(path)
    return name.scan_id if name and name.role != "grading" else ""


def _finding(rule: str, file: LockedFile, message: str, command: str) -> FileFinding:
    return FileFinding(
        rule=rule, path=file.path, scan_id=scan_of(file.path), message=message, command=command
    )
