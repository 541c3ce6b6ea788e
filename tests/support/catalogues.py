"""Made-up tables of scans and vertebrae, the same on every platform."""

from __future__ import annotations

import random

import pandas as pd

SPLITS = ("training", "validation", "test")


def made_up_tables(seed: int, *, subjects: int | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return scans and vertebrae of a made-up release: some subjects have two or three series."""
    draw = random.Random(seed)
    scans, vertebrae = [], []
    for number in range(subjects or draw.randint(5, 14)):
        subject = f"verse{600 + number:03d}"
        split = draw.choice(SPLITS)
        series = draw.choice([1, 1, 1, 1, 2, 3])
        for part in range(series):
            label = f"_split-verse{700 + 3 * number + part:03d}" if series > 1 else ""
            scans.append((subject + label, subject, split))
            for _ in range(draw.randint(0, 10)):
                marked = draw.random() < 0.1
                grade = None if marked else draw.choice([0, 0, 0, 0, 1, 2, 3, None])
                material = True if marked else None if grade is None else False
                region = draw.choice(["cervical", "thoracic", "lumbar"])
                vertebrae.append((subject + label, subject, grade, region, material))
    graded = pd.DataFrame(
        vertebrae, columns=["scan_id", "subject_id", "grade", "region", "foreign_material"]
    )
    kinds = {"grade": "Int8", "foreign_material": "boolean", "region": "category"}
    return pd.DataFrame(scans, columns=["scan_id", "subject_id", "split"]), graded.astype(kinds)
