"""What `BalancedSampler` draws, on the phantom and on a table with the counts of the real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

import verse_data as vd
from tests.support import training as support
from verse_data import phantom
from verse_data.api import lock_tree
from verse_data.training import BalancedSampler, ServedScan, VertebraDataset

# Vertebrae of grade 0 to 3 at each level in the published training split of VerSe'19.
COUNTS = {
    "T1": (38, 1, 0, 0),
    "T2": (36, 1, 0, 0),
    "T3": (29, 2, 0, 1),
    "T4": (31, 1, 0, 0),
    "T5": (26, 4, 0, 1),
    "T6": (25, 3, 3, 0),
    "T7": (24, 4, 1, 2),
    "T8": (25, 4, 1, 1),
    "T9": (34, 2, 2, 0),
    "T10": (38, 3, 1, 0),
    "T11": (37, 2, 2, 1),
    "T12": (38, 4, 8, 1),
    "L1": (40, 6, 8, 4),
    "L2": (40, 10, 9, 2),
    "L3": (45, 8, 4, 3),
    "L4": (42, 7, 6, 3),
    "L5": (47, 1, 5, 3),
    "L6": (3, 0, 0, 0),
}
SUBJECTS = 67


def like_the_real_one() -> pd.DataFrame:
    """Return vertebrae with `COUNTS`: those with a fracture crowd in the first subjects."""
    specs, fractured, healthy = [], 0, 0
    for level, counts in COUNTS.items():
        for grade, count in enumerate(counts):
            for _ in range(count):
                subject = (fractured // 5 if grade else healthy) % SUBJECTS
                fractured, healthy = fractured + bool(grade), healthy + (not grade)
                scan = f"verse{subject:03}"
                specs.append(support.Spec(scan, levels=(level,), grades={level: grade}))
    return support.table(specs)


def served(table: pd.DataFrame) -> VertebraDataset:
    """Return the vertebrae of `table` as a dataset whose stores are never opened."""
    names = table[["scan_id", "subject_id"]].drop_duplicates().itertuples(index=False)
    scans = [
        ServedScan(scan, subject, "training", Path("/nowhere") / scan) for scan, subject in names
    ]
    return VertebraDataset(scans, table, label_mode="none")


@pytest.fixture(scope="module")
def phantom_table(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Return the vertebrae of the phantom's training split; its grades do not depend on the shape."""
    home = tmp_path_factory.mktemp("balance")
    lock_tree("phantom", phantom.write(home / "tree", shape=(32, 64, 24)), root=home)
    table = vd.open_release("phantom", root=home).vertebrae
    return table[table["split"] != "test"]


@pytest.fixture(params=["phantom", "real"])
def dataset(request: pytest.FixtureRequest) -> VertebraDataset:
    """Serve the phantom, and a table like the real one."""
    if request.param == "phantom":
        return served(request.getfixturevalue("phantom_table"))
    return served(like_the_real_one())


def cells(sampler: BalancedSampler) -> pd.DataFrame:
    """Return the share of each grade, a column each, at each level, a row each."""
    return sampler.shares.pivot_table(
        index="level", columns="grade", values="share", aggfunc="sum", fill_value=0, observed=True
    )


def counts(dataset: VertebraDataset) -> pd.DataFrame:
    """Return how many vertebrae there are of each grade at each level."""
    return dataset.vertebrae.pivot_table(
        index="level",
        columns="grade",
        values="scan_id",
        aggfunc="count",
        fill_value=0,
        observed=True,
    )


def information(joint: pd.DataFrame) -> float:
    """Return how many bits the level tells of the grade."""
    both: npt.NDArray[np.float64] = joint.to_numpy(dtype=float)
    alone = both.sum(axis=1, keepdims=True) * both.sum(axis=0, keepdims=True)
    held = both > 0
    return float((both[held] * np.log2(both[held] / alone[held])).sum())


