"""One long-lived ``git annex get --batch-keys`` that several threads ask for keys.

Its answers come in any order. A process that hangs is ended, and whoever waits is told.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from verse_data.releases.annex import annex_command
from verse_data.releases.environment import check_annex, tool_environment, without_secrets
from verse_data.releases.keys import object_path

_POLL: Final = 0.5
_STALL_BYTES: Final = 10_000
# Ends git-annex when we are gone. Left alone after a kill -9 of ours it waits for ever on its closed
# output, and with it on the lock of the key that it was getting.
_GUARDED: Final = """
(while kill -0 "$0" && kill -0 $$; do sleep 1; done; kill -0 "$0" || kill -KILL -$$) \
    </dev/null >/dev/null 2>&1 &
exec "$@"
"""
_FAREWELL: Final = 10.0
_FROM: Final = re.compile(r"from (\S+?)\.\.\.")


class AnnexDied(Exception):
    """The process ended, or was ended, before it answered."""


class AnnexEnded(AnnexDied):
    """The process was ended because of another key than the one that was asked for."""


@dataclass(frozen=True)
class Answer:
    """What git-annex says about one key.

    Attributes
    ----------
    ok : bool
        Whether it came.
    text : str
        Complaints.
    source : str or None
        The remote that was asked last: ``"web"``, or the name of a sibling; None if not told.
    """

    ok: bool
    text: str
    source: str | None = None


@dataclass
class _Question:
    answer: Future[Answer]
    heard: Callable[[int], None]
    seen: float
    """When enough bytes had come for the last time, and how many that were."""
    amount: int = 0
    source: str | None = None

    def hear(self, amount: int) -> None:
        """Note how many bytes are here."""
        if abs(amount - self.amount) >= _STALL_BYTES:
            self.seen, self.amount = time.monotonic(), amount
        self.heard(amount)


class GetProcess:
    """A running ``git annex get``.

    Parameters
    ----------
    repository : Path
        The dataset.
    jobs : int
        Most keys at a time.
    settings : sequence of str
        Further git settings of this process alone, such as ``annex.retry=0``.
    stall : float
        Seconds in which at least 10 kB of a key must come; else the process is ended.
    """

    def __init__(
        self, repository: Path, *, jobs: int, settings: Sequence[str], stall: float
    ) -> None:
        check_annex()
        self.pid = os.getpid()
        self._repository = repository
        self._stall = stall
        self._killed = False
        self._open: dict[str, _Question] = {}
        self._lock = threading.Lock()
        self._closing = threading.Lock()
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        options = ("--batch-keys", "--json", "--json-progress", "--json-error-messages")
        command = annex_command("get", *options, f"--jobs={jobs}", settings=settings)
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _GUARDED, str(self.pid), *command],
            cwd=repository,
            env=without_secrets(tool_environment()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            start_new_session=True,  # so that its helpers end with it
        )
        self._reader = threading.Thread(target=self._read, name="git-annex", daemon=True)
        self._reader.start()

    def is_usable(self) -> bool:
        """Whether it runs, and was started by this very process and not by its parent."""
        return self.pid == os.getpid() and self._process.poll() is None

    def is_busy(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(self._open)

    def ask(self, key: str, heard: Callable[[int], None]) -> Answer:
        """Get one key, and return when git-annex is done with it.

        No other thread may ask for the same key at the same time. `heard` is told how many bytes
        of it are here, each time that git-annex tells.

        Raises
        ------
        AnnexDied
            If the process ended, or gave too few bytes for too long and was ended.
        """
        question = _Question(Future(), heard, time.monotonic())
        with self._lock:
            self._open[key] = question
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(f"{key}\n".encode())
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            kind = AnnexEnded if self._killed else AnnexDied
            raise kind(self._last_words()) from error
        while True:
            with suppress(TimeoutError):
                return question.answer.result(timeout=_POLL)
            if time.monotonic() - question.seen > self._stall:
                with self._lock:
                    self._open.pop(key, None)
                self.kill()
                raise AnnexDied(f"fewer than {_STALL_BYTES:,} bytes came in {self._stall:.0f} s")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._hear(line.strip())
        words = self._last_words()
        kind = AnnexEnded if self._killed else AnnexDied
        with self._lock:
            left, self._open = self._open, {}
        for question in left.values():
            with suppress(InvalidStateError):
                question.answer.set_exception(kind(words))

    def _hear(self, line: bytes) -> None:
        if not line:
            self._settle_present()
            return
        try:
            said: dict[str, Any] = json.loads(line)
        except ValueError:
            return
        action = said.get("action") or {}
        key = str(said.get("key") or action.get("key"))
        if "success" not in said:
            question = self._open.get(key)
            if question and "byte-progress" in said:
                question.source = _source(str(action.get("note") or "")) or question.source
                question.hear(int(said["byte-progress"]))
            return
        note = str(said.get("note") or "")
        text = "; ".join([*map(str, said.get("error-messages") or ()), note])
        self._settle(key, Answer(bool(said["success"]), text, _source(note)))

    def _settle(self, key: str, answer: Answer) -> None:
        with self._lock:
            question = self._open.pop(key, None)
        if question:
            with suppress(InvalidStateError):
                question.answer.set_result(answer)

    def _settle_present(self) -> None:
        """Answer for the keys that are here: an empty line says that one is, but not which."""
        for key, question in list(self._open.items()):
            if (self._repository / object_path(key)).exists():
                self._settle(key, Answer(ok=True, text="", source=question.source))

    def _last_words(self) -> str:
        with suppress(OSError, ValueError):
            self._complaints.seek(0)
            lines = self._complaints.read().decode(errors="replace").strip().splitlines()
            return lines[-1] if lines else "git-annex ended without a word"
        return "git-annex was ended"

    def kill(self) -> None:
        """End the process and its helpers now; what has come stays for the next try."""
        self._killed = True
        if self.pid == os.getpid():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """Let the process finish, and wait for it; a second call waits for the first."""
        if self.pid != os.getpid():
            return
        with self._closing:
            if not self._complaints.closed:
                self._close()

    def _close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_FAREWELL)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if threading.current_thread() is not self._reader:
            self._reader.join()
        self._process.stdout.close()
        self._complaints.close()


def _source(note: str) -> str | None:
    """Return the remote that git-annex says it turned to last, as in ``from web...``."""
    named = _FROM.findall(note)
    return str(named[-1]) if named else None
