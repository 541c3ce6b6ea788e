"""The error classes, with the exit code of the command line for each branch.

::

    VerseDataError                      1   any other error of this package
    ├── UsageError (ValueError)         2   an argument, option or name is wrong
    ├── ValidationFailed (ValueError)   3   metadata or a volume breaks a rule
    ├── IntegrityError                  4   bytes are missing or not the expected ones
    │   ├── ContentMissing (FileNotFoundError) · ContentCorrupt
    │   ├── ChunkMissing · ChunkCorrupt · StoreCorrupt
    │   ├── VolumeCorrupt
    │   └── DownloadCorrupt · SourceChanged
    ├── NetworkError (ConnectionError)  5   try again later
    │   └── RateLimited · ServerUnavailable · Truncated · NotTheFile · Offline
    ├── StorageError                    6   a problem on this machine
    │   └── DiskFull · PermissionDenied · LockTimeout · ToolMissing
    ├── UnsafeInput (ValueError)        7   refused before use
    │   ├── NiftiRefused · ArchiveRefused · SheetRefused · PathRefused · UrlRefused
    │   └── QueryRefused                2   a query is something that the user typed
    └── SampleError (RuntimeError)      1   a training sample could not be made

Every error takes exactly one string, so that it survives pickling on its way out of a
``DataLoader`` worker, and every text says what, where, why, and what to type next.
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Final

_GUESSES: Final = 3


class IncompleteTable(UserWarning):
    """Tables lack rows or cells, because files that fill them are not on this machine."""


def warn(warning: Warning) -> None:
    """Issue a warning for the line of the caller outside this package."""
    package = f"{Path(__file__).parent}{os.sep}"
    frame, level = inspect.currentframe(), 1
    while frame and frame.f_code.co_filename.startswith(package):
        frame, level = frame.f_back, level + 1
    warnings.warn(warning, stacklevel=level)


def counted(number: int, one: str, several: str = "") -> str:
    """Return `number` with its noun, singular or plural; `several` defaults to `one` with an s."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'training'?"`` for the `known` words nearest to `word`, or nothing.

    Those start with it, contain it (``901`` in ``verse901``), or are spelled alike, in this order.
    """
    from difflib import get_close_matches

    typed, names = str(word).strip().lower(), {name.lower(): name for name in known}
    starting = [name for name in names if len(typed) > 1 and name.startswith(typed)]
    containing = [name for name in names if len(typed) > 1 and typed in name]
    similar = get_close_matches(typed, names, n=1, cutoff=0.6)
    guesses = (starting or containing or similar)[:_GUESSES]
    *others, last = ["", *(repr(names[name]) for name in guesses)]
    listed = ", ".join(filter(None, others))
    return f" Did you mean {listed}{' or ' if listed else ''}{last}?" if last else ""


def one_of(option: str, value: object, allowed: Iterable[str]) -> str:
    """Return `value` if it is one of the `allowed` words, else raise `UsageError` with the option."""
    known = [*allowed]
    if isinstance(value, str) and value in known:
        return value
    near = did_you_mean(value, known)
    raise UsageError(f"{option}={value!r} is none of {', '.join(known)}.{near}")


class VerseDataError(Exception):
    """Base of every error that this package raises on purpose.

    Parameters
    ----------
    message : str
        What happened, where, why, and what to type next.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)

    def __str__(self) -> str:
        """Return only the message, which builtin bases such as OSError would decorate."""
        return str(self.args[0])


class UsageError(VerseDataError, ValueError):
    """An argument, option, release, split or version name is wrong."""

    exit_code = 2


class ValidationFailed(VerseDataError, ValueError):
    """Metadata or a volume breaks a rule of its model."""

    exit_code = 3


class IntegrityError(VerseDataError):
    """Bytes are not what a lock, a manifest or the file itself declares."""

    exit_code = 4


class ContentMissing(IntegrityError, FileNotFoundError):
    """A file of the release is locked, but its content is not on this machine."""


class ChunkMissing(IntegrityError):
    """A key of a Zarr store that its manifest lists does not exist."""


class ChunkCorrupt(IntegrityError):
    """A chunk of a Zarr store is not the one that its manifest lists."""


class StoreCorrupt(IntegrityError):
    """A Zarr store's metadata or manifest is damaged, foreign or of an unknown layout."""


class ContentCorrupt(IntegrityError):
    """A locked file on this machine does not have its locked size or digest."""


class VolumeCorrupt(IntegrityError):
    """A compressed volume is truncated, damaged, or longer than it declares."""


class DownloadCorrupt(IntegrityError):
    """Downloaded bytes do not have the locked size or digest."""


class SourceChanged(IntegrityError):
    """A source sends other bytes, or another listing, than it did before."""


class NetworkError(VerseDataError, ConnectionError):
    """The network or a server failed; trying again later may help."""

    exit_code = 5


class RateLimited(NetworkError):
    """A server asked us to come back later."""


class ServerUnavailable(NetworkError):
    """A server could not be reached, or reported an internal error."""


class Truncated(NetworkError):
    """A transfer ended before the locked size was reached."""


class NotTheFile(NetworkError):
    """A server answered with something else, such as a log-in page."""


class Offline(NetworkError):
    """The network is needed, but this process may not use it."""


class StorageError(VerseDataError):
    """A problem on this machine: disk, permissions, locks, tools."""

    exit_code = 6


class DiskFull(StorageError):
    """Not enough space on the disk."""


class PermissionDenied(StorageError, PermissionError):
    """A path may not be read or written by this user."""


class LockTimeout(StorageError, TimeoutError):
    """Another process held a lock for too long."""


class ToolMissing(StorageError):
    """A tool, git or git-annex, is absent or too old."""


@contextmanager
def needed(by: str) -> Iterator[None]:
    """Raise ToolMissing for a package that is imported within, and is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = str(error.name).partition(".")[0]
        raise ToolMissing(
            f"{by} needs {name}, which is not installed: pip install {name}"
        ) from None


class UnsafeInput(VerseDataError, ValueError):
    """An input was refused before use because it is hostile or beyond a limit."""

    exit_code = 7


class NiftiRefused(UnsafeInput):
    """A NIfTI header declares something that is not supported."""


class ArchiveRefused(UnsafeInput):
    """An archive or one of its members breaks a safety rule."""


class SheetRefused(UnsafeInput):
    """A workbook is beyond the limits, or crashed the process that read it."""


class PathRefused(UnsafeInput):
    """A path points out of the folder that it belongs to."""


class UrlRefused(UnsafeInput):
    """An address, or a redirect, leads to a host that this package does not contact."""


class QueryRefused(UnsafeInput):
    """A ``where=`` expression is not part of the query grammar."""

    exit_code = 2


FILE_FAULTS: Final = (IntegrityError, UnsafeInput, ValidationFailed)
"""Errors that a bad file causes, gravest first; all others are problems of this machine."""


class SampleError(VerseDataError, RuntimeError):
    """A training sample could not be made; the text names the scan and the cause."""
