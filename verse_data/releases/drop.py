"""Making room: contents are removed where they can be had again, as we and git-annex have asked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from verse_data.errors import Offline
from verse_data.records.lock import LockedFile
from verse_data.releases import annex
from verse_data.releases.fetch_log import FetchLog
from verse_data.releases.reach import near_settings

if TYPE_CHECKING:
    from verse_data.releases.dataset import ReleaseDataset

_WORKERS: Final = 8
_SECONDS: Final = 60.0
_SECONDS_EACH: Final = 5.0


@dataclass(frozen=True)
class DropReport:
    """What was removed, and what was kept and why."""

    dropped: tuple[LockedFile, ...]
    kept: tuple[tuple[LockedFile, str], ...]

    @property
    def bytes(self) -> int:
        """Room that was made."""
        return sum(file.size for file in {file.annex_key: file for file in self.dropped}.values())


def drop_files(
    dataset: ReleaseDataset, files: Sequence[LockedFile], *, unchecked: bool = False
) -> DropReport:
    """Remove the contents of `files` from this machine.

    Parameters
    ----------
    dataset : ReleaseDataset
        Where they are.
    files : sequence of LockedFile
        What is removed; contents that are not here are passed over.
    unchecked : bool, default False
        Remove without asking whether they can be had again. For damaged contents, and for people
        who know.

    Raises
    ------
    Offline
        If the network is forbidden, so that nobody can be asked.
    """
    here = {file.annex_key: file for file in files if dataset.object_path(file).exists()}
    if not here:
        return DropReport((), ())
    if unchecked:
        keys = "".join(f"{key}\n" for key in here)
        annex.annex(dataset.path, "dropkey", "--force", "--batch", stdin=keys)
        FetchLog(dataset.path).note("dropped", here)
        return DropReport(tuple(here.values()), ())
    if dataset.config.offline:
        raise Offline(
            f"{dataset.name}: whether {len(here)} files can be had again cannot be asked, since the "
            f"network is forbidden (offline). Allow it, or say --unchecked to remove them regardless."
        )
    dataset.record_presence()
    refusals = _refusals(dataset, list(here.values()))
    served = [key for key in here if key not in refusals]
    answers = _safe_drop(dataset, served)
    # Of these only a sibling's copy counts.
    answers |= _safe_drop(dataset, list(refusals), "--untrust=web", reasons=refusals)
    dropped = tuple(file for file in here.values() if not dataset.object_path(file).exists())
    FetchLog(dataset.path).note("dropped", [file.annex_key for file in dropped])
    kept = tuple(
        (file, answers.get(file.annex_key, "git-annex did not say why"))
        for file in here.values()
        if dataset.object_path(file).exists()
    )
    return DropReport(dropped, kept)


def _refusals(dataset: ReleaseDataset, files: Sequence[LockedFile]) -> dict[str, str]:
    """Return by key why the web does not give a content any more; those that it gives are absent.

    git-annex is content with any page of unknown length, such as the log-in page that OSF shows in
    place of a file that is not public any more.
    """
    from verse_data.releases.still_served import StillServed

    known = annex.web_addresses(dataset.path, [file.annex_key for file in files])
    urls = [
        tuple(dict.fromkeys((*dataset.addresses(file), *known.get(file.annex_key, ()))))
        for file in files
    ]
    # In this order, so that an interruption wakes the threads that wait for a server.
    with ThreadPoolExecutor(_WORKERS) as pool, StillServed(dataset.config) as served:
        reasons = pool.map(served.refusal, files, urls)
        pairs = zip(files, reasons, strict=True)
        return {file.annex_key: reason for file, reason in pairs if reason is not None}


def _safe_drop(
    dataset: ReleaseDataset, keys: list[str], *options: str, reasons: Mapping[str, str] = {}
) -> dict[str, str]:
    """Let git-annex drop keys of which it can verify another copy; return its notes by key."""
    if not keys:
        return {}
    output = annex.annex_batch(
        dataset.path,
        "drop",
        *options,
        "--batch-keys",
        "--json",
        "--json-error-messages",
        stdin="".join(f"{key}\n" for key in keys),
        settings=near_settings(dataset.config.osf_site),
        seconds=_SECONDS + _SECONDS_EACH * len(keys),
    )
    said: dict[str, Any] = {}
    for line in output.splitlines():
        if line.startswith("{"):
            answer = json.loads(line)
            text = f"{answer.get('note') or ''} {' '.join(answer.get('error-messages') or ())}"
            key = str(answer.get("key"))
            said[key] = " ".join([reasons.get(key, ""), *text.split()]).strip()
    return said