def test_every_vertebra_is_drawn_now_and_then_and_none_all_the_time(dataset):
    """Each comes between once in ten epochs and fifteen times an epoch; in 12 epochs all come."""
    sampler = BalancedSampler(dataset)
    draws = sampler.shares["share"] * len(dataset)
    assert draws.sum() == pytest.approx(len(dataset))
    assert draws.min() > 0.1
    assert draws.max() < 15
    drawn = np.concatenate([sampler.order(epoch) for epoch in range(12)])
    assert len(np.unique(drawn)) > 0.9 * len(dataset)


def test_without_a_limit_none_comes_more_than_twice_as_often_as_its_grade_does(dataset):
    """The bound that is documented, where no subject's share goes to others."""
    shares = BalancedSampler(dataset, max_subject_share=1.0).shares
    average = shares.groupby("grade")["share"].transform("mean")
    assert (shares["share"] / average).max() <= 2 + 1e-6


def test_no_grade_shuts_another_out_at_a_level(dataset):
    """At each level every grade that it has comes, healthy ones neither always nor hardly ever."""
    sampler = BalancedSampler(dataset)
    joint = cells(sampler)
    has = counts(dataset)
    at_level = joint.div(joint.sum(axis=1), axis=0)
    several = (has > 0).sum(axis=1) > 1
    assert (at_level[has > 0].min(axis=None)) > 0.03
    assert at_level.loc[several, 0].between(0.15, 0.9).all()
    assert (at_level.loc[(has.iloc[:, 1:] == 0).all(axis=1), 0] == 1).all()


def test_grades_are_even_within_a_level_that_has_some_of_each(dataset):
    """Where a level has four vertebrae of a grade or more, it is within a factor of two of even."""
    joint = cells(BalancedSampler(dataset, max_subject_share=1.0))
    has = counts(dataset)
    even = 1 / (has > 0).sum(axis=1)
    ratio = joint.div(joint.sum(axis=1), axis=0).div(even, axis=0)[has >= 4]
    assert ratio.min(axis=None) > 0.5
    assert ratio.max(axis=None) < 2


def test_level_tells_less_of_the_grade_than_if_grades_alone_were_even(dataset):
    """A plain sampler weighted by grade, the usual one, lets levels predict grades more."""
    joint = cells(BalancedSampler(dataset))
    has = counts(dataset)
    plain = has / has.sum(axis=0) / has.shape[1]
    assert information(joint) < information(plain)


def test_rare_grades_gain_and_no_subject_dominates(dataset):
    """Each fracture grade has at least a share of 0.1, and no subject more than thrice an even one."""
    sampler = BalancedSampler(dataset)
    shares = sampler.shares
    subjects = shares["subject_id"].nunique()
    assert (shares.groupby("grade")["share"].sum() > 0.1).all()
    assert shares.groupby("subject_id")["share"].sum().max() <= 3 / subjects + 1e-9
    limited = BalancedSampler(dataset, max_subject_share=1.5 / subjects).shares
    assert limited.groupby("subject_id")["share"].sum().max() <= 1.5 / subjects + 1e-9
    assert (limited["share"] > 0).all()


@pytest.mark.parametrize("weights", [{0: 1, 1: 1, 2: 1, 3: 1}, {0: 3, 2: 1}, {0: 0, 3: 1}])
def test_asked_weights_are_met_over_all_levels(dataset, weights):
    """Grades have the shares that were asked for, and what is not asked for is not drawn."""
    shares = BalancedSampler(dataset, grade_weights=weights, max_subject_share=1.0).shares
    by_grade = shares.groupby("grade")["share"].sum()
    total = sum(weights.values())
    for grade in range(4):
        assert by_grade.loc[grade] == pytest.approx(weights.get(grade, 0) / total)
    wanted = shares["grade"].isin([grade for grade, weight in weights.items() if weight])
    assert ((shares["share"] > 0) == wanted).all()
