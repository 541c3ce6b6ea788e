"""``verse-data summary | report``: what a release holds, and what was published about it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import verse_data as vd
from verse_data.cli import options as opt
from verse_data.cli.common import note, print_json, print_table
from verse_data.errors import UsageError, ValidationFailed, did_you_mean

if TYPE_CHECKING:
    from verse_data.tables.figures import FigureReport
    from verse_data.views.report import Report

app = typer.Typer()


@app.command()
def summary(
    release: opt.Releases,
    *,
    overlay: opt.Overlays = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    as_json: opt.Json = False,
) -> None:
    """Count what a release holds: patients, series, and vertebrae by status, grade and level.

    By published split; a vertebra counts once in each series that shows it. With --json, levels too.
    """
    from verse_data.api import open_named

    found = open_named(
        release, version=version, overlays=overlay, root=root, offline=offline
    ).summary()
    if as_json:
        print_json(found.as_json())
    else:
        sys.stdout.write(f"{found}\n")


@app.command()
def report(
    release: opt.Release,
    *,
    workbook: opt.Workbook = None,
    patients: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV with subject_id, sex (F, M) and contrast."),
    ] = None,
    html: Annotated[
        Path | None,
        opt.written("FILE", "Also write a page with tables and figures, such as report.html."),
    ] = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    as_json: opt.Json = False,
) -> None:
    """Compare what was published about a release with what its data say, or describe it.

    The published table, the numbers of the text, and with --html the figures of the supplement.
    """
    _check_files(workbook, patients, html)
    from verse_data.releases.catalog import names

    if workbook is None:
        opened = vd.open_release(release, version=version, root=root, offline=offline)
        made = opened.report(patients=patients)
    else:
        made = _of_workbook(release, workbook, patients)
    if not made.table.cells:
        near = did_you_mean(release, {*names()} - {release})
        note(f"The catalog holds no published figures of {release}.{near}")
    if html is not None:
        made.write(html)
    if as_json:
        print_json(made.as_json())
    else:
        if made.table.cells:
            _print_figures(made.table)
        _print_results(made)
        note(*(f"Note: {line}." for line in made.table.notes))
        if "numbers" in made.about:
            note(f"Note: {made.about['numbers']}")
    if html is not None:
        note(f"Wrote {html}.")
    _refuse_differences(made, release, workbook, patients)


def _check_files(workbook: Path | None, patients: Path | None, html: Path | None) -> None:
    """Refuse files that cannot be read or written, before anything is read."""
    for path in filter(None, (workbook, patients)):
        if not path.is_file():
            raise UsageError(f"There is no file {path}.")
    if html is not None:
        from verse_data.views.report import check_page

        check_page(html)


def _of_workbook(release: str, workbook: Path, patients: Path | None) -> Report:
    """Compare a workbook alone with what the catalog says of a release, if that is a published one."""
    from verse_data.files import digest_file
    from verse_data.releases.catalog import load_catalog, names
    from verse_data.tables.grading import read_grading
    from verse_data.tables.patients import read_patients
    from verse_data.views import report

    entry = load_catalog(release) if release in names() else None
    grading = read_grading(workbook, name=str(workbook))
    known = read_patients(patients) if patients else ()
    digest = digest_file(workbook).sha256
    about = {"release": release, "workbook": workbook.name, "workbook's digest": f"sha256:{digest}"}
    if entry is None or digest not in {one.sha256 for one in entry.supplements}:
        why = " (by its digest, this is not the published workbook)" if entry else ""
        about |= {"licence": f"not stated{why}", "attribution": "", "title": ""}
    return report.make(release, entry, grading=grading, patients=known, about=about)


def _refuse_differences(
    made: Report, release: str, workbook: Path | None, patients: Path | None
) -> None:
    """Raise `ValidationFailed` if a published number differs, and it is not known why."""
    if not (wrong := made.unexplained):
        return
    names = {one.figure for one in wrong}
    words = {"sex": ("women", "men_"), "contrast": ("contrast",)}
    of_patients = {
        column: {name for name in names if name.startswith(starts)}
        for column, starts in words.items()
    }
    blamed = sorted(column for column, found in of_patients.items() if found)
    ways = [f"Check the {' and '.join(blamed)} in {patients}."] * bool(blamed)
    if names.difference(*of_patients.values()):
        how = f"verse-data verify {release}" if workbook is None else workbook
        ways.append(f"Check that the workbook is the published one: {how}")
    in_table = wrong[0] in made.table.cells
    numbers = made.table.cells if in_table else made.results
    compared = sum(one.expected is not None for one in numbers)
    what = "figures" if in_table else "numbers of the text"
    raise ValidationFailed(
        f"{len(wrong)} of {compared} published {what} of {release} differ from the data at hand. "
        f"{' '.join(ways)}"
    )


def _print_figures(made: FigureReport) -> None:
    """Print each published figure beside the computed one, and what is needed for the others."""
    from verse_data.views.report import SIGNS

    groups, rows = made.grid(SIGNS)
    print_table(made.release, *groups, rows=rows, prose=(made.release,))
    # The whole release needs what its splits need.
    needs = dict.fromkeys(cell.needs for cell in made.cells if cell.needs and cell.group == "all")
    note(
        "Each cell: published = found.",
        f"{made.count('agrees')} agree, {made.count('differs')} differ, {made.count('needs')} cannot "
        f"be computed here (?){'. They need:' if needs else '.'}",
        *(f"  {line}" for line in needs),
    )


def _print_results(made: Report) -> None:
    """Print the numbers of the text, published and found."""
    from verse_data.views.report import SIGNS

    if not made.table.cells:
        found = [(one.title, one.found or "", one.note) for one in made.results]
        if found:
            print_table(made.table.release, "found", "remarks", rows=found, prose=("remarks",))
        return
    rows = (
        (one.title, one.expected or "", SIGNS[one.verdict], one.found or "", one.needs or one.note)
        for one in made.results
    )
    sys.stdout.write("\n")
    heads = ("numbers of the text", "published", "", "found", "remarks")
    print_table(*heads, rows=rows, prose=("remarks",))
