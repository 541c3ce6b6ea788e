"""The supplement's figures E1 to E4 as bar charts: vertebrae, fractures, types, ages and densities.

Counts come from the tables; the charts are inline SVG that needs no script, and is as readable on a
dark page as on a light one: text and lines have the colour of the text around them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

import pandas as pd

from verse_data.records.tables import FRACTURE_TYPES, GradingRow
from verse_data.spine.levels import GRADED_LEVELS, LEVELS
from verse_data.tables.grading import Grading
from verse_data.tables.results import is_fractured

_GRADES: Final = (1, 2, 3)
_FRACTURED: Final = ("with a fracture", "without")
_DECADE: Final = 10
_BMD_STEP: Final = 20
OSTEOPOROSIS_MG_CM3: Final = 80
"""Below this, volumetric density means osteoporosis (American College of Radiology, QCT of the spine)."""

_WIDTH, _HEIGHT = 760, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 8, 44, 46
_FILLS: Final = ("#4f8fc0", "#d98a1f", "#c2453a")
_MOST_TICKS: Final = 6


@dataclass(frozen=True)
class Chart:
    """Counts by category, stacked by kind; figure E1 to E4 of the supplement."""

    figure: str  # such as "E2"
    title: str
    across: str  # what the categories are
    up: str  # what is counted
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
        persons: dict[str, list[GradingRow]] = {}
        for row in rows:
            persons.setdefault(row.subject_id, []).append(row)
        made += [_fractures(rows), _types(rows), *_ages_and_densities(persons.values())]
    return tuple(chart for chart in made if any(chart.totals))


def _levels(rows: Sequence[GradingRow], vertebrae: pd.DataFrame | None) -> Chart:
    """Return the vertebrae by level: those with a centroid; without such a file, those in the workbook."""
    counts, caption = Counter[str](), "vertebrae with a centroid"
    if vertebrae is not None:
        there = vertebrae["has_centroid"].fillna(value=False).astype(bool)
        counts.update(vertebrae.loc[there, "level"].astype(str))
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
    return Chart(
        "E1", "Vertebrae by level", "level", "vertebrae", there_are, stacks, caption, figures
    )


def _fractures(rows: Iterable[GradingRow]) -> Chart:
    """Return the fractures by level and grade."""
    counts = Counter((level, grade) for row in rows for level, grade in row.grades.items())
    stacks = {
        f"grade {grade}": tuple(counts[level, grade] for level in GRADED_LEVELS)
        for grade in _GRADES
    }
    total = sum(map(sum, stacks.values()))
    return Chart(
        "E2",
        "Fractures by level and grade",
        "level",
        "fractures",
        GRADED_LEVELS,
        stacks,
        f"{total:,} fractured vertebrae.",
        ("fractures",),
    )


def _types(rows: Iterable[GradingRow]) -> Chart:
    """Return the fractures by type and grade."""
    counts = Counter[tuple[object, object]](
        (row.shapes.get(level), grade) for row in rows for level, grade in row.grades.items()
    )
    codes = [code for code in range(len(FRACTURE_TYPES)) if code]
    stacks = {f"grade {grade}": tuple(counts[code, grade] for code in codes) for grade in _GRADES}
    names = tuple(str(FRACTURE_TYPES[code]) for code in codes)
    by_type = (sum(column) for column in zip(*stacks.values(), strict=True))
    caption = ", ".join(f"{n:,} {name}" for n, name in zip(by_type, names, strict=True))
    return Chart(
        "E3",
        "Fractures by type and grade",
        "type",
        "fractures",
        names,
        stacks,
        f"{caption}.",
        tuple(f"grade_{grade}" for grade in _GRADES),
    )


def _ages_and_densities(persons: Iterable[Sequence[GradingRow]]) -> Iterable[Chart]:
    """Yield the patients by age and by density, with and without a fracture."""
    people = [(rows[0], is_fractured(rows)) for rows in persons]
    ages = [(row.age_years, side) for row, side in people if row.age_years is not None]
    if ages:
        found = _histogram("E4 a", "Patients by age", "age in years", ages, _DECADE)
        most = max(found.totals)
        first = found.categories[found.totals.index(most)]
        caption = f"Largest group: {first} years, {most:,} of {len(ages):,} patients."
        yield Chart(**{**vars(found), "caption": caption, "rows": ("age_mean", "age_sd")})
    densities = [(row.bmd_mg_cm3, side) for row, side in people if row.bmd_mg_cm3 is not None]
    if densities:
        found = _histogram(
            "E4 b", "Patients by bone mineral density", "BMD in mg/cm\u00b3", densities, _BMD_STEP
        )
        low = sum(value < OSTEOPOROSIS_MG_CM3 for value, _ in densities)
        limit = f"{OSTEOPOROSIS_MG_CM3} mg/cm\u00b3"
        caption = f"{low:,} of {len(densities):,} patients are below {limit}."
        yield Chart(**{**vars(found), "caption": caption, "rows": ("bmd_mean", "bmd_sd")})


def _histogram(
    figure: str, title: str, across: str, values: Sequence[tuple[float, bool]], step: int
) -> Chart:
    """Return how many patients lie in each interval of a width, with and without a fracture."""
    counts = Counter((int(value // step), fractured) for value, fractured in values)
    places = range(min(place for place, _ in counts), max(place for place, _ in counts) + 1)
    names = tuple(f"{place * step}\u2013{(place + 1) * step - 1}" for place in places)
    stacks = {
        name: tuple(counts[place, side] for place in places)
        for name, side in zip(_FRACTURED, (True, False), strict=True)
    }
    return Chart(figure, title, across, "patients", names, stacks)


# --- drawing --------------------------------------------------------------------------------------


def svg(chart: Chart) -> str:
    """Return a chart as an SVG element, with its counts as text for those who cannot see it."""
    step = _tick_step(max(chart.totals))
    top = -(-max(chart.totals) // step) * step
    scale = (_HEIGHT - _TOP - _BOTTOM) / top
    slot = (_WIDTH - _LEFT - _RIGHT) / len(chart.categories)
    said = ", ".join(f"{c} {n}" for c, n in zip(chart.categories, chart.totals, strict=True))
    head = (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" font-size="12" fill="currentColor" '
        f'aria-label="{escape(f"{chart.title}: {said}")}">'
    )
    middle = _TOP + (_HEIGHT - _TOP - _BOTTOM) / 2
    up = f'<g transform="translate(12 {middle}) rotate(-90)">{_text(0, 0, chart.up)}</g>'
    across = _text(_LEFT + (_WIDTH - _LEFT - _RIGHT) / 2, _HEIGHT - 6, chart.across)
    drawn = (*_grid(top, step, scale), *_bars(chart, slot, scale), *_legend(chart))
    return "".join([head, *drawn, across, up, "</svg>"])


def _tick_step(most: int) -> int:
    """Return 1, 2 or 5 times a power of ten, so that there are few ticks up to `most`."""
    steps = (base * int(f"1{'0' * power}") for power in range(12) for base in (1, 2, 5))
    return next(step for step in steps if most <= step * _MOST_TICKS)


def _text(x: float, y: float, words: object, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(str(words))}</text>'


def _grid(top: int, step: int, scale: float) -> Iterable[str]:
    """Yield a line and its number for each tick."""
    for value in range(0, top + 1, step):
        y = _HEIGHT - _BOTTOM - value * scale
        strong = 0.25 if value else 0.8
        yield (
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
            f'stroke="currentColor" stroke-opacity="{strong}"/>'
        )
        yield _text(_LEFT - 6, y + 4, f"{value:,}", "end")


def _bars(chart: Chart, slot: float, scale: float) -> Iterable[str]:
    """Yield the stacked bars, the total above each, and its name below."""
    width = min(0.76 * slot, 90)
    for place, (name, total) in enumerate(zip(chart.categories, chart.totals, strict=True)):
        middle, y = _LEFT + (place + 0.5) * slot, float(_HEIGHT - _BOTTOM)
        for fill, counts in zip(_FILLS, chart.stacks.values(), strict=False):
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
    x = float(_LEFT)
    for fill, name in zip(_FILLS, chart.stacks if len(chart.stacks) > 1 else (), strict=False):
        yield f'<rect x="{x:.1f}" y="6" width="12" height="12" fill="{fill}"/>'
        yield _text(x + 18, 16, name, "start")
        x += 40 + 7 * len(name)
