"""Verifying local files against their lock, and dropping files that can be fetched again.

Each finding names the command that repairs it.
"""

from __future__ import annotations

import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from verse_data import markup
from verse_data.errors import Offline, VerseDataError, counted, one_of
from verse_data.files import digest_file
from verse_data.progress import Progress, silent
from verse_data.records.lock import LockedFile
from verse_data.records.names import scan_of
from verse_data.records.source_file import size_and_digest
from verse_data.releases import annex
from verse_data.releases.download import Servers
from verse_data.releases.fetch import FetchLog
from verse_data.releases.history import command, unless_newest
from verse_data.releases.http import Backoff
from verse_data.releases.urls import redacted

if TYPE_CHECKING:
    from verse_data.releases.repository import Repository
    from verse_data.releases.siblings import Sibling

Level = Literal["presence", "size", "hash", "content"]
LEVELS: Final[dict[Level, str]] = {
    "presence": "are here",
    "size": "have the locked size",
    "hash": "have the locked SHA-256",
    "content": "have the locked SHA-256 and can be used",
}
"""What is true of a file that passes. Each level includes the ones before it."""
Inspect = Callable[[LockedFile], None]
"""Raises one of our errors if the content of a file cannot be used."""

_WORKERS: Final = 4
_REQUESTS: Final = 8
_SHOWN: Final = 5
_IN_NOTEBOOK: Final = 20
_BACKOFF: Final = Backoff(tries=4)


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
        The command that fixes it; empty if nothing does.
    path, scan_id : str
        The file in the release, and the scan by its name; empty if there is none.
    upstream : bool
        Whether the lock itself lacks something, and nothing on this machine is wrong.
    """

    rule: str
    message: str
    command: str
    path: str = ""
    scan_id: str = ""
    upstream: bool = False


class Verification(tuple[FileFinding, ...]):  # noqa: SLOT001 - it has an attribute
    """Everything that is not as it should be; empty means clean.

    A plain tuple of findings with a short ``repr``, and what was verified in one line: `summary`.
    """

    summary: str = ""

    def __repr__(self) -> str:
        found = counted(len(self), "finding") if self else "clean"
        counts = Counter(finding.rule for finding in self)
        lines = [f"<Verification: {found}; {self.summary}>"]
        for rule, count in counts.most_common(_SHOWN):
            first = next(finding for finding in self if finding.rule == rule)
            lines.append(f"  {rule}: {count:,}, such as {first.path or first.scan_id}")
            if first.command:
                lines.append(f"    mend: {first.command}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the first findings for a notebook, each with the command that fixes it."""
        if not self:
            return markup.facts("Verification", {"found": "clean", "checked": self.summary})
        shown = self[:_IN_NOTEBOOK]
        heads = ("rule", "file", "found", *["mend"] * any(f.command for f in shown))
        rows = ((f.rule, f.path or f.scan_id, f.message, f.command)[: len(heads)] for f in shown)
        more = f"; the first {_IN_NOTEBOOK} of them" if len(self) > _IN_NOTEBOOK else ""
        caption = f"Verification: {counted(len(self), 'finding')}{more}; {self.summary}"
        return markup.table(heads, rows, caption=caption, left=range(1, 4))


