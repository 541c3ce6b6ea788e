"""Read ``catalog/``: the published facts about each release."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from verse_data.errors import UsageError, ValidationFailed
from verse_data.files import locate
from verse_data.records.base import rules_of
from verse_data.records.catalog import About, CatalogEntry, ExpectedSeries, PublishedResult

PHANTOM: Final = "phantom"
"""Name of the made-up release."""

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
    """Return the series of `entry` by name, and of the releases that share an edition with it.

    The MICCAI layout of VerSe'20 holds series whose subject-based files are those of VerSe'19.
    """
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
