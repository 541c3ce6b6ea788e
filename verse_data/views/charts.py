"""Bar charts of vertebrae, fractures, types, ages and densities: the supplement's figures E1 to E4.

Counts come from the tables; the charts are inline SVG that needs no script, and is as readable on a
dark page as on a light one: text and lines have the colour of the text around them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any, Final

import pandas as pd

from verse_data.errors import counted
from verse_data.records.tables import FRACTURE_TYPES, GradingRow
from verse_data.spine.levels import GRADED_LEVELS, LEVELS
from verse_data.tables.figures import MEASURED, by_patient
from verse_data.tables.grading import Grading
from verse_data.tables.results import is_fractured

_GRADES: Final = (1, 2, 3)
_FRACTURED: tuple[str, str, str] = ("with a fracture", "without", "no level graded")
_DECADE: Final = 10
_BMD_STEP: Final = 20
OSTEOPOROSIS_MG_CM3: Final = 80
"""Below this, volumetric density means osteoporosis (American College of Radiology, QCT of the spine)."""

_WIDTH, _HEIGHT = 760, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 8, 44, 46
_LEGEND: Final = 22  # the height of the legend, which a chart of one kind has not
_FILLS: Final = ("#4f8fc0", "#d98a1f", "#c2453a")
_PATIENT_FILLS: Final = ("#7d5a9e", "#4f9d80", "#9aa3ad")
_MOST_TICKS: Final = 6


@dataclass(frozen=True)
class Chart:
    """Counts by category, stacked by kind."""

    figure: str  # of the supplement, such as "E2"; empty for a release without one
    title: str
    x_label: str  # what the categories are
    y_label: str  # what is counted
    categories: tuple[str, ...]
    stacks: Mapping[str, tuple[int, ...]]  # counts of each kind, by category
    caption: str = ""
    rows: tuple[str, ...] = ()  # rows of the published table that the counts add up to

    @property
    def totals(self) -> tuple[int, ...]:
        """Count of each category, of all kinds."""
        return tuple(map(sum, zip(*self.stacks.values(), strict=True)))


def charts(grading: Grading | None, vertebrae: pd.DataFrame | None) -> tuple[Chart, ...]:
    """Return the charts that a workbook and a table of vertebrae allow."""
    rows = [graded.row for graded in grading.rows] if grading else []
    made = [_levels(rows, vertebrae)]
    if rows:
        made += [_fractures(rows), _types(rows), *_ages_and_densities(by_patient(rows))]
    return tuple(chart for chart in made if any(chart.totals))


def _levels(rows: Sequence[GradingRow], vertebrae: pd.DataFrame | None) -> Chart:
    """Return the vertebrae by level: with a centroid, or in the mask of a scan without; else graded."""
    counts, caption = Counter[str](), "vertebrae with a centroid"
    if vertebrae is not None:
        pointed, masked = (
            vertebrae[name].fillna(value=False).astype(bool)
            for name in ("has_centroid", "has_mask")
        )
        masked &= ~vertebrae["scan_id"].isin(vertebrae.loc[pointed, "scan_id"])
        counts.update(vertebrae.loc[pointed | masked, "level"].astype(str))
        if number := vertebrae.loc[masked, "scan_id"].nunique():
            caption += f"; of {counted(number, 'series', 'series')} without, those in the mask"
    known = LEVELS
    if not counts:
        counts.update(level for row in rows for level in row.grades)
        caption = (
            "vertebrae with a grade or x in the workbook, which has no cervical levels and no T13; "
            "all others need the centroid files"
        )
        known = GRADED_LEVELS
    there_are = tuple(level for level in known if counts[level])
    stacks = {"vertebrae": tuple(counts[level] for level in there_are)}
    caption = f"{counts.total():,} {caption}. A vertebra counts once in each series that shows it."
    figures = ("cervical", "thoracic", "lumbar", "vertebrae") if known is LEVELS else ()
    words = ("E1", "Vertebrae by level", "level", "vertebrae")
    return Chart(*words, there_are, stacks, caption, figures)


def _fractures(rows: Iterable[GradingRow]) -> Chart:
    """Return the fractures by level and grade."""
    fractures = ((level, grade) for row in rows for level, grade in row.grades.items())
    made = _by_grade("E2", "level", {level: level for level in GRADED_LEVELS}, fractures)
    caption = f"{sum(made.totals):,} fractured vertebrae."
    return replace(made, caption=caption, rows=("fractures",))


def _types(rows: Iterable[GradingRow]) -> Chart:
    """Return the fractures by type and grade."""
    fractures = ((r.shapes.get(level), grade) for r in rows for level, grade in r.grades.items())
    made = _by_grade("E3", "type", {k: v for k, v in enumerate(FRACTURE_TYPES) if k}, fractures)
    named = zip(made.totals, made.categories, strict=True)
    caption = f"{', '.join(f'{number:,} {name}' for number, name in named)}."
    return replace(made, caption=caption, rows=tuple(f"grade_{grade}" for grade in _GRADES))


def _by_grade(
    figure: str, what: str, names: Mapping[Any, str], fractures: Iterable[tuple[Any, Any]]
) -> Chart:
    """Count (key of `names`, grade) pairs: a bar for each name, with a stack for each grade."""
    counts = Counter(fractures)
    stacks = {f"grade {grade}": tuple(counts[key, grade] for key in names) for grade in _GRADES}
    title = f"Fractures by {what} and grade"
    return Chart(figure, title, what, "fractures", tuple(names.values()), stacks)


def _ages_and_densities(persons: Iterable[Sequence[GradingRow]]) -> Iterable[Chart]:
    """Yield the patients by age and by density, with and without a fracture."""
    people = [(rows[0], _state(rows)) for rows in persons]
    for figure, name, x_label, step in (
        ("E4 a", "age", "age in years", _DECADE),
        ("E4 b", "bmd", "BMD in mg/cm\u00b3", _BMD_STEP),
    ):
        known = ((getattr(row, MEASURED[name]), side) for row, side in people)
        values = [(value, side) for value, side in known if value is not None]
        if not values:
            continue
        title = f"Patients by {'age' if name == 'age' else 'bone mineral density'}"
        made = _histogram(figure, title, x_label, values, step)
        if name == "age":
            most = max(made.totals)
            groups = zip(made.categories, made.totals, strict=True)
            *others, last = [name for name, number in groups if number == most]
            largest = f"s: {', '.join(others)} and {last}" if others else f": {last}"
            caption = f"Largest group{largest} years, {most:,} of {len(values):,} patients"
            caption += " each." if others else "."
        else:
            low = sum(value < OSTEOPOROSIS_MG_CM3 for value, _ in values)
            limit = f"{OSTEOPOROSIS_MG_CM3} mg/cm\u00b3"
            caption = f"{low:,} of {len(values):,} patients are below {limit}."
        yield replace(made, caption=caption, rows=(f"{name}_mean", f"{name}_sd"))


def _state(rows: Sequence[GradingRow]) -> str:
    """Return whether a patient has a fracture; without any grade that is not known."""
    with_fracture, without, ungraded = _FRACTURED
    if is_fractured(rows):
        return with_fracture
    return without if any(0 in row.grades.values() for row in rows) else ungraded


def _histogram(
    figure: str, title: str, x_label: str, values: Sequence[tuple[float, str]], step: int
) -> Chart:
    """Return how many patients lie in each interval of a width, with and without a fracture."""
    counts = Counter((int(value // step), state) for value, state in values)
    places = range(min(place for place, _ in counts), max(place for place, _ in counts) + 1)
    names = tuple(f"{place * step}\u2013{(place + 1) * step - 1}" for place in places)
    there = {state for _, state in values}
    stacks = {
        state: tuple(counts[place, state] for place in places)
        for state in _FRACTURED
        if state in there
    }
    return Chart(figure, title, x_label, "patients", names, stacks)


def _fills(chart: Chart) -> tuple[str, ...]:
    """Return the colours of the stacks: those of grades say nothing else."""
    return _PATIENT_FILLS if chart.y_label == "patients" else _FILLS


# --- drawing --------------------------------------------------------------------------------------


def svg(chart: Chart) -> str:
    """Return a chart as an SVG element, with its counts as text for those who cannot see it."""
    step = _tick_step(max(chart.totals))
    top = -(-max(chart.totals) // step) * step
    scale = (_HEIGHT - _TOP - _BOTTOM) / top
    slot = (_WIDTH - _LEFT - _RIGHT) / len(chart.categories)
    said = ", ".join(f"{c} {n}" for c, n in zip(chart.categories, chart.totals, strict=True))
    above = 0 if len(chart.stacks) > 1 else _LEGEND
    head = (
        f'<svg viewBox="0 {above} {_WIDTH} {_HEIGHT - above}" role="img" font-size="12" fill="currentColor" '
        f'aria-label="{escape(f"{chart.title}: {said}")}">'
    )
    middle = _TOP + (_HEIGHT - _TOP - _BOTTOM) / 2
    up = f'<g transform="translate(12 {middle}) rotate(-90)">{_text(0, 0, chart.y_label)}</g>'
    across = _text(_LEFT + (_WIDTH - _LEFT - _RIGHT) / 2, _HEIGHT - 6, chart.x_label)
    drawn = (*_grid(top, step, scale), *_bars(chart, slot, scale), *_legend(chart))
    return "".join([head, *drawn, across, up, "</svg>"])


def _tick_step(most: int) -> int:
    """Return 1, 2 or 5 times a power of ten, so that there are few ticks up to `most`."""
    steps = (base * int(f"1{'0' * power}") for power in range(12) for base in (1, 2, 5))
    return next(step for step in steps if most <= step * _MOST_TICKS)


def _text(x: float, y: float, words: object, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(str(words))}</text>'


def _grid(top: int, step: int, scale: float) -> Iterable[str]:
    """Yield a mark and its number for each tick, and the line below the bars."""
    for value in range(0, top + 1, step):
        y = _HEIGHT - _BOTTOM - value * scale
        end = _LEFT if value else _WIDTH - _RIGHT  # lines across would run through the totals
        yield (
            f'<line x1="{_LEFT - 4}" x2="{end}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor"/>'
        )
        yield _text(_LEFT - 6, y + 4, f"{value:,}", "end")


def _bars(chart: Chart, slot: float, scale: float) -> Iterable[str]:
    """Yield the stacked bars, the total above each, and its name below."""
    width = min(0.76 * slot, 90)
    for place, (name, total) in enumerate(zip(chart.categories, chart.totals, strict=True)):
        middle, y = _LEFT + (place + 0.5) * slot, float(_HEIGHT - _BOTTOM)
        for fill, counts in zip(_fills(chart), chart.stacks.values(), strict=False):
            height = counts[place] * scale
            y -= height
            if height:
                yield (
                    f'<rect x="{middle - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" '
                    f'height="{height:.1f}" fill="{fill}"/>'
                )
        yield _text(middle, y - 4, f"{total:,}")
        yield _text(middle, _HEIGHT - _BOTTOM + 16, name)


def _legend(chart: Chart) -> Iterable[str]:
    """Yield the kinds with their colours, if there are several."""
    x, names = float(_LEFT), chart.stacks if len(chart.stacks) > 1 else ()
    for fill, name in zip(_fills(chart), names, strict=False):
        yield f'<rect x="{x:.1f}" y="6" width="12" height="12" fill="{fill}"/>'
        yield _text(x + 18, 16, name, "start")
        x += 40 + 7 * len(name)