def verify_files(
    dataset: Repository,
    files: Sequence[LockedFile],
    *,
    level: Level = "hash",
    inspect: Inspect | None = None,
    version: str | None = None,
    progress: Progress = silent,
) -> tuple[FileFinding, ...]:
    """Check the contents of `files`, in their order; UsageError if there is no such level.

    ``"content"`` calls `inspect` on each file with the locked digest. `version` is that of `files`,
    for the commands that fix them; default: the newest.
    """
    one_of("level", level, LEVELS)
    deep = level in {"hash", "content"}
    typed, near = unless_newest(dataset, version), dataset.siblings()
    words = ("--from-tree", "FOLDER") if dataset.lock(version).source.kind == "tree" else ()
    note = "the locked bytes are like this; a corrected upload makes a new version"
    lock_again = command(dataset, "lock", *words, note=note)

    def check(file: LockedFile) -> FileFinding | None:
        wrong = _difference(dataset.object_path(file), file, level)
        advance(file.size if deep else 1)
        if wrong:
            damaged = wrong[0] != "missing"
            line = dataset.remedy(file, typed, damaged=damaged, siblings=near)
            return _finding(*wrong, file.path, line)
        try:
            if inspect and level == "content":
                inspect(file)
        except VerseDataError as error:
            return _finding("unusable", str(error), file.path, lock_again)
        return None

    total = sum(file.size for file in files) if deep else len(files)
    with (
        progress(f"Verifying {level}", total, "bytes" if deep else "items") as advance,
        ThreadPoolExecutor(_WORKERS if deep else 1) as pool,
    ):
        return tuple(filter(None, pool.map(check, files)))


def _difference(path: Path, file: LockedFile, level: Level) -> tuple[str, str] | None:
    """Return rule and message if `path` is not the locked file, as far as `level` checks."""
    try:
        facts = path.lstat()
    except OSError:
        return "missing", f"{file.size:,} bytes are locked, and are not on this machine"
    if not stat.S_ISREG(facts.st_mode):
        return "wrong-size", f"{path} is no regular file"
    if level != "presence" and facts.st_size != file.size:
        return "wrong-size", f"{facts.st_size:,} bytes lie at {path}, and {file.size:,} are locked"
    try:
        if level in {"presence", "size"} or (sha256 := digest_file(path).sha256) == file.sha256:
            return None
    except OSError as error:
        return "corrupt", f"{path}: {error.strerror}"
    return "corrupt", f"sha256 {sha256[:12]} lies at {path}, and {file.sha256[:12]} is locked"


def audit(dataset: Repository, version: str | None = None) -> tuple[FileFinding, ...]:
    """Check that a version's git tree has the files of its lock, under keys that pin them."""
    # Every key must be SHA256E with size; a URL, VURL or WORM key would accept any content.
    tree = dataset.tree_keys(version)
    locked = {file.path: file.annex_key for file in dataset.lock(version).files}
    rebuild = f"verse-data lock {dataset.name} --from-lock FILE --root ANOTHER_FOLDER"
    found = []
    for path in sorted(tree.keys() | locked.keys()):
        key, wanted = tree.get(path), locked.get(path)
        if key == wanted:
            continue
        message = f"the tree holds key {key}, and the lock says {wanted}"
        if key is not None and size_and_digest(key) is None:
            message = f"key {key!r} does not pin size and SHA-256"
        rule = "wrong-key" if wanted else "not-in-lock"
        found.append(_finding(rule, message, path, rebuild))
    return tuple(found)


def _finding(rule: str, message: str, path: str, command: str) -> FileFinding:
    scan_id = scan_of(path) or ""
    return FileFinding(rule=rule, path=path, scan_id=scan_id, message=message, command=command)


@dataclass(frozen=True)
class DropReport:
    """The result of one call of ``drop``: files whose contents were removed, or stay, and why."""

    dropped: tuple[LockedFile, ...]
    shared: tuple[tuple[LockedFile, str], ...] = ()  # other files have the same content
    kept: tuple[tuple[LockedFile, str], ...] = ()  # no other copy was found

    @property
    def bytes(self) -> int:
        """Bytes freed on the disk."""
        return sum(file.size for file in {file.annex_key: file for file in self.dropped}.values())


