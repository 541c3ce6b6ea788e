"""The numbers of a publication's Results section, recomputed; of any other release, the same numbers.

All are by patient, as the sentences say: of each, the first row of the workbook counts. Where the
printed number is not that of the patients, and is that of the series, this is said.

Means are compared by Student's t test, two-sided, with equal variances; proportions by Pearson's
chi-squared test without correction for continuity.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from verse_data.records.catalog import CatalogEntry
from verse_data.records.tables import GradingRow, PatientRow
from verse_data.tables import figures
from verse_data.tables.figures import Figure
from verse_data.tables.grading import Grading

_GROUPS: Final = {
    "patients": "patients",
    "women": "women",
    "men": "men",
    "fractured": "patients with a fracture",
    "unfractured": "patients without a graded fracture",
}
_MEASURES: Final = {
    "n": "",
    "age_mean": "age in years, mean",
    "age_sd": "age in years, SD",
    "bmd_mean": "BMD in mg/cm3, mean",
    "bmd_sd": "BMD in mg/cm3, SD",
}
_PAIRS: Final = (("training", "validation"), ("training", "test"))
_SMALLEST_P: Final = 0.001

_Person = Sequence[GradingRow]
"""The rows of one patient, or one row, where series are counted."""


def compute(
    published: Mapping[str, str],
    entry: CatalogEntry | None,
    *,
    grading: Grading | None,
    patients: Iterable[PatientRow] = (),
) -> tuple[Figure, ...]:
    """Return every number that can be told of a workbook, beside the `published` ones."""
    rows = [graded.row for graded in grading.rows] if grading else []
    persons = figures.by_patient(rows)
    sexes = {known.subject_id: known.sex for known in patients}
    unknown = sum(sexes.get(own[0].subject_id) is None for own in persons)
    sex_needs = f"sex of {unknown} patients: --patients FILE" if unknown else ""
    needs = "" if grading else figures.NEEDS_WORKBOOK
    results = []
    for group in _GROUPS:
        lacks = sex_needs if group in {"women", "men"} else ""
        results += _of_group(group, persons, sexes, published, lacks or needs)
    results += _means(persons, published, needs)
    results += _proportions(persons, sexes, published, needs, sex_needs)
    results.append(_commonest(rows, entry, needs))
    # Unpublished numbers appear only where they can be computed.
    return tuple(one for one in results if one.expected is not None or one.found is not None)


def is_fractured(rows: _Person) -> bool:
    """Whether one of these rows has a vertebra of grade 1 to 3."""
    return any(grade in {1, 2, 3} for row in rows for grade in row.grades.values())


def _member(group: str, sexes: Mapping[str, str | None]) -> Callable[[_Person], bool]:
    """Return what tells whether a patient, or a series, belongs to a group."""
    if group in {"women", "men"}:
        sex = "F" if group == "women" else "M"
        return lambda rows: sexes.get(rows[0].subject_id) == sex
    if group == "patients":
        return bool
    return lambda rows: is_fractured(rows) == (group == "fractured")


def _of_group(
    group: str,
    persons: Sequence[_Person],
    sexes: Mapping[str, str | None],
    published: Mapping[str, str],
    needs: str,
) -> list[Figure]:
    """Return number, ages and densities of the patients of a group."""
    belongs = _member(group, sexes)
    first = [rows[0] for rows in persons if belongs(rows)]
    series = [row for rows in persons for row in rows if belongs([row])]
    of_patients, of_series = ({"n": len(x), **figures.measures(x)} for x in (first, series))
    results = []
    for measure, words in _MEASURES.items():
        key, title = f"{group}_{measure}", ": ".join(filter(None, (_GROUPS[group], words)))
        expected, value = published.get(key), of_patients[measure]
        like = expected or ("0" if measure == "n" else "0.0")
        found = None if value is None else figures.as_printed(value, like)
        made = figures.judge(key, title, expected, found, needs)
        other = of_series[measure]
        by_series = other is not None and figures.as_printed(other, like) == expected
        if made.verdict == "differs" and by_series:
            whom = _GROUPS[group]
            those = f"the {len(series)} series{whom.removeprefix('patients')}"
            note = f"what was published is that of {those}, not of the {len(first)} {whom}"
            made = replace(made, note=note)
        results.append(made)
    return results


# --- tests ----------------------------------------------------------------------------------------


def _means(
    persons: Sequence[_Person], published: Mapping[str, str], needs: str
) -> Iterable[Figure]:
    """Yield the t tests of age and density: between splits, and with or without a fracture."""
    first = [rows[0] for rows in persons]
    pairs = {
        f"{a}_{b}": (f"{a} against {b}", [[r for r in first if r.split == s] for s in (a, b)])
        for a, b in _PAIRS
    }
    sides = [[p[0] for p in persons if is_fractured(p) == side] for side in (True, False)]
    pairs["fracture"] = "with against without a fracture", sides
    for name, field in figures.MEASURED.items():
        for key, (words, groups) in pairs.items():
            value = _t_test(*(figures.values_of(group, field) for group in groups))
            title = f"P of {'age' if name == 'age' else 'BMD'}, {words} (t test)"
            yield _of_p(f"{name}_{key}", title, published, value, needs)


def _proportions(
    persons: Sequence[_Person],
    sexes: Mapping[str, str | None],
    published: Mapping[str, str],
    needs: str,
    sex_needs: str,
) -> Iterable[Figure]:
    """Yield the chi-squared tests between splits: fractured vertebrae of the graded ones, and sex."""
    for a, b in _PAIRS:
        vertebrae, people = [], []
        for split in (a, b):
            of_split = [rows for rows in persons if rows[0].split == split]
            grades = Counter(g for rows in of_split for row in rows for g in row.grades.values())
            vertebrae.append([grades[0], grades[1] + grades[2] + grades[3]])
            sex = Counter(sexes.get(rows[0].subject_id) for rows in of_split)
            people.append([sex["F"], sex["M"]])
        for key, words, table, lacks in (
            ("fractures", "fractured of graded vertebrae", vertebrae, needs),
            ("women", "women of patients", people, needs or sex_needs),
        ):
            title = f"P of {words}, {a} against {b} (chi-squared)"
            yield _of_p(f"{key}_{a}_{b}", title, published, _chi_squared(table), lacks)


def _of_p(
    key: str, title: str, published: Mapping[str, str], value: float | None, needs: str
) -> Figure:
    """Return a P value; the published value is a lower bound, '> 0.05'."""
    found = None
    if value is not None:
        found = f"< {_SMALLEST_P}" if value < _SMALLEST_P else figures.as_printed(value, "0.000")
    expected = published.get(key)
    above = None not in {expected, value} and value > float(str(expected).removeprefix("> "))  # type: ignore[operator]
    return figures.judge(key, title, expected, found, needs, same=above)


def _t_test(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Return P of equal means; None for fewer than two values, or values without any spread."""
    if min(len(a), len(b)) < 2 or len({*a}) == len({*b}) == 1:
        return None
    from scipy import stats

    # From the moments: ttest_ind warns where the values of a group are nearly equal.
    of_a, of_b = ((statistics.fmean(x), statistics.stdev(x), len(x)) for x in (a, b))
    return float(stats.ttest_ind_from_stats(*of_a, *of_b).pvalue)


def _chi_squared(table: list[list[int]]) -> float | None:
    """Return P of equal proportions; None where a row or a column of the table has no one."""
    if not all(map(sum, table)) or not all(map(sum, zip(*table, strict=True))):
        return None
    from scipy import stats

    return float(stats.chi2_contingency(table, correction=False).pvalue)


def _commonest(rows: Iterable[GradingRow], entry: CatalogEntry | None, needs: str) -> Figure:
    """Return the commonest type of fracture, beside the one that the prose names."""
    counts = figures.types_by_number(rows)
    first = next(iter(counts))
    claims = [c.says for c in entry.prose if c.figure == "commonest_shape"] if entry else []
    expected = claims[0] if claims else None
    found = first if counts[first] else None
    made = figures.judge("commonest_shape", "commonest type of fracture", expected, found, needs)
    note = figures.of_types(counts) if made.verdict in {"differs", "found"} else ""
    return replace(made, note=note)
