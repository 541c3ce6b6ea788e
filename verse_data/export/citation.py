"""Citations of a release or of this package: text, BibTeX, RIS and JSON."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from verse_data.config import __version__
from verse_data.errors import one_of
from verse_data.export.prov import doi_url, licence_url
from verse_data.records.catalog import OTHERS, CatalogEntry

Style = Literal["text", "bibtex", "ris", "json"]

SOFTWARE_AUTHOR: Final = "The verse-data maintainers"
SOFTWARE_TITLE: Final = (
    "verse-data: Versioned, validated, patient-grouped access to the VerSe vertebra CT data "
    "for PyTorch"
)
SOFTWARE_LICENCE: Final = "Apache-2.0"
"""As in CITATION.cff, which wheels do not contain; a test compares them."""

_RIS_TAGS: Final = {
    "title": "TI",
    "journal": "T2",
    "year": "PY",
    "volume": "VL",
    "number": "IS",
    "pages": "SP",
    "version": "ET",
    "doi": "DO",
    "url": "UR",
    "note": "N1",
}
"""RIS tag of each field; BibTeX uses the names themselves."""
_TEX: Final = str.maketrans(
    {
        **{mark: f"\\{mark}" for mark in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
)
_UNKNOWN: Final = (
    "Its user locked it here: the authors, the licence and the publications of these data are not known "
    "to verse-data. Ask whoever made them how to cite them. A file that says it becomes part of the "
    "release: verse-data lock NAME --from-tree FOLDER --about FILE (docs/own-data.md)."
)


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """A version of a release on this machine, with its lock (``sha256:…``) and commit."""

    version: str
    lock: str
    commit: str


def cite_release(
    name: str, entry: CatalogEntry | None, pinned: Pinned | None, *, style: Style = "text"
) -> str:
    """Return the citation of a release, of the user's own without `entry`, not here without `pinned`."""
    one_of("style", style, get_args(Style))
    known: Mapping[str, Any] = entry.model_dump(mode="json") if entry else {}
    articles = (
        [{**c.model_dump(mode="json"), "text": c.text} for c in entry.citations] if entry else []
    )
    licence, doi = known.get("licence"), known.get("doi")
    request = "Cite these publications:" if articles else "It asks for no citation."
    facts = {
        "release": name,
        "version": pinned and pinned.version,
        "lock": pinned and pinned.lock,
        "commit": pinned and pinned.commit,
        "title": known.get("title", f"Release {name}, locked by its user"),
        "creators": known.get("creators", []),
        "doi": doi,
        "licence": licence,
        "licence_url": licence and licence_url(licence),
        "attribution": known.get("attribution"),
        "request": request if entry else _UNKNOWN,
        "citations": articles,
    }
    if style == "json":
        return _json(facts)
    if style == "text":
        return _text(facts)
    data = {
        **facts,
        "authors": facts["creators"],
        "url": doi and doi_url(doi),
        "note": _note(facts),
    }
    papers = [{**article, "url": doi_url(article["doi"])} for article in articles]
    if style == "ris":
        return "\n".join([_ris("DATA", data), *(_ris("JOUR", paper) for paper in papers)])
    data["key"] = name  # old styles sort by it if there is no author
    key = f"{name}-{pinned.version}" if pinned else name
    keyed = zip(_keys(papers), papers, strict=True)
    return "\n".join([_bibtex("misc", key, data), *(_bibtex("article", k, p) for k, p in keyed)])


def cite_software(releases: Sequence[str], *, style: Style = "text") -> str:
    """Return the citation of this package; the text also says how to cite the data of `releases`."""
    one_of("style", style, get_args(Style))
    if style == "text":
        cites = " or ".join(f"verse-data cite {name}" for name in releases)
        return (
            f"{SOFTWARE_AUTHOR}. {SOFTWARE_TITLE}. Version {__version__}, {SOFTWARE_LICENCE}.\n\n"
            f"This cites the software alone. To cite data: {cites}\n"
        )
    facts = {"version": __version__, "title": SOFTWARE_TITLE, "authors": [SOFTWARE_AUTHOR]}
    if style == "json":
        more = {"licence": SOFTWARE_LICENCE, "releases": list(releases)}
        return _json({"software": "verse-data", **facts, **more})
    facts["note"] = f"Software, version {__version__}, {SOFTWARE_LICENCE}"
    if style == "ris":
        return _ris("COMP", facts)
    return _bibtex("misc", "verse-data", {**facts, "authors": [f"{{{SOFTWARE_AUTHOR}}}"]})


