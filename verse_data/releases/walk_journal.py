"""What round one of a walk over OSF has listed, line by line, so that an interrupted walk goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from verse_data.config import Config
from verse_data.digests import canonical_json
from verse_data.locks import key_lock
from verse_data.publishing import storage_errors
from verse_data.releases.osf_listing import Child, Entry

_SCHEMA: Final = 2
_Listed = TypeVar("_Listed", Entry, Child)
_PATIENCE: Final = 2.0


class Journal:
    """Listings of round one of one walk.

    A line is a whole listing of one folder. A line that a kill has cut is not read; its folder is
    listed again. Nothing here needs to be fresh: if a folder has changed since, the second round
    tells. For that the second round is asked of OSF from its first folder to its last by the
    process that makes the lock, and never read from here.
    """

    def __init__(self, path: Path, stream: IO[bytes], known: dict[str, Any]) -> None:
        self._path = path
        self._stream = stream
        self._known = known

    @classmethod
    @contextmanager
    def open(cls, config: Config, *, node: str, via: str) -> Iterator[Journal]:
        """Give the journal of a walk, with what an earlier one left.

        Raises
        ------
        LockTimeout
            If another process walks the same node.
        """
        folder = config.home / "walks"
        path = folder / f"{node}-{via}.jsonl"
        header = {"schema": _SCHEMA, "node": node, "via": via, "api": config.osf_api}
        with storage_errors(path), key_lock(folder, path.name, timeout=_PATIENCE):
            folder.mkdir(parents=True, exist_ok=True)
            known = _read(path, header)
            with path.open("ab" if known is not None else "wb") as stream:
                if known is None:
                    stream.write(canonical_json(header))
                else:
                    # Ends a line that a kill has cut; a blank line is nobody's listing.
                    stream.write(b"\n")
                stream.flush()
                yield cls(path, stream, known or {})

    def folder(
        self, number: int, place: tuple[str, str], listing: Callable[[], list[Entry]]
    ) -> list[Entry]:
        """Return the entries of a folder in round `number`; `listing` asks OSF."""
        return self._once(number, " ".join(place), Entry, listing)

    def children(self, number: int, node: str, listing: Callable[[], list[Child]]) -> list[Child]:
        """Return the components of a node in round `number`; `listing` asks OSF."""
        return self._once(number, f"{node} children of", Child, listing)

    def _once(
        self, number: int, name: str, model: type[_Listed], listing: Callable[[], list[_Listed]]
    ) -> list[_Listed]:
        if number > 1:
            return listing()
        if name in self._known:
            return [model.model_validate(row) for row in self._known[name]]
        rows = listing()
        self._note(name, [row.model_dump() for row in rows])
        return rows

    def discard(self) -> None:
        """Remove the journal: the walk has come to its end."""
        self._path.unlink(missing_ok=True)

    def _note(self, name: str, rows: list[dict[str, Any]]) -> None:
        self._stream.write(canonical_json({"place": name, "rows": rows}))
        self._stream.flush()


def _read(path: Path, header: dict[str, Any]) -> dict[str, Any] | None:
    """Return the listings in a journal, or None if it is absent or of another walk."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return None
    rows = [_json(line) for line in lines]
    if not rows or rows[0] != header:
        return None
    return {row["place"]: row["rows"] for row in rows[1:] if row is not None and "place" in row}


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
