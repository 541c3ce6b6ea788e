"""The report of a release: published numbers beside those of the data at hand, and the figures.

As text, as plain values, as a table in notebooks, and as one page that needs nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from pathlib import Path
from typing import Any, Final

import pandas as pd

from verse_data import markup
from verse_data.errors import counted
from verse_data.files import check_output, write_file
from verse_data.records.catalog import CatalogEntry
from verse_data.records.tables import PatientRow
from verse_data.releases.catalog import load_results
from verse_data.tables import figures, results
from verse_data.tables.figures import MEASURED, Figure, FigureReport
from verse_data.tables.grading import Grading
from verse_data.tables.summary import Summary
from verse_data.views.charts import Chart, charts, svg

SIGNS: Final = {"agrees": "=", "differs": "≠", "needs": "?", "found": ""}
"""Sign of each verdict, between the published number and the one that was found."""
NOTES: Final = ("made_up", "numbers")
"""What a reader of the numbers must know first."""


@dataclass(frozen=True)
class Report:
    """What was published about a release beside what its data say.

    Attributes
    ----------
    table : FigureReport
        Each cell of the published table, and notes.
    results : tuple of Figure
        The numbers of the text, and the same ones where nothing was published.
    charts : tuple of Chart
        The figures that the data at hand allow.
    summary : Summary or None
        What the release holds; None where only a workbook was given.
    about : dict of str
        What was looked at: release, version, lock, licence, citations and the like.
    """

    table: FigureReport
    results: tuple[Figure, ...]
    charts: tuple[Chart, ...]
    summary: Summary | None
    about: Mapping[str, str]

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.table.count(one)} {one}" for one in ("agrees", "differs"))
        return (
            f"<Report of {self.table.release}: {len(self.table.cells)} published cells ({counts}), "
            f"{len(self.results)} numbers of the text, {len(self.charts)} figures>"
        )

    @property
    def unexplained(self) -> tuple[Figure, ...]:
        """Cells of the published table that differ; else numbers of the text, without a known reason."""
        cells = tuple(cell for cell in self.table.cells if cell.verdict == "differs")
        return cells or tuple(
            one for one in self.results if one.verdict == "differs" and not one.note
        )

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            **self.table.as_json(),
            "results": [one.as_json("result", "note") for one in self.results],
            "charts": [asdict(one) for one in self.charts],
            "summary": self.summary and self.summary.as_json(),
            "about": dict(self.about),
        }

    def _repr_html_(self) -> str:
        """Return everything for a notebook."""
        return f'<div class="verse-data"><style>{_STYLE}</style>{"".join(_body(self))}</div>'

    def page(self) -> str:
        """Return the report as one HTML page that loads nothing."""
        return page(f"{self.table.release}: report", _body(self))

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page to a file, and return its path.

        Parameters
        ----------
        path : path
            Such as ``report.html``; a page that is there is replaced.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        UsageError
            If the name does not end in ``.html``, or no file can be there.
        """
        write_file(check_page(Path(path)), self.page().encode())
        return Path(path)


def check_page(path: Path) -> Path:
    """Return `path` if a page can be written there."""
    return check_output(path, (".html", ".htm"), "a page")


