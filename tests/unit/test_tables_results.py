"""The numbers of the paper's Results section: published beside found, contradictions explained."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tests.support import workbooks
from tests.support.workbooks import row
from verse_data.errors import ValidationFailed
from verse_data.records.tables import PatientRow
from verse_data.releases import catalog
from verse_data.tables.figures import Figure
from verse_data.tables.grading import Grading, read_grading
from verse_data.tables.results import compute
from verse_data.views.report import Report, make

ENTRY = catalog.load_catalog("verse19")
PAPER = {
    "patients": "141 66.1 15.0 77.8 53.6",
    "women": "92 69.4 12.9 63.4 44.1",
    "men": "49 59.8 16.6 104.9 59.5",
    "fractured": "91 69.5 13.1 58.7 40.8",
    "unfractured": "- 56.6 17.2 115.3 59.5",
}
"""Number, age and BMD (mean, SD) of each group in the Results section, independent of the catalog."""
MEASURES = ("n", "age_mean", "age_sd", "bmd_mean", "bmd_sd")
P_VALUES = {
    f"{what}_training_{split}" for what in ("age", "bmd") for split in ("validation", "test")
}


@pytest.fixture(scope="module")
def grading() -> Grading:
    """The real workbook."""
    path = Path(__file__).parents[3] / "shared/data/verse19/ryai190138_AppendixE1.xlsx"
    if not path.exists():
        pytest.skip(f"the real workbook is not at {path}: this test needs it")
    return read_grading(path)


def results(grading: Grading | None, *patients: PatientRow) -> dict[str, Figure]:
    """Compute the numbers of verse19."""
    published = catalog.load_results("verse19")
    found = compute(published, ENTRY, grading=grading, patients=patients)
    return {one.figure: one for one in found}


def test_the_catalog_holds_every_number_of_the_results_section() -> None:
    """Those of the groups and the P values, as printed, and no others."""
    numbers = {
        f"{group}_{measure}": number
        for group, printed in PAPER.items()
        for measure, number in zip(MEASURES, printed.split(), strict=True)
        if number != "-"
    }

    assert catalog.load_results("verse19") == numbers | dict.fromkeys(P_VALUES, "> .05")


def test_each_published_number_has_a_verdict(grading: Grading) -> None:
    """The workbook alone decides 19 of 29: 14 agree, and five contradict it."""
    found = results(grading)
    by_verdict = {
        verdict: {name for name, one in found.items() if one.expected and one.verdict == verdict}
        for verdict in ("agrees", "differs", "needs")
    }

    published = {*catalog.load_results("verse19"), "commonest_shape"}
    assert set().union(*by_verdict.values()) == published
    assert by_verdict["differs"] == {
        "commonest_shape", *(f"unfractured_{measure}" for measure in MEASURES[1:])
    }  # fmt: skip
    assert by_verdict["needs"] == {
        f"{group}_{measure}" for group in ("women", "men") for measure in MEASURES
    }
    assert len(by_verdict["agrees"]) == 14


def test_numbers_of_series_are_not_those_of_patients(grading: Grading) -> None:
    """Without a fracture the paper prints the 69 series, and the 50 patients have other means."""
    found = results(grading)

    of_patients = [found[f"unfractured_{measure}"].found for measure in MEASURES]
    assert of_patients == ["50", "59.8", "16.1", "112.7", "56.7"]
    for measure in MEASURES[1:]:
        assert "that of the 69 series" in found[f"unfractured_{measure}"].note
        assert "not of the 50 patients" in found[f"unfractured_{measure}"].note
    assert "143 biconcave, 106 wedge, 40 crush" in found["commonest_shape"].note


@pytest.mark.parametrize(
    ("name", "p"),
    [
        ("age_training_validation", "0.552"),
        ("age_training_test", "0.956"),
        ("bmd_training_validation", "0.692"),
        ("bmd_training_test", "0.902"),
        ("age_fracture", "< 0.001"),
        ("bmd_fracture", "< 0.001"),
        ("fractures_training_validation", "0.140"),
        ("fractures_training_test", "0.616"),
    ],
)
def test_means_and_proportions_are_tested(grading: Grading, name: str, p: str) -> None:
    """Student's t test and Pearson's chi-squared; what was not published is found all the same."""
    one = results(grading)[name]

    assert one.found == p
    assert one.verdict == ("agrees" if name in P_VALUES else "found")


def test_numbers_by_sex_need_the_sex_of_every_patient(tmp_path: Path) -> None:
    """One unknown patient keeps them from being computed; with all known they are."""
    rows = [row(4), row(5, age_ct=70.5), row(6, age_ct=80.5)]
    grading = read_grading(workbooks.write_csv(tmp_path / "grades.csv", rows))
    known = [PatientRow(subject_id=f"verse00{n}", sex="F", contrast=None) for n in (4, 5, 6)]

    assert results(grading, *known[:2])["women_n"].needs == "sex of 1 patients: --patients FILE"
    assert results(grading, *known)["women_age_mean"].found == "70.5"
    assert results(grading, *known)["men_age_mean"].verdict == "needs"


def test_without_a_workbook_every_number_needs_it() -> None:
    """None is computed, and none is left out."""
    found = results(None)

    assert {one.verdict for one in found.values()} == {"needs"}
    assert {one.needs for one in found.values()} == {"the grading workbook: --workbook FILE"}
    assert len(found) == 29


def test_equal_patients_have_no_p_value(tmp_path: Path) -> None:
    """Where nothing spreads, or a group has no one, nothing is tested and no warning is given."""
    rows = [
        row(4),
        row(5),
        row(6, dataset="validation public"),
        row(7, dataset="validation public"),
    ]
    grading = read_grading(workbooks.write_csv(tmp_path / "grades.csv", rows))

    assert results(grading)["age_training_validation"].verdict == "needs"
    assert "age_fracture" not in results(grading)


# --- the page -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(grading: Grading) -> Report:
    """The report of the real workbook."""
    return make("verse19", ENTRY, grading=grading, about={"workbook": "<E1>.xlsx"})


def test_the_page_loads_nothing_and_runs_nothing(report: Report, tmp_path: Path) -> None:
    """No script, no address that is fetched; what comes from outside is escaped."""
    page = report.write(tmp_path / "report.html").read_text(encoding="utf-8")

    assert "<script" not in page
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(?!data:)[a-z]+:""", page)
    assert "&lt;E1&gt;.xlsx" in page
    assert "82 agree (=), 5 differ (≠), 38 cannot be computed here (?)" in page
    assert "<td>19 ?</td>" in page
    assert "56.6 ≠ 59.8" in page
    assert "CC-BY-SA-4.0" in page
    assert report._repr_html_().startswith('<div class="verse-data">')


