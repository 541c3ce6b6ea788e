"""How git-annex words what went wrong, and what a file that is no file looks like."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from verse_data.errors import (
    DiskFull,
    DownloadCorrupt,
    NetworkError,
    PermissionDenied,
    RateLimited,
    ServerUnavailable,
    SourceChanged,
    StorageError,
    Truncated,
    UrlRefused,
    VerseDataError,
)
from verse_data.records.lock import LockedFile
from verse_data.releases.first_bytes import lacks_signature
from verse_data.releases.reach import shown


@dataclass(frozen=True)
class Kind:
    """A kind of failure: how git-annex words it, what it is, and what may be done about it."""

    words: str
    error: type[VerseDataError]
    tries: int
    says: str
    poison: bool = False
    waits: bool = True


_KINDS: Final = (
    Kind("not enough free space|No space left|disk quota", DiskFull, 1,
         "there is too little room on the disk. Free some, or set VERSE_DATA_HOME to a larger one"),
    Kind("permission denied", PermissionDenied, 1,
         "the dataset may not be written by this user. Mend its permissions"),
    Kind("dubious ownership|owned by someone else", PermissionDenied, 1,
         "the dataset belongs to another user. Work as that user, or allow it once with git config "
         "--global --add safe.directory FOLDER"),
    Kind("already in progress|transfer lock", StorageError, 120,
         "another git-annex is fetching it. Wait for that to end, and run this again"),
    Kind("allowed-ip-addresses|allowed-url-schemes", UrlRefused, 1,
         "its address is on this machine or a private network, where no configured endpoint is"),
    Kind("TooManyRedirects", ServerUnavailable, 2, "the server sends in circles. Try again later"),
    Kind("Too Many Requests", RateLimited, 6, "the server asks to come back later"),
    Kind("Not Found|Gone", SourceChanged, 1,
         "the server no longer has it. On OSF a deleted file is gone in all its versions. If you have "
         "the bytes: verse-data adopt RELEASE PATH"),
    # A log-in page, or a signed address that has run out: our own engine tells them apart.
    Kind("Forbidden|Unauthorized|credential", NetworkError, 1, "the server refuses to give it"),
    Kind("Verification of content failed|checksum", DownloadCorrupt, 2,
         "other bytes came than are locked; nothing was kept", poison=True, waits=False),
    Kind("Range Not Satisfiable", DownloadCorrupt, 2,
         "what was left of an earlier try does not fit; it was removed", poison=True, waits=False),
    Kind("BodyTooShort|IncompleteRead|InvalidChunk|resource vanished|closed", Truncated, 4,
         "the transfer broke off. Run the same command again to go on"),
    Kind("fewer than .* bytes came", ServerUnavailable, 2, "the server fell silent. Try again later", waits=False),
    Kind("Unavailable|Bad Gateway|Gateway Time|Internal Server Error|onnect|imeout|tall|resolve",
         ServerUnavailable, 5, "the server cannot be reached, or fails. Try again later"),
)  # fmt: skip
_UNKNOWN: Final = Kind("", NetworkError, 2, "git-annex could not get it. Try again later")


def kind_of(text: str) -> Kind:
    """Return the kind of failure that git-annex's complaints tell of."""
    text = text.split("[Response", 1)[0]  # headers may hold any word
    fits = (kind for kind in _KINDS if re.search(kind.words, text, re.IGNORECASE))
    return next(fits, _UNKNOWN)


def size_of(path: Path) -> int:
    """Return the size of a file, 0 if there is none."""
    with suppress(OSError):
        return path.stat().st_size
    return 0


def looks_wrong(path: Path, file: LockedFile) -> bool:
    """Whether the first bytes cannot be those of a file with this name: a page in its place."""
    try:
        with path.open("rb") as stream:
            return lacks_signature(file.path, stream.read(16))
    except OSError:
        return False


def quoted(text: str) -> str:
    """Return git-annex's complaints in one short line, without signatures of addresses."""
    plain = re.sub(
        r"https?://[^\s\"',)\]]+", lambda url: shown(url[0]), text.split("[Response", 1)[0]
    )
    return " ".join(plain.split())[:300]