def make(
    name: str,
    entry: CatalogEntry | None,
    *,
    grading: Grading | None,
    scans: Collection[str] | None = None,
    vertebrae: pd.DataFrame | None = None,
    subjects: pd.DataFrame | None = None,
    patients: Sequence[PatientRow] = (),
    summary: Summary | None = None,
    about: Mapping[str, str],
) -> Report:
    """Compare what the catalog says of a release with its grades and its tables.

    What `about` says counts before what the catalog does; an empty text leaves it out.
    """
    if grading is not None and subjects is not None:
        grading = _measured(grading, subjects)
    table = FigureReport(name, ())
    if entry is not None:
        table = figures.report(entry, grading=grading, vertebrae=vertebrae, patients=patients)
    published = load_results(name) if entry is not None else {}
    drawn = charts(grading, vertebrae)
    given = {graded.row.scan_id for graded in grading.rows} if grading and scans else set()
    if scans and not given.issubset(scans):
        about = {**about, "numbers": (
            f"Grades, ages and densities are those of {counted(len(given), 'series', 'series')} of the "
            f"grading workbook, of which this release has {len(given.intersection(scans))}."
        )}  # fmt: skip
    if not table.cells:  # only what was published has figures E1 to E4
        drawn = tuple(replace(chart, figure="") for chart in drawn)
    facts = {**about, **catalogued(entry), **about}
    return Report(
        table,
        results.compute(published, entry, grading=grading, patients=patients),
        drawn,
        summary,
        {name: text for name, text in facts.items() if text},
    )


def _measured(grading: Grading, subjects: pd.DataFrame) -> Grading:
    """Return the rows with the ages and densities of the table of subjects."""
    table = subjects.set_index("subject_id")[[*MEASURED.values()]].astype(object)
    known = {name: person.dropna() for name, person in table.iterrows()}
    rows = (
        replace(graded, row=graded.row.model_copy(update={**known.get(graded.row.subject_id, {})}))
        for graded in grading.rows
    )
    return replace(grading, rows=tuple(rows))


def catalogued(entry: CatalogEntry | None) -> dict[str, str]:
    """Return what a page that is handed on must carry."""
    if entry is None:
        return {"licence": "unknown: the release was locked by its user"}
    return {
        "title": entry.title,
        "licence": entry.licence,
        "attribution": entry.attribution,
        "cite": " ".join(f"{one.text} doi:{one.doi}." for one in entry.citations),
    }


def page(title: str, body: Iterable[str]) -> str:
    """Return a page that loads nothing."""
    return _PAGE.format(title=escape(title), style=_PAGE_STYLE + _STYLE, body="\n".join(body))


# --- the page -------------------------------------------------------------------------------------


def _body(report: Report) -> Iterator[str]:
    """Yield the sections."""
    table, about = report.table, report.about
    version = f" {about['version']}" if "version" in about else ""
    yield f"<h1>{escape(table.release)}{escape(version)}</h1>"
    if about.get("title"):
        yield f"<p>{escape(about['title'])}</p>"
    for name in NOTES:
        if name in about:
            yield f'<p class="note"><strong>{escape(about[name])}</strong></p>'
    yield from _verdict(report)
    if table.cells:
        yield "<h2>The published table</h2><p>Each cell: published, verdict, found.</p>"
        groups, rows = table.grid(SIGNS)
        yield scroll(markup.table(["", *groups], rows), "The published table")
    if report.results:
        compared = any(one.expected for one in report.results)
        title = "The numbers of the text" if compared else "Patients and tests"
        yield f"<h2>{title}</h2>{scroll(_of_text(report.results, compared=compared), title)}"
        yield (
            "<p>Of each patient the first series counts. SD: of a sample. t test: Student\u2019s, "
            "two-sided; chi-squared: Pearson\u2019s, without correction.</p>"
        )
    yield "<h2>Figures</h2>"
    for chart in report.charts:
        yield _figure(chart, table)
    if not report.charts:
        yield "<p>No grades, centroids or masks are here, so nothing can be drawn.</p>"
    if report.summary is not None:
        yield f"<h2>What is here</h2>{scroll(report.summary._repr_html_(), 'What is here')}"
    facts = {name: text for name, text in about.items() if name not in {"title", *NOTES}}
    yield f"<footer><h2>About</h2>{scroll(markup.facts('', facts), 'About')}</footer>"


