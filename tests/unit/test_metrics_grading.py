"""Figures of fracture grading against their definitions, on vertebrae drawn for the test."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

import verse_data as vd
from verse_data.errors import UsageError, ValidationFailed
from verse_data.metrics.fractures import read_scores


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Vertebrae of 15 patients with grades, scores that have ties, and predicted grades."""
    rng = np.random.default_rng(4)
    grade = rng.choice([0, 0, 0, 1, 2, 3], 120)
    score = np.round(np.clip(grade / 4 + rng.normal(0, 0.3, 120), 0, 1), 1)
    return pd.DataFrame(
        {
            "subject_id": [f"p{n}" for n in rng.integers(0, 15, 120)],
            "grade": pd.array(grade, dtype="Int8"),
            "score": score,
            "predicted": np.clip(grade + rng.integers(-1, 2, 120), 0, 3).astype(float),
        }
    )


def of(made: pd.DataFrame, **what: object) -> pd.DataFrame:
    """Return the figures of which all of this is true."""
    for name, value in what.items():
        made = made[made[name] == value]
    return made.set_index("figure")


@pytest.mark.parametrize("target", [1, 2])
def test_figures_are_those_of_their_definitions(rows, target):
    """AUC is the share of pairs in the right order, ties half; the others follow from four counts."""
    made = vd.metrics.score_grades(rows, thresholds=(0.3, 0.5)).figures
    truth, score = rows["grade"].to_numpy(int) >= target, rows["score"].to_numpy()
    pairs = list(itertools.product(score[truth], score[~truth]))
    found = of(made, by="score", target=f"grade >= {target}")
    right = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs)
    assert found.loc["auc", "value"] == pytest.approx(right / len(pairs))
    for by, column, cut in (
        ("score", "score", 0.3),
        ("score", "score", 0.5),
        ("grade", "predicted", target),
    ):
        called = rows[column].to_numpy() >= cut
        found = of(made, by=by, target=f"grade >= {target}", threshold=cut)["value"]
        assert found["sensitivity"] == pytest.approx(called[truth].mean())
        assert found["specificity"] == pytest.approx((~called[~truth]).mean())
        assert found["kappa"] == pytest.approx(cohen_kappa_score(truth, called))
    quadratic = made.set_index("figure").loc["quadratic_kappa"]
    expected = cohen_kappa_score(rows["grade"].astype(int), rows["predicted"], weights="quadratic")
    assert quadratic["value"] == pytest.approx(expected)


def test_intervals_draw_patients(rows):
    """Ten copies of each vertebra make no interval narrower; ten times the patients do."""
    copies = pd.concat([rows] * 10, ignore_index=True)
    apart = copies.assign(subject_id=[f"{n}" for n in range(len(copies))])
    widths = []
    for table in (rows, copies, apart):
        figure = of(vd.metrics.score_grades(table).figures, by="score").iloc[0]
        widths.append(figure["high"] - figure["low"])
    assert widths[0] == pytest.approx(widths[1])
    assert widths[2] < widths[0] / 2


def test_ungraded_vertebrae_are_left_out_and_counted(rows):
    """A missing grade is no healthy vertebra; the figures are those without its rows."""
    blank = rows.assign(grade=rows["grade"].mask(rows.index < 20))
    made = vd.metrics.score_grades(blank)
    assert made.figures.equals(vd.metrics.score_grades(rows.iloc[20:]).figures)
    assert made.notes == ("left out: 20 scored vertebrae without a true grade",)


def test_one_class_alone_has_no_auc(rows):
    """Where nothing is fractured, what needs fractures has no value, and no error either."""
    made = of(
        vd.metrics.score_grades(rows.assign(grade=pd.array([0] * 120, "Int8"))).figures, by="score"
    )
    assert made.loc[["auc", "sensitivity"], "value"].isna().all()
    assert math.isfinite(made.loc["specificity", "value"].iloc[0])


@pytest.mark.parametrize("thresholds", [(), (math.nan,)])
def test_thresholds_that_are_none_are_refused(rows, thresholds):
    """No threshold, or one that is no number, is an error."""
    with pytest.raises(UsageError, match="thresholds"):
        vd.metrics.score_grades(rows, thresholds=thresholds)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("scan_id,level,score\n", "no row below the heading"),
        ("scan_id;level;score\nverse004;L1;0,5\n", "no comma between fields, but semicolons"),
        ("scan_id,level,score,score\nverse004,L1,1,0\n", "each once"),
        ("scan_id,level,score\n\nverse004,L1,x\n", "row 3, column score"),
        ("scan_id,level\nverse004,L1\n", "score"),
        ("scan_id,level,score\nverse004,L1,high\nverse004,L2,nan\n", r"(?s)2 problems.*row 2.*row 3"),
        ("scan_id,level,grade\nverse004,L1,4\n", "0 to 3"),
        ("scan_id,level,score\nverse004,L1\n", "2 fields where the heading has 3"),
        ("scan_id,level,score\nverse\xff,L1,1\n", "UTF-8"),
    ],
)  # fmt: skip
def test_bad_files_name_their_rows(tmp_path, text, words):
    """What is wrong with a heading or a row is said, with the row as a spreadsheet numbers it."""
    path = tmp_path / "scores.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValidationFailed, match=words):
        read_scores(path)


def test_empty_columns_and_lines_of_a_spreadsheet_do_not_matter(tmp_path):
    """They are left out, and rows keep the numbers that the spreadsheet shows."""
    path = tmp_path / "scores.csv"
    path.write_text("scan_id,level,score,,\n,,,,\nverse004,L1,0.5,,\n")
    assert read_scores(path)[["row", "scan_id", "score"]].to_numpy().tolist() == [
        [3, "verse004", 0.5]
    ]
