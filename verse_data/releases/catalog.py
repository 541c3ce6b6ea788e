"""Reads ``catalog/``: the published facts about each release, and which series lie in which."""

from __future__ import annotations

import csv
import json
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from verse_data.errors import UsageError, ValidationFailed, counted
from verse_data.files import locate
from verse_data.problems import listed
from verse_data.records.base import rules_of
from verse_data.records.catalog import About, CatalogEntry, ExpectedSeries, PublishedResult
from verse_data.records.names import SPLITS

PHANTOM: Final = "phantom"
"""Name of the made-up release."""

_GROUPS: Final = (*SPLITS, "all")
_SHOWN: Final = 6

_ABOUT: Final = (
    "It holds title, licence (an SPDX identifier, such as CC-BY-4.0) and attribution, and may hold "
    "creators, doi and [[citations]], as catalog/verse19/release.toml does."
)


def names() -> tuple[str, ...]:
    """Return the names of the releases that the catalog knows, sorted."""
    return tuple(sorted(path.parent.name for path in locate("catalog").glob("*/release.toml")))


@cache
def load_catalog(name: str) -> CatalogEntry:
    """Return the catalog entry of the release `name`; `UsageError` if the catalog has none."""
    if name not in names():
        raise UsageError(f"The catalog has no release {name!r}; it knows {', '.join(names())}.")
    return read_entry(locate("catalog") / name)


def read_entry(folder: Path) -> CatalogEntry:
    """Read ``release.toml``, ``series.csv`` and ``figures.csv`` in `folder`; `ValidationFailed` if wrong."""
    value: dict[str, Any] = tomllib.loads((folder / "release.toml").read_text(encoding="utf-8"))
    value["expected"] = [
        {name: cell or None for name, cell in row.items()} for row in _rows(folder / "series.csv")
    ]
    value["figures"] = _rows(folder / "figures.csv")
    try:
        # Via JSON, whose lists a strict record accepts for its tuples.
        return CatalogEntry.model_validate_json(json.dumps(value))
    except ValidationError as error:
        raise ValidationFailed(f"{folder}: {rules_of(error)}.") from error


def known_series(entry: CatalogEntry | None) -> Mapping[str, ExpectedSeries]:
    """Return the series of `entry` by name, and of the releases that share an edition with it."""
    # The MICCAI layout of VerSe'20 holds series whose subject-based files are those of VerSe'19.
    if entry is None or not any(series.edition for series in entry.expected):
        return entry.by_series if entry else {}
    return _of_all_editions() | entry.by_series


@cache
def _of_all_editions() -> dict[str, ExpectedSeries]:
    entries = map(load_catalog, names())
    return {name: one for entry in entries for name, one in entry.by_series.items() if one.edition}


@cache
def load_results(name: str) -> dict[str, str]:
    """Return the numbers of the text that was published about the release `name`; empty without any."""
    return read_results(locate("catalog") / name / "results.csv")


def read_results(path: Path) -> dict[str, str]:
    """Read the published numbers of a text; `ValidationFailed` if wrong."""
    try:
        rows = [PublishedResult.model_validate(row) for row in _rows(path)]
    except ValidationError as error:
        raise ValidationFailed(f"{path}: {rules_of(error)}.") from error
    return {row.result: row.expected for row in rows}


def parse_about(data: bytes, *, release: str, name: str = "about.toml") -> CatalogEntry:
    """Return the catalog entry of a user's own release out of its ``about.toml``."""
    try:
        value = tomllib.loads(data.decode("utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValidationFailed(f"{name}: not TOML in UTF-8: {error}. {_ABOUT}") from None
    try:
        about = About.model_validate_json(json.dumps(value, default=str))
    except ValidationError as error:
        raise ValidationFailed(f"{name}: {rules_of(error)}. {_ABOUT}") from None
    return CatalogEntry(name=release, roots={}, **dict(about))


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, strict=True))


