"""Is what lies here what is locked? Each answer that is no says which command mends it."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from verse_data.errors import UsageError, VerseDataError, counted
from verse_data.files import digest_file
from verse_data.progress import Advance, Progress, silent
from verse_data.records.keys import size_and_digest
from verse_data.records.lock import LockedFile
from verse_data.records.names import scan_of
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
    """Check the contents of `files`, in their order; UsageError if there is no such level.

    ``"content"`` calls `inspect` on each file whose digest is right. `version` is the one that
    `files` are of, for the commands that mend; the newest if missing.
    """
    if level not in LEVELS:
        raise UsageError(
            f"There is no level {level!r} of checking; levels are {', '.join(LEVELS)}."
        )
    deep = level in {"hash", "content"}
    mend = _Mends(dataset, version)

    def found(file: LockedFile) -> FileFinding | None:
        path = dataset.object_path(file)
        wrong = _shallow(path, file, by_size=level != "presence")
        if wrong or not deep:
            advance(file.size if deep else 1)
        if wrong:
            rule, message = wrong
            command = mend.bring(file) if rule == "missing" else mend.again(file)
            return _finding(rule, file.path, message, command)
        if deep and (damage := _damage(path, file, advance)):
            return _finding("corrupt", file.path, damage, mend.again(file))
        try:
            if inspect and level == "content":
                inspect(file)
        except VerseDataError as error:
            return _finding("unusable", file.path, str(error), mend.other_content())
        return None

    total = sum(file.size for file in files) if deep else len(files)
    with (
        progress(f"Verifying {level}", total, "bytes" if deep else "items") as advance,
        ThreadPoolExecutor(_WORKERS if deep else 1) as pool,
    ):
        return tuple(filter(None, pool.map(found, files)))


def _shallow(path: Path, file: LockedFile, *, by_size: bool) -> tuple[str, str] | None:
    """Return rule and message if what lies at `path` cannot be the content, by name and size."""
    try:
        facts = path.lstat()
    except OSError:
        return "missing", f"{file.size:,} bytes are locked, and are not on this machine"
    if by_size and facts.st_size != file.size:
        return "wrong-size", f"{facts.st_size:,} bytes lie at {path}, and {file.size:,} are locked"
    return None if stat.S_ISREG(facts.st_mode) else ("wrong-size", f"{path} is no regular file")


def _damage(path: Path, file: LockedFile, advance: Advance) -> str | None:
    """Return what is wrong with the bytes at `path`."""
    try:
        sha256 = digest_file(path, advance=advance).sha256
    except OSError as error:
        return f"{path}: {error.strerror}"
    if sha256 == file.sha256:
        return None
    return f"sha256 {sha256[:12]} lies at {path}, and {file.sha256[:12]} is locked"


class _Mends:
    """The commands that mend files of one version; git is asked once, not for each file."""

    def __init__(self, dataset: ReleaseDataset, version: str | None) -> None:
        lock = dataset.lock()
        self._dataset = dataset
        self._newest = dataset.resolve()
        self._version = version or self._newest
        self._kept = {file.annex_key for file in lock.files}
        self._siblings = ", ".join(sibling.name for sibling in dataset.siblings())
        self._from_tree = lock.source.kind == "tree"

    def bring(self, file: LockedFile) -> str:
        """Return what brings a content that is not here."""
        get, served = self._line("get"), self._dataset.addresses(file)
        if served and file.annex_key in self._kept:
            return get
        if served:
            why = f"{self._newest} lacks it: if OSF no longer has it, adopt a copy"
        elif self._siblings:
            why = f"it has no address; {self._siblings} may have it"
        else:
            return self._line("adopt", "PATH", note="it has no address")
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


def audit(dataset: ReleaseDataset, version: str | None = None) -> tuple[FileFinding, ...]:
    """Check that a version's git tree holds what its lock says, under keys that pin it.

    Every key must be SHA256E with size; a URL, VURL or WORM key would accept any content.
    """
    tree = dataset.tree_keys(version)
    locked = {file.path: file.annex_key for file in dataset.lock(version).files}
    rebuild = f"verse-data lock {dataset.name} --from-lock FILE --root ANOTHER_FOLDER"
    found = []
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
        found.append(_finding(rule, path, message, rebuild))
    return tuple(found)


def _finding(rule: str, path: str, message: str, command: str) -> FileFinding:
    scan_id = scan_of(path) or ""
    return FileFinding(rule=rule, path=path, scan_id=scan_id, message=message, command=command)
