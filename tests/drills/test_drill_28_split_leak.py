"""Drill 28: nobody sits in two folds, and the same input gives the same folds."""

from __future__ import annotations

import random

from support.catalogues import made_up_tables

from verse_data.tables.folds import make_folds
from verse_data.tables.leaks import find_leaks

CATALOGUES = 500


def test_no_patient_in_two_folds_of_500_catalogues() -> None:
    """500 made-up catalogues, 2 to 5 folds each: the leak check finds nobody on two sides."""
    for seed in range(CATALOGUES):
        scans, vertebrae = made_up_tables(seed)
        folds = make_folds(scans, vertebrae, k=2 + seed % 4, seed=seed)
        sides = {f"fold {number}": part.scans for number, part in enumerate(folds.parts)}

        report = find_leaks(sides, scans=scans)
        assert report.is_clean, f"catalogue {seed}: {report}"
        assert sum(report.patients.values()) == scans["subject_id"].nunique()
        assert sum(map(len, sides.values())) == len(scans)


def test_same_input_same_folds() -> None:
    """Rows in another order, and a second run, give byte for byte the same folds."""
    for seed in range(40):
        scans, vertebrae = made_up_tables(seed)
        digest = make_folds(scans, vertebrae, k=3, seed=seed).digest
        shuffled = (
            scans.sample(frac=1, random_state=seed),
            vertebrae.sample(frac=1, random_state=seed),
        )

        assert make_folds(scans, vertebrae, k=3, seed=seed).digest == digest
        assert make_folds(*shuffled, k=3, seed=seed).digest == digest


def test_control_dividing_scans_at_random_leaks() -> None:
    """The usual way, dividing the list of scans, puts patients on two sides nearly every time."""
    leaking = 0
    for seed in range(CATALOGUES):
        scans, _ = made_up_tables(seed)
        names = scans["scan_id"].tolist()
        random.Random(seed).shuffle(names)
        half = len(names) // 2
        report = find_leaks({"training": names[:half], "validation": names[half:]}, scans=scans)
        leaking += bool(report.leaks)

    assert leaking > 0.8 * CATALOGUES