# --- what a release is, and how its edition is shared out ---------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ReleaseDescription:
    """What the catalog knows of a release, as returned by :func:`verse_data.describe_release`.

    Attributes
    ----------
    name, title, licence : str
    doi, osf_node : str or None
        DOI of the data, and the node of OSF with its files.
    versions : tuple of str
        Versions on this machine.
    series, patients : mapping
        By split, and ``"all"``: what each release has of the edition (``"verse19"``, ``"verse20"``), and
        the edition as a whole (``"edition"``).
    shared : int
        Series of the release that belong to another edition, too.
    published : tuple of str
        Where the series of the edition lie, and its published numbers with their source.
    terms : mapping
        Series by their terms, where these are not the release's licence.
    reported : tuple of str
        What others report of single scans, and the rules of findings that measure it.
    """

    name: str
    title: str
    licence: str
    doi: str | None
    osf_node: str | None
    versions: tuple[str, ...]
    series: Mapping[str, Mapping[str, int]]
    patients: Mapping[str, Mapping[str, int]]
    shared: int
    published: tuple[str, ...]
    terms: Mapping[str, tuple[str, ...]]
    reported: tuple[str, ...]

    def __str__(self) -> str:
        """Return all of it as lines and one table."""
        facts = {"licence": self.licence, "DOI": self.doi, "OSF node": self.osf_node}
        facts["versions here"] = ", ".join(self.versions) or "none"
        lines = [f"{self.name}: {self.title}"]
        lines += [f"  {name}: {value}" for name, value in facts.items() if value]
        if self.series:
            lines += ["", *_table(self.series, self.patients), ""]
        if self.shared:
            lines.append(
                f"{counted(self.shared, 'series', 'series')} belong to another edition, too."
            )
        lines += self.published
        for terms, scans in self.terms.items():
            what = counted(len(scans), "series", "series")
            lines.append(
                f"Terms of the imaging of {what} are {terms}: {listed(scans, most=_SHOWN)}."
            )
        if self.reported:
            lines += [
                "",
                "Reported by others; findings say of each scan whether its files show it:",
            ]
            lines += [f"  {line}" for line in self.reported]
        return "\n".join(lines).rstrip()

    __repr__ = __str__


def describe(name: str, versions: tuple[str, ...] = ()) -> ReleaseDescription:
    """Return what the catalog knows of the release `name`; `UsageError` if it has none."""
    entry = load_catalog(name)
    own = [(name, one) for one in entry.expected]
    edition = [*_of_edition(name)] or own
    releases = dict.fromkeys([name, *(release for release, _ in edition)]) if own else {}
    parts = {release: [one for of, one in edition if of == release] for release in releases}
    if len(parts) > 1:
        parts["edition"] = [one for _, one in edition]
    terms: dict[str, list[str]] = {}
    for one in entry.expected:
        if one.terms:
            terms.setdefault(one.terms, []).append(one.scan_id)
    return ReleaseDescription(
        name=name,
        title=entry.title,
        licence=entry.licence,
        doi=entry.doi,
        osf_node=entry.osf_node,
        versions=versions,
        series={part: _by_split(series, "series_id") for part, series in parts.items()},
        patients={part: _by_split(series, "subject_id") for part, series in parts.items()},
        shared=sum(one.edition not in {name, None} for one in entry.expected),
        published=tuple(_sentences(entry)),
        terms={kind: tuple(scans) for kind, scans in terms.items()},
        reported=tuple(
            f"{listed(one.scan_ids, most=_SHOWN) or 'scans without a name'}: {one.says} "
            f"[{one.source}] ({', '.join(one.rules)})"
            for one in entry.reported
        ),
    )


def _of_edition(editions: str) -> Iterator[tuple[str, ExpectedSeries]]:
    """Yield release and series of all that belong to one of `editions`, joined with +."""
    wanted = set(editions.split("+"))
    for release in names():
        for series in load_catalog(release).expected:
            if wanted & set((series.edition or "").split("+")):
                yield release, series


def _by_split(series: list[ExpectedSeries], key: str) -> dict[str, int]:
    pairs = {(group, getattr(one, key)) for one in series for group in (one.split, "all")}
    found = Counter(group for group, _ in pairs)
    return {group: found[group] for group in _GROUPS}


def _sentences(entry: CatalogEntry) -> Iterator[str]:
    """Yield where the series of an edition lie, then the other numbers of each source."""
    listed: dict[tuple[str, str], list[str]] = {}
    for count in entry.counts:
        split = "" if count.group == "all" else f" in {count.group}"
        words = f"{count.number:,} {count.what}{split}"
        listed.setdefault((count.edition, count.source), []).append(words)
        if (count.what, count.group) == ("CT series", "all"):
            found = Counter(release for release, _ in _of_edition(count.edition))
            where = " and ".join(
                f"{number} {'here' if name == entry.name else f'in {name}'}"
                for name, number in found.most_common()
            )
            yield f"The paper says {words} of {count.edition}: {where}."
    for (edition, source), numbers in listed.items():
        yield f"{source} on {edition}: {', '.join(numbers)}."


def _table(series: Mapping[str, Any], patients: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a table of series and patients by split."""
    rows = [("", *_GROUPS)]
    for what, parts in (("CT series", series), ("patients", patients)):
        for part, found in parts.items():
            place = "of the whole edition" if part == "edition" else f"in {part}"
            rows.append((f"{what} {place}", *(str(found[group]) for group in _GROUPS)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for head, *cells in rows:
        numbers = (f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        yield f"{head:{widths[0]}}  {'  '.join(numbers)}".rstrip()