def test_charts_hold_the_counts_of_the_workbook(report: Report) -> None:
    """Figures E1 to E4: fractures by level, types, ages and densities, as counted by hand."""
    charts = {chart.figure: chart for chart in report.charts}

    assert list(charts) == ["E1", "E2", "E3", "E4 a", "E4 b"]
    assert charts["E2"].totals == (3, 3, 9, 5, 7, 9, 14, 13, 13, 9, 15, 28, 47, 39, 31, 29, 15, 0)
    assert charts["E3"].totals == (106, 143, 40)
    assert sum(charts["E4 a"].totals) == sum(charts["E4 b"].totals) == 141
    assert "70\u201379 years, 48 of 141" in charts["E4 a"].caption
    assert "86 of 141 patients are below 80" in charts["E4 b"].caption
    states = {state: sum(counts) for state, counts in charts["E4 a"].stacks.items()}
    assert states == {"with a fracture": 91, "without": 47, "no level graded": 3}


def test_the_report_is_plain_values(report: Report) -> None:
    """JSON has the table, the numbers of the text, the counts of the figures, and what was looked at."""
    value = json.loads(json.dumps(report.as_json()))

    assert value["counts"] == {"agrees": 68, "differs": 0, "needs": 28}
    assert value["charts"][2]["stacks"]["grade 3"] == [15, 10, 26]
    assert {one["verdict"] for one in value["results"]} == {"agrees", "differs", "needs", "found"}
    assert (value["about"]["workbook"], value["summary"]) == ("<E1>.xlsx", None)


