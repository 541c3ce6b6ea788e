"""One file over HTTP: ask, guard, resume, verify.

Size and digest are known before the first request, so that nothing is believed: an answer is
looked at before a byte of it is kept, and what is kept counts only when its digest is the locked
one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from verse_data.errors import DownloadCorrupt, NotTheFile, StorageError, Truncated
from verse_data.progress import Advance
from verse_data.records.lock import LockedFile
from verse_data.releases.answers import (
    CORRUPT,
    FINAL,
    RESTART,
    UNAVAILABLE,
    WRONG,
    Fault,
    RangeRefused,
    read_some,
)
from verse_data.releases.first_bytes import is_markup, lacks_signature, looks_like_a_page
from verse_data.releases.http import Http
from verse_data.releases.partials import Partial
from verse_data.releases.reach import shown

if TYPE_CHECKING:
    import requests

_PEEK: Final = 512
_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass
class Transfer:
    """The download of one file into its partial.

    Attributes
    ----------
    http : Http
        Session.
    file : LockedFile
        What is wanted.
    into : Partial
        What has come of it.
    advance : Advance
        Told of each byte that is kept, and of each that is thrown away again, as a minus.
    stopped : callable
        Says whether the whole call is being interrupted.
    received : int
        Bytes that came over the network, wasted ones included.
    """

    http: Http
    file: LockedFile
    into: Partial
    advance: Advance
    stopped: Callable[[], bool]
    received: int = field(default=0)

    def attempt(self, url: str) -> None:
        """Ask `url` once for what is missing, and verify the whole.

        Raises
        ------
        Fault
            If the file is not complete and right afterwards.
        """
        resumed = self.into.size > 0
        if self.into.size < self.file.size:
            try:
                with self.http.open(url, headers=self._headers(), size=self.file.size) as response:
                    self._agree(response, url)
                    self._begin(response, url)
                    resumed = response.status_code == 206
                    self._read(response, url)
            except RangeRefused:
                self.restart()
                raise
        self._verify(url, resumed=resumed)

    def _headers(self) -> dict[str, str]:
        if not self.into.size:
            return {}
        headers = {"Range": f"bytes={self.into.size}-"}
        if self.into.etag and not self.into.etag.startswith("W/"):
            headers["If-Range"] = self.into.etag
        return headers

    def _agree(self, response: requests.Response, url: str) -> None:
        """Check that the answer is what was asked for, before what is here is touched."""
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in {"", "identity"}:
            why = f"sent as {encoding}, although the bytes themselves were asked for"
            raise Fault(NotTheFile(f"{self._at(url)}: {why}. Nothing was kept."), WRONG)
        if response.status_code == 206:
            self._agree_on_range(response, url)
        rest = self.file.size - (self.into.size if response.status_code == 206 else 0)
        length = response.headers.get("Content-Length", "").strip()
        # A negative or garbled length says nothing; then the bytes are counted.
        said = int(length) if length.isascii() and length.isdigit() else rest
        if said > rest or (said < rest and response.status_code == 200):
            self._refuse_length(response, url, said, rest)
        kind = response.headers.get("Content-Type", "").lower()
        if response.status_code == 206 and "html" in kind and not is_markup(self.file.path):
            raise _not_the_file(self._at(url), kind, b"")

    def _agree_on_range(self, response: requests.Response, url: str) -> None:
        match = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        total = match[3] if match else ""
        if not match or int(match[1]) != self.into.size or total not in {"*", str(self.file.size)}:
            asked, told = self.into.size, response.headers.get("Content-Range", "no range")
            self.restart()
            text = f"{self._at(url)}: bytes from {asked} on were asked for, and {told!r} was sent."
            raise Fault(Truncated(f"{text} Nothing was kept."), RESTART)

    def _refuse_length(self, response: requests.Response, url: str, said: int, rest: int) -> None:
        first = self._peek(response, url) if response.status_code == 200 else b""
        kind = response.headers.get("Content-Type", "")
        if first and (
            looks_like_a_page(self.file.path, first)
            or "html" in kind.lower()
            or lacks_signature(self.file.path, first)
        ):
            raise _not_the_file(self._at(url), kind, first)
        text = f"{self._at(url)}: {said:,} bytes are offered, where {rest:,} are expected."
        raise Fault(DownloadCorrupt(f"{text} Nothing of them was kept."), CORRUPT)

    def _begin(self, response: requests.Response, url: str) -> None:
        """Look at the first bytes of a whole answer, and only then let it replace what is here."""
        first = b""
        if response.status_code == 200:
            first = self._peek(response, url)
            if first and looks_like_a_page(self.file.path, first):
                raise _not_the_file(self._at(url), response.headers.get("Content-Type", ""), first)
            self.restart()
        etag = response.headers.get("ETag")
        if not self.into.size or etag != self.into.etag:
            self.into.describe(url=url, etag=etag)
        self._keep(first)

    def _read(self, response: requests.Response, url: str) -> None:
        while block := read_some(response, url):
            self.received += len(block)
            self._keep(block)
            if self.stopped():
                raise Fault(Truncated(f"{self._at(url)}: interrupted."), FINAL)
        if self.into.size < self.file.size:
            raise Fault(Truncated(f"{self._at(url)}: the transfer ended too soon."), UNAVAILABLE)

    def _peek(self, response: requests.Response, url: str) -> bytes:
        first = b""
        try:
            while len(first) < _PEEK and (block := read_some(response, url, _PEEK - len(first))):
                first += block
        except Fault:
            # What came is worth a look, and the next read tells of the same fault.
            if not first:
                raise
        self.received += len(first)
        return first

    def _keep(self, block: bytes) -> None:
        before = self.into.size
        try:
            self.into.append(block)
        except DownloadCorrupt as error:
            self.advance(-before)
            raise Fault(error, CORRUPT) from error
        except StorageError as error:
            raise Fault(error) from error
        self.advance(len(block))

    def _verify(self, url: str, *, resumed: bool) -> None:
        found = self.into.sha256
        if found == self.file.sha256:
            return
        self.restart()
        text = (
            f"{self._at(url)}: sha256 {self.file.sha256[:12]} is locked, and {found[:12]} came "
            f"({self.file.size:,} bytes). Nothing was kept."
        )
        # After a resume the fault may lie in what was kept from before.
        raise Fault(DownloadCorrupt(text), RESTART if resumed else CORRUPT)

    def restart(self) -> None:
        """Throw away what has come."""
        self.advance(-self.into.size)
        self.into.reset()

    def _at(self, url: str) -> str:
        return f"{self.file.path} from {shown(url)}"


def _not_the_file(place: str, kind: str, first: bytes) -> Fault:
    text = (
        f"{place}: another page was sent in its place (content type {kind or 'none'!r}, first bytes "
        f"{first[:16]!r}). Nothing of it was kept. Run the same command again later; if it stays, "
        f"look at the address in a browser."
    )
    return Fault(NotTheFile(text), WRONG)
