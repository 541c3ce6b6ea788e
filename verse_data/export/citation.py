"""How a release, or this package, is cited: text, BibTeX, RIS and JSON."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from verse_data.config import __version__
from verse_data.errors import UsageError
from verse_data.export.rocrate import doi_url, licence_url
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
_NOT_KNOWN: Final = (
    "Its user locked it here: the authors, the licence and the publications of these data are not known "
    "to verse-data. Ask whoever made them how to cite them."
)


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """The version of a release that is on this machine, its lock (``sha256:…``) and its commit."""

    version: str
    lock: str
    commit: str


def cite_release(
    name: str, entry: CatalogEntry | None, pinned: Pinned | None, *, style: Style = "text"
) -> str:
    """Return how a release is cited; without an `entry` its user locked it, without `pinned` it is not here."""
    check_style(style)
    articles = entry.citations if entry else ()
    facts = {
        "release": name,
        "version": pinned.version if pinned else None,
        "lock": pinned.lock if pinned else None,
        "commit": pinned.commit if pinned else None,
        "title": entry.title if entry else f"Release {name}, locked by its user",
        "creators": list(entry.creators) if entry else [],
        "doi": entry.doi if entry else None,
        "licence": entry.licence if entry else None,
        "licence_url": licence_url(entry.licence) if entry else None,
        "attribution": entry.attribution if entry else None,
        "request": _NOT_KNOWN,
        "citations": [{**c.model_dump(mode="json"), "text": c.text} for c in articles],
    }
    if entry:
        asked = "Cite these publications:" if articles else "It asks for no citation."
        facts["request"] = asked
    if style == "json":
        return _json(facts)
    if style == "text":
        return _text(facts)
    if style == "bibtex":
        entries = zip(_keys(articles), articles, strict=True)
        return "\n".join([_bibtex_data(facts), *(_bibtex_article(k, c) for k, c in entries)])
    return "\n".join([_ris_data(facts), *(_ris_article(c) for c in articles)])


def cite_software(releases: Sequence[str], *, style: Style = "text") -> str:
    """Return how this package is cited; the text points to `releases`, whose data are cited apart."""
    if check_style(style) == "text":
        cites = " or ".join(f"verse-data cite {name}" for name in releases)
        return (
            f"{SOFTWARE_AUTHOR}. {SOFTWARE_TITLE}. Version {__version__}, {SOFTWARE_LICENCE}.\n\n"
            f"This cites the software alone. To cite data: {cites}\n"
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


def _exactly(facts: dict[str, Any]) -> str:
    """Return name, version, lock and commit in one line."""
    if facts["version"] is None:
        return f"release {facts['release']} of verse-data {__version__}"
    return (
        f"release {facts['release']} {facts['version']} of verse-data {__version__}, "
        f"lock {facts['lock']}, commit {facts['commit']}"
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _text(facts: dict[str, Any]) -> str:
    """Return a page to read, with a sentence to paste."""
    name, version, exactly = facts["release"], facts["version"], _exactly(facts)
    licence = facts["licence"]
    rows = {
        "release": f"{name} {version}" if version else f"{name}, not on this machine",
        "lock": facts["lock"],
        "commit": facts["commit"],
        "doi": facts["doi"] and doi_url(facts["doi"]),
        "licence": f"{licence}, {facts['licence_url']}" if licence else "not known",
        "attribution": facts["attribution"],
    }
    lines = [facts["title"], "", *(f"{name:12} {value}" for name, value in rows.items() if value)]
    lines += [
        "",
        facts["request"],
        *(f"  {c['text']} {doi_url(c['doi'])}" for c in facts["citations"]),
    ]
    if version is None:
        lines += ["", f"Once it is here (verse-data lock {name}), version and lock are named too."]
        return "\n".join(lines) + "\n"
    sentence = f"{_capital(exactly)}."
    if licence:
        source = ", ".join(filter(None, (facts["doi"] and f"doi:{facts['doi']}", licence)))
        sentence = f"{facts['title'].partition(':')[0]} ({source}), {exactly}."
    lines += ["", "To say in a paper exactly which files were used:", f"  {sentence}"]
    return "\n".join(lines) + "\n"


def _note(facts: dict[str, Any]) -> str:
    parts = [f"{_capital(_exactly(facts))}."]
    if facts["licence"]:
        parts += [f"Licence {facts['licence']}.", facts["attribution"]]
    return " ".join(parts if facts["citations"] else [*parts, facts["request"]])


def _bibtex_data(facts: dict[str, Any]) -> str:
    name, version, doi = facts["release"], facts["version"], facts["doi"]
    fields = {
        "author": " and ".join(facts["creators"]),
        "key": name.translate(_TEX),  # what old styles sort by where there is no author
        "title": _protected(facts["title"]),
        "version": version,
        "doi": doi,
        "url": doi and doi_url(doi),
        "note": _note(facts).translate(_TEX),
    }
    return _bibtex("misc", f"{name}-{version}" if version else name, fields)


def _ris_data(facts: dict[str, Any]) -> str:
    rows = [*_ris_authors(facts["creators"]), ("TI", facts["title"]), ("ET", facts["version"])]
    if doi := facts["doi"]:
        rows += [("DO", doi), ("UR", doi_url(doi))]
    return _ris("DATA", [*rows, ("N1", _note(facts))])


def _keys(articles: Iterable[Citation]) -> list[str]:
    """Return a key for each article: ``loffler2020``, with a letter behind those that would be equal."""
    found: list[str] = []
    for article in articles:
        family = unicodedata.normalize("NFKD", article.authors[0].partition(",")[0])
        key = re.sub(r"[^a-z0-9]", "", family.encode("ascii", "ignore").decode().lower())
        key = f"{key or 'article'}{article.year}"
        found.append(next(k for k in (key, *(f"{key}{x}" for x in "bcdefgh")) if k not in found))
    return found


def _bibtex_article(key: str, article: Citation) -> str:
    fields = {
        "author": " and ".join(article.authors),
        "title": _protected(article.title),
        "journal": article.journal.translate(_TEX),
        "year": str(article.year),
        "volume": article.volume,
        "number": article.number,
        "pages": article.pages,
        "doi": article.doi,
        "url": doi_url(article.doi),
    }
    return _bibtex("article", key, fields)


def _ris_article(article: Citation) -> str:
    rows = [*_ris_authors(article.authors), ("TI", article.title), ("T2", article.journal)]
    rows += [("PY", str(article.year)), ("VL", article.volume), ("IS", article.number)]
    rows += [("SP", article.pages), ("DO", article.doi), ("UR", doi_url(article.doi))]
    return _ris("JOUR", rows)


def _protected(title: str) -> str:
    """Keep the capitals of a title, which most styles would make small."""
    return f"{{{title.translate(_TEX)}}}"


def _bibtex(kind: str, key: str, fields: Mapping[str, str | None]) -> str:
    rows = [f"  {name} = {{{_line(value)}}},\n" for name, value in fields.items() if value]
    return f"@{kind}{{{key},\n{''.join(rows)}}}\n"


def _ris_authors(names: Sequence[str]) -> list[tuple[str, str | None]]:
    rows: list[tuple[str, str | None]] = [("AU", name) for name in names if name != OTHERS]
    return [*rows, ("N1", "The list of authors is not complete.")] if OTHERS in names else rows


def _ris(kind: str, rows: Iterable[tuple[str, str | None]]) -> str:
    lines = [("TY", kind), *((tag, _line(value)) for tag, value in rows if value), ("ER", "")]
    return "".join(f"{tag}  - {value}\n" for tag, value in lines)


def _line(value: str) -> str:
    return " ".join(value.split())


def _json(facts: dict[str, Any]) -> str:
    return json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