def test_only_what_has_no_known_reason_is_unexplained(report: Report) -> None:
    """The five contradictions of the paper are explained; a number without a note is not."""
    assert report.unexplained == ()

    wrong = replace(report.results[0], verdict="differs")
    assert replace(report, results=(wrong,)).unexplained == (wrong,)


def test_a_release_of_the_user_is_described(tmp_path: Path) -> None:
    """Without a catalog entry there is nothing to compare with, and no verdict."""
    grading = read_grading(workbooks.write_csv(tmp_path / "grades.csv", [row(4)]))
    made = make("lab", None, grading=grading, about={"release": "lab"})
    page = made.page()

    assert "described, not compared" in page
    assert {chart.figure for chart in made.charts} == {""}, "E1 to E4 are figures of the paper"
    assert "<strong>Fractures by level and grade.</strong>" in page
    assert "published" not in page.replace("Nothing was published", "")
    assert page.count("<svg") == 5
    assert "nothing can be drawn" in make("lab", None, grading=None, about={}).page()


def test_levels_of_a_scan_without_centroids_are_those_of_its_mask() -> None:
    """Each scan counts by one of the files, so that a release of masks alone has the figure too."""
    rows = pd.DataFrame({"scan_id": list("aabc"), "level": ["L1", "L2", "L2", "L3"]})
    rows = rows.assign(has_centroid=[True, False, False, None], has_mask=[True, True, True, None])

    for here, counts, words in ((rows, {"L1": 1, "L2": 1}, "2"), (rows[2:], {"L2": 1}, "1")):
        (chart,) = make("lab", None, grading=None, vertebrae=here, about={}).charts
        assert dict(zip(chart.categories, chart.totals, strict=True)) == counts
        said = f"{words} vertebrae with a centroid; of 1 series without, those in the mask."
        assert chart.caption.startswith(said)


def test_a_list_of_grades_alone_is_described(tmp_path: Path) -> None:
    """It has no ages, densities or splits: they are left out, or come from the table of subjects."""
    path = tmp_path / "grades.csv"
    path.write_text("scan_id,level,grade\nverse004,L1,2\nverse005,L1,0\nverse006,L1,0\n")
    grading = read_grading(path)
    people = {"subject_id": ["verse004", "verse005"], "age_years": [60.5, 70.5]}
    subjects = pd.DataFrame(people).assign(bmd_mg_cm3=pd.NA)

    def found(subjects: pd.DataFrame | None) -> dict[str, str | None]:
        made = make("lab", None, grading=grading, subjects=subjects, about={})
        if subjects is not None:
            groups = "Largest groups: 60\u201369 and 70\u201379 years, 1 of 2 patients each."
            assert made.charts[-1].caption == groups
        return {one.figure: one.found for one in made.results}

    ages = {"patients_age_mean": "65.5", "patients_age_sd": "7.1", "unfractured_age_mean": "70.5"}
    assert found(None)["patients_n"] == "3"
    assert found(subjects) == found(None) | ages | {"fractured_age_mean": "60.5"}


def test_a_page_has_no_empty_caption(report: Report) -> None:
    """A table without a title has no caption."""
    assert "<caption></caption>" not in report.page()


def test_a_catalog_with_a_wrong_number_is_named(tmp_path: Path) -> None:
    """Results are data of the catalog, and checked like the others."""
    path = tmp_path / "results.csv"
    path.write_text("result,expected\nmen_n,many\n")

    with pytest.raises(ValidationFailed, match=r"results\.csv: .*expected"):
        catalog.read_results(path)