def _verdict(report: Report) -> Iterator[str]:
    """Yield what came out, in a sentence, and every contradiction."""
    published = [*report.table.cells, *(one for one in report.results if one.expected)]
    if not published:
        yield "<p>Nothing was published of this release: it is described, not compared.</p>"
    else:
        counts = {one: sum(cell.verdict == one for cell in published) for one in SIGNS}
        yield (
            f"<p>{len(published)} published numbers: <strong>{counts['agrees']} agree (=), "
            f"{counts['differs']} differ (≠), {counts['needs']} cannot be computed here (?)"
            "</strong>.</p>"
        )
    lines = [*report.table.notes, *_explained(report)]
    # What the whole release needs is what its splits need.
    whole = (one for one in published if one.needs and one.group == "all")
    lines += dict.fromkeys(f"needs {one.needs}" for one in whole)
    if lines:
        yield f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _explained(report: Report) -> Iterator[str]:
    """Yield each reason why numbers of the text differ, with these numbers, unless a note says it."""
    differing = [one for one in report.results if one.verdict == "differs" and one.note]
    for note in dict.fromkeys(one.note for one in differing):
        if not any(note in line for line in report.table.notes):
            numbers = (f"{one.expected} ≠ {one.found}" for one in differing if one.note == note)
            yield f"{', '.join(numbers)}: {note}"


def _of_text(numbers: Iterable[Figure], *, compared: bool) -> str:
    """Return the numbers of the text as a table."""
    if not compared:
        return markup.table(("", "found"), ((one.title, one.found) for one in numbers))
    rows = ((one.title, one.expected or "", SIGNS[one.verdict], one.found or "") for one in numbers)
    return markup.table(("", "published", "", "found"), rows)


def _figure(chart: Chart, table: FigureReport) -> str:
    """Return a chart with its caption, the published numbers it adds up to, and its counts."""
    sums = "; ".join(
        f"{cell.title}: {cell.as_text(SIGNS)}"
        for cell in table.cells
        if cell.figure in chart.rows and cell.group == "all"
    )
    beside = f"<br>Published beside found: {escape(sums)}." if sums else ""
    counts = zip(chart.categories, *chart.stacks.values(), chart.totals, strict=True)
    stacks = chart.stacks if len(chart.stacks) > 1 else ()
    heads = [chart.x_label, *stacks, "all"]
    title = " ".join(f"{part}." for part in (chart.figure, chart.title) if part)
    rows = (row if stacks else row[:2] for row in counts)
    return (
        f"<figure>{scroll(svg(chart), chart.title)}<figcaption><strong>{escape(title)}</strong> "
        f"{escape(chart.caption)}"
        f"{beside}"
        f"<details><summary>Counts</summary>"
        f"{scroll(markup.table(heads, rows), f'{chart.title}: counts')}</details>"
        "</figcaption></figure>"
    )


def scroll(content: str, name: str) -> str:
    """Return content that scrolls on its own where the page is narrow, by the keyboard too."""
    return (
        f'<div class="scroll" role="group" tabindex="0" aria-label="{escape(name)}">{content}</div>'
    )


_STYLE: Final = """
.verse-data .scroll{overflow-x:auto}
.verse-data table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:0 0 1em}
.verse-data th,.verse-data td{padding:.2em .7em;border-bottom:1px solid #8886;font-size:.9em}
.verse-data th{font-weight:500}
.verse-data tbody th,.verse-data td{white-space:nowrap}
.verse-data footer td{white-space:normal;overflow-wrap:anywhere}
.verse-data thead th{font-weight:700}
.verse-data caption{text-align:left;white-space:nowrap;font-weight:700;padding:.3em .7em}
.verse-data figure{margin:1.5em 0;max-width:60em}
.verse-data figure svg{width:100%;min-width:700px;height:auto;display:block}
.verse-data .note{border:2px solid;padding:.5em .8em;display:inline-block}
.verse-data summary{cursor:pointer}
"""
_PAGE_STYLE: Final = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:64em;margin:0 auto;padding:1.5em}
h1{font-size:1.7em;margin-bottom:.2em}
h2{font-size:1.25em;margin-top:2em}
@media print{figure{break-inside:avoid}}
"""
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body class="verse-data">
<main>
{body}
</main>
</body>
</html>
"""
