"""How a release, or this package, is cited: text, BibTeX, RIS and JSON."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from verse_data import __version__
from verse_data.errors import UsageError
from verse_data.export.media import doi_url, licence_url
from verse_data.records.catalog import OTHERS, CatalogEntry, Citation

Style = Literal["text", "bibtex", "ris", "json"]

SOFTWARE_AUTHOR: Final = "The verse-data maintainers"
SOFTWARE_TITLE: Final = "verse-data: Versioned, validated, patient-grouped access to the VerSe vertebra CT data for PyTorch"
SOFTWARE_LICENCE: Final = "Apache-2.0"
"""As in CITATION.cff, which no wheel carries; a test compares them."""

_TEX: Final = str.maketrans(
    {
        **{mark: f"\\{mark}" for mark in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
)
_INCOMPLETE: Final = "The list of authors is not complete."


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """The version of a release that is on this machine.

    Attributes
    ----------
    version : str
        Such as ``"v1"``.
    lock : str
        ``sha256:`` and the digest of its lock.
    commit : str
        Commit of the DataLad dataset.
    """

    version: str
    lock: str
    commit: str


def cite_release(
    name: str, entry: CatalogEntry | None, pinned: Pinned | None, *, style: Style = "text"
) -> str:
    """Return how a release is cited, with everything that is known of it.

    Parameters
    ----------
    name : str
        Name of the release.
    entry : CatalogEntry or None
        What the catalog says; None for a release that its user has locked.
    pinned : Pinned or None
        The version that is here; None if there is none.
    style : {"text", "bibtex", "ris", "json"}

    Raises
    ------
    UsageError
        If there is no such style.
    """
    release = _Release(name, entry, pinned)
    if check_style(style) == "text":
        return release.text()
    if style == "json":
        return _json(release.facts())
    articles = entry.citations if entry else ()
    if style == "bibtex":
        keys = _keys(articles)
        parts = [
            _bibtex("article", key, _bibtex_article(c))
            for key, c in zip(keys, articles, strict=True)
        ]
        return "\n".join([release.bibtex(), *parts])
    return "\n".join([release.ris(), *(_ris("JOUR", _ris_article(c)) for c in articles)])


def cite_software(releases: Sequence[str], *, style: Style = "text") -> str:
    """Return how this package is cited; the text points to `releases`, whose data are cited apart.

    Raises
    ------
    UsageError
        If there is no such style.
    """
    if check_style(style) == "text":
        return (
            f"{SOFTWARE_AUTHOR}. {SOFTWARE_TITLE}. Version {__version__}, {SOFTWARE_LICENCE}.\n\n"
            f"This cites the software alone. To cite data: "
            f"{' or '.join(f'verse-data cite {name}' for name in releases)}\n"
        )
    if style == "bibtex":
        fields = {
            "author": f"{{{SOFTWARE_AUTHOR}}}",
            "title": _protected(SOFTWARE_TITLE),
            "version": __version__,
            "note": f"Software, version {__version__}, {SOFTWARE_LICENCE}",
        }
        return _bibtex("misc", "verse-data", fields)
    if style == "ris":
        rows = [("AU", SOFTWARE_AUTHOR), ("TI", SOFTWARE_TITLE), ("ET", __version__)]
        return _ris("COMP", [*rows, ("N1", f"Licence: {SOFTWARE_LICENCE}")])
    return _json(
        {
            "software": "verse-data",
            "version": __version__,
            "title": SOFTWARE_TITLE,
            "authors": [SOFTWARE_AUTHOR],
            "licence": SOFTWARE_LICENCE,
            "releases": list(releases),
        }
    )


def check_style(style: str) -> str:
    """Return `style` if it is one, else raise UsageError."""
    if style in get_args(Style):
        return style
    raise UsageError(f"{style!r} is no style of citation; use {', '.join(get_args(Style))}.")


@dataclass(frozen=True)
class _Release:
    """One release, and what is known of it."""

    name: str
    entry: CatalogEntry | None
    pinned: Pinned | None

    @property
    def title(self) -> str:
        return self.entry.title if self.entry else f"Release {self.name}, locked by its user"

    @property
    def request(self) -> str:
        """What the makers of the data ask for."""
        if self.entry is None:
            return (
                "Its user locked it here: the authors, the licence and the publications of these data "
                "are not known to verse-data. Ask whoever made them how to cite them."
            )
        if not self.entry.citations:
            return "It asks for no citation."
        return "Cite these publications:"

    @property
    def exactly(self) -> str:
        """Name, version, lock and commit in one line."""
        pinned = self.pinned
        if pinned is None:
            return f"release {self.name} of verse-data {__version__}"
        return (
            f"release {self.name} {pinned.version} of verse-data {__version__}, lock {pinned.lock}, "
            f"commit {pinned.commit}"
        )

    def facts(self) -> dict[str, Any]:
        """Return all that is known, as JSON has it."""
        entry, pinned = self.entry, self.pinned
        articles = entry.citations if entry else ()
        return {
            "release": self.name,
            "version": pinned.version if pinned else None,
            "lock": pinned.lock if pinned else None,
            "commit": pinned.commit if pinned else None,
            "title": self.title,
            "creators": list(entry.creators) if entry else [],
            "doi": entry.doi if entry else None,
            "licence": entry.licence if entry else None,
            "licence_url": licence_url(entry.licence) if entry else None,
            "attribution": entry.attribution if entry else None,
            "request": self.request,
            "citations": [{**c.model_dump(mode="json"), "text": c.text} for c in articles],
        }

    def text(self) -> str:
        """Return a page to read, with a sentence to paste."""
        entry, pinned = self.entry, self.pinned
        rows = {
            "release": f"{self.name} {pinned.version}"
            if pinned
            else f"{self.name}, not on this machine",
            "lock": pinned.lock if pinned else None,
            "commit": pinned.commit if pinned else None,
            "doi": doi_url(entry.doi) if entry and entry.doi else None,
            "licence": f"{entry.licence}, {licence_url(entry.licence)}" if entry else "not known",
            "attribution": entry.attribution if entry else None,
        }
        lines = [self.title, "", *(f"{name:12} {value}" for name, value in rows.items() if value)]
        articles = entry.citations if entry else ()
        lines += ["", self.request, *(f"  {c.text} {doi_url(c.doi)}" for c in articles)]
        if pinned:
            lines += [
                "",
                "To say in a paper exactly which files were used:",
                f"  {self._sentence()}",
            ]
        else:
            lines += [
                "",
                f"Once it is here (verse-data lock {self.name}), version and lock are named too.",
            ]
        return "\n".join(lines) + "\n"

    def _sentence(self) -> str:
        if self.entry is None:
            return f"{_capital(self.exactly)}."
        known = (self.entry.doi and f"doi:{self.entry.doi}", self.entry.licence)
        source = ", ".join(item for item in known if item)
        return f"{self.title.partition(':')[0]} ({source}), {self.exactly}."

    def bibtex(self) -> str:
        """Return the entry of the data themselves."""
        entry, pinned = self.entry, self.pinned
        fields = {
            "author": " and ".join(entry.creators) if entry else "",
            "key": self.name.translate(_TEX),  # what old styles sort by where there is no author
            "title": _protected(self.title),
            "version": pinned.version if pinned else "",
            "doi": entry.doi or "" if entry else "",
            "url": doi_url(entry.doi) if entry and entry.doi else "",
            "note": self._note().translate(_TEX),
        }
        key = f"{self.name}-{pinned.version}" if pinned else self.name
        return _bibtex("misc", key, fields)

    def ris(self) -> str:
        """Return the entry of the data themselves."""
        entry, pinned = self.entry, self.pinned
        rows = [*_ris_authors(entry.creators if entry else ()), ("TI", self.title)]
        if pinned:
            rows.append(("ET", pinned.version))
        if entry and entry.doi:
            rows += [("DO", entry.doi), ("UR", doi_url(entry.doi))]
        return _ris("DATA", [*rows, ("N1", self._note())])

    def _note(self) -> str:
        said = [f"{_capital(self.exactly)}."]
        if self.entry:
            said += [f"Licence {self.entry.licence}.", self.entry.attribution]
        if not (self.entry and self.entry.citations):
            said.append(self.request)
        return " ".join(said)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _keys(articles: Iterable[Citation]) -> list[str]:
    """Return a key for each article: ``loffler2020``, with a letter behind those that would be equal."""
    found: list[str] = []
    for article in articles:
        family = unicodedata.normalize("NFKD", article.authors[0].partition(",")[0])
        key = re.sub(r"[^a-z0-9]", "", family.encode("ascii", "ignore").decode().lower())
        key = f"{key or 'article'}{article.year}"
        found.append(next(k for k in (key, *(f"{key}{x}" for x in "bcdefgh")) if k not in found))
    return found


def _bibtex_article(article: Citation) -> dict[str, str]:
    return {
        "author": " and ".join(article.authors),
        "title": _protected(article.title),
        "journal": article.journal.translate(_TEX),
        "year": str(article.year),
        "volume": article.volume or "",
        "number": article.number or "",
        "pages": article.pages or "",
        "doi": article.doi,
        "url": doi_url(article.doi),
    }


def _protected(title: str) -> str:
    """Keep the capitals of a title, which most styles would make small."""
    return f"{{{title.translate(_TEX)}}}"


def _bibtex(kind: str, key: str, fields: dict[str, str]) -> str:
    rows = [f"  {name} = {{{_line(value)}}},\n" for name, value in fields.items() if value]
    return f"@{kind}{{{key},\n{''.join(rows)}}}\n"


def _ris_article(article: Citation) -> list[tuple[str, str]]:
    rows = [*_ris_authors(article.authors), ("TI", article.title), ("T2", article.journal)]
    rows.append(("PY", str(article.year)))
    optional = (("VL", article.volume), ("IS", article.number), ("SP", article.pages))
    rows += [(tag, value) for tag, value in optional if value]
    return [*rows, ("DO", article.doi), ("UR", doi_url(article.doi))]


def _ris_authors(names: Sequence[str]) -> list[tuple[str, str]]:
    rows = [("AU", name) for name in names if name != OTHERS]
    return [*rows, ("N1", _INCOMPLETE)] if OTHERS in names else rows


def _ris(kind: str, rows: Iterable[tuple[str, str]]) -> str:
    lines = [("TY", kind), *((tag, _line(value)) for tag, value in rows), ("ER", "")]
    return "".join(f"{tag}  - {value}\n" for tag, value in lines)


def _line(value: str) -> str:
    return " ".join(value.split())


def _json(facts: dict[str, Any]) -> str:
    return json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