def _exactly(facts: Mapping[str, Any]) -> str:
    """Return name, version, lock and commit in one line."""
    if facts["version"] is None:
        return f"release {facts['release']} of verse-data {__version__}"
    return (
        f"release {facts['release']} {facts['version']} of verse-data {__version__}, "
        f"lock {facts['lock']}, commit {facts['commit']}"
    )


def _text(facts: Mapping[str, Any]) -> str:
    """Return the citation as a page of text, with a sentence to paste."""
    name, version, doi, licence = (facts[key] for key in ("release", "version", "doi", "licence"))
    rows = {
        "release": f"{name} {version}" if version else f"{name}, not on this machine",
        "lock": facts["lock"],
        "commit": facts["commit"],
        "doi": doi and doi_url(doi),
        "licence": f"{licence}, {facts['licence_url']}" if licence else "not known",
        "attribution": facts["attribution"],
    }
    known = [f"{name:12} {value}" for name, value in rows.items() if value]
    articles = [f"  {c['text']} {doi_url(c['doi'])}" for c in facts["citations"]]
    lines = [facts["title"], "", *known, "", facts["request"], *articles, ""]
    if version is None:
        lines.append(f"Once it is here (verse-data lock {name}), version and lock are named too.")
        return "\n".join(lines) + "\n"
    source = ", ".join(filter(None, (doi and f"doi:{doi}", licence)))
    sentence = f"{facts['title'].partition(':')[0]} ({source}), {_exactly(facts)}."
    lines += [
        "To say in a paper exactly which files were used:",
        f"  {sentence if licence else _sentence(facts)}",
    ]
    return "\n".join(lines) + "\n"


def _sentence(facts: Mapping[str, Any]) -> str:
    exactly = _exactly(facts)
    return f"{exactly[0].upper()}{exactly[1:]}."


def _note(facts: Mapping[str, Any]) -> str:
    licence = [f"Licence {facts['licence']}.", facts["attribution"]] if facts["licence"] else []
    request = [] if facts["citations"] else [facts["request"]]
    return " ".join([_sentence(facts), *licence, *request])


def _keys(articles: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a unique key for each article: ``loffler2020``, and ``loffler2020b`` for another one."""
    found: list[str] = []
    for article in articles:
        family = unicodedata.normalize("NFKD", article["authors"][0].partition(",")[0])
        key = re.sub(r"[^a-z0-9]", "", family.encode("ascii", "ignore").decode().lower())
        key = f"{key or 'article'}{article['year']}"
        found.append(next(k for k in (key, *(f"{key}{x}" for x in "bcdefgh")) if k not in found))
    return found


def _bibtex(kind: str, key: str, facts: Mapping[str, Any]) -> str:
    fields = {name: facts.get(name) for name in ("key", *_RIS_TAGS)}
    for name in ("key", "title", "journal", "note"):
        fields[name] = (fields[name] or "").translate(_TEX)
    fields["title"] = f"{{{fields['title']}}}"  # most styles would turn it to lower case
    fields = {"author": " and ".join(facts["authors"]), **fields}
    rows = [f"  {name} = {{{_line(value)}}},\n" for name, value in fields.items() if value]
    return f"@{kind}{{{key},\n{''.join(rows)}}}\n"


def _ris(kind: str, facts: Mapping[str, Any]) -> str:
    rows = [("TY", kind), *(("AU", name) for name in facts["authors"] if name != OTHERS)]
    if OTHERS in facts["authors"]:
        rows.append(("N1", "The list of authors is not complete."))
    rows += [(tag, facts[name]) for name, tag in _RIS_TAGS.items() if facts.get(name)]
    return "".join(f"{tag}  - {_line(value)}\n" for tag, value in [*rows, ("ER", "")])


def _line(value: object) -> str:
    return " ".join(str(value).split())


def _json(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