def drop_files(
    dataset: Repository,
    files: Sequence[LockedFile],
    *,
    version: str | None = None,
    unchecked: bool = False,
    damaged: bool = False,
) -> DropReport:
    """Remove the contents of `files`, which are of `version`, from this machine.

    A content is removed only if all files with it, in their own version and in the newest, are among
    `files`; and if an address or a sibling still has it, which is not checked if `unchecked`. Of
    contents that are known to be `damaged`, neither is checked.
    """
    here = {file.annex_key: file for file in files if dataset.object_path(file).exists()}
    if not here:
        return DropReport(())
    annex.require_usable(dataset.path)
    shared = {} if damaged else _needed_by_others(dataset, files, version)
    gone = {key: file for key, file in here.items() if key not in shared}
    held: dict[str, Sibling] = {}  # folders that have the content too
    kept: dict[str, str] = {}
    if not (unchecked or damaged):
        held = {
            key: sibling
            for sibling in dataset.siblings()
            for key, file in gone.items()
            if sibling.has(file, excluding=dataset.object_path(file))
        }
        kept = _not_served(dataset, [file for key, file in gone.items() if key not in held])
        gone = {key: file for key, file in gone.items() if key not in kept}
    # First, so that git-annex never believes a removed content to be here, also if interrupted.
    annex.record_presence(dataset.path, dict.fromkeys(gone, False))
    FetchLog(dataset.path).note("dropped", gone)
    # If the sibling that had it too has removed it meanwhile, the content is put back.
    back = [key for key, file in gone.items() if not _is_removed(dataset, file, held.get(key))]
    annex.record_presence(dataset.path, dict.fromkeys(back, True))
    kept |= dict.fromkeys(back, "its other copy, at a sibling, was removed meanwhile")
    # Several files may have one content: each is reported, in the order of their paths.
    named = [(file, file.annex_key) for file in sorted(files, key=lambda file: file.path)]
    return DropReport(
        tuple(file for file, key in named if key in gone and key not in kept),
        shared=tuple((file, shared[key]) for file, key in named if key in shared),
        kept=tuple((file, kept[key]) for file, key in named if key in kept),
    )


def _is_removed(dataset: Repository, file: LockedFile, holder: Sibling | None) -> bool:
    return dataset.store.remove(
        file, confirm=lambda: holder is None or holder.find(file) is not None
    )


def _needed_by_others(
    dataset: Repository, files: Sequence[LockedFile], version: str | None
) -> dict[str, str]:
    """Return by key which files that were not named have the same content."""
    named = {(file.annex_key, file.path) for file in files}
    others: dict[str, dict[str, None]] = defaultdict(dict)
    for lock in (dataset.lock(version), dataset.lock()):
        for file in lock.files:
            if (file.annex_key, file.path) not in named:
                others[file.annex_key][file.path] = None
    return {
        key: f"it is also the content of {first}, which was not named"
        + (f", and of {len(more)} more" if more else "")
        for key, (first, *more) in others.items()
    }


def _not_served(dataset: Repository, files: Sequence[LockedFile]) -> dict[str, str]:
    """Return by key why no address serves a content any more; contents that are served are absent."""
    if files and dataset.config.offline:
        raise Offline(
            f"{dataset.name}: whether the files can be fetched again cannot be checked, since the "
            f"network is forbidden (offline). Allow it, or use --unchecked to remove them regardless."
        )
    if not files:
        return {}

    def refusal(file: LockedFile) -> str | None:
        why = "it has no address."
        for url in dataset.addresses(file):
            try:
                if servers.size_offered(url) == file.size:
                    return None
                why = f"{redacted(url)} does not offer {file.size:,} bytes any more."
            except VerseDataError as error:
                why = str(error)
        # An empty file is never lost.
        return f"no other copy of it was found: {why}" if file.size else None

    servers = Servers(dataset.config, backoff=_BACKOFF)
    # In this order, so that an interruption wakes the threads that wait for a server.
    with ThreadPoolExecutor(_REQUESTS) as pool, closing(servers):
        reasons = list(pool.map(refusal, files))
    return {
        file.annex_key: why for file, why in zip(files, reasons, strict=True) if why is not None
    }
