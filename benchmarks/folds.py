"""Folds of the real grading workbook against scikit-learn's ``StratifiedGroupKFold``.

Run: python benchmarks/folds.py WORKBOOK [--k 5] [--seeds 20]

WORKBOOK is supplement E1 of Löffler et al. 2020 (ryai190138_AppendixE1.xlsx). Both get the same
table: a row for each graded or x'd vertebra, grouped by patient. scikit-learn stratifies by one
label, so it runs twice for each seed: by grade (with x as a value), and by grade and region
together. The spread of a count is its largest less its smallest over the folds; printed are our
worst over all seeds, and scikit-learn's best and median. The joint figures are over the
combinations of grade, region and foreign material.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from verse_data.tables.assemble import tables_of_workbook
from verse_data.tables.folds import STRATIFY, FoldPart, Folds, make_folds


def peer(
    scans: pd.DataFrame, vertebrae: pd.DataFrame, *, k: int, seed: int, by: list[str]
) -> Folds:
    """Return scikit-learn's folds; patients without an assessed vertebra go to the smallest fold."""
    label = vertebrae.groupby(by, dropna=False).ngroup()
    subject = vertebrae["scan_id"].map(scans.set_index("scan_id")["subject_id"])
    split = StratifiedGroupKFold(n_splits=k, shuffle=True, random_state=seed)
    parts = [set(subject.iloc[held]) for _, held in split.split(label, label, subject)]
    for rest in sorted(set(scans["subject_id"]) - set().union(*parts)):
        min(parts, key=len).add(rest)
    made = [
        FoldPart(
            subjects=tuple(sorted(part)),
            scans=tuple(sorted(scans["scan_id"][scans["subject_id"].isin(part)])),
        )
        for part in parts
    ]
    return Folds(k=k, seed=seed, stratify=STRATIFY, parts=tuple(made), release=None, lock=None)


def figures(folds: Folds, scans: pd.DataFrame, vertebrae: pd.DataFrame) -> dict[str, float]:
    """Return the spread of each count, and three figures of the joint counts."""
    balance = folds.balance(scans, vertebrae)
    counts = balance.drop(columns=["total", "spread"])
    single = {f"{axis} {value}": balance["spread"][axis, value] for axis, value in balance.index}
    joint = counts.loc["joint"]
    off = joint.sub(joint.mean(axis=1), axis=0)
    return {name: spread for name, spread in single.items() if not name.startswith("joint")} | {
        "joint: largest spread": balance.loc["joint"]["spread"].max(),
        "joint: sum of spreads": balance.loc["joint"]["spread"].sum(),
        "joint: root mean square": round(float((off**2).to_numpy().mean() ** 0.5), 2),
    }


def main() -> None:
    """Run both for each seed in turn, and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workbook", type=Path)
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    tables = tables_of_workbook(options.workbook)
    scans, vertebrae = tables.scans, tables.vertebrae
    print(
        f"{len(scans)} scans, {scans['subject_id'].nunique()} patients, {len(vertebrae)} assessed "
        f"vertebrae, {options.k} folds, {options.seeds} seeds"
    )
    ours, by_grade, jointly = [], [], []
    seconds = {"ours": [], "scikit-learn": []}
    for seed in range(options.seeds):
        start = time.perf_counter()
        made = make_folds(scans, vertebrae, k=options.k, seed=seed)
        middle = time.perf_counter()
        graded = peer(scans, vertebrae, k=options.k, seed=seed, by=["grade"])
        seconds["ours"].append(middle - start)
        seconds["scikit-learn"].append(time.perf_counter() - middle)
        joined = peer(scans, vertebrae, k=options.k, seed=seed, by=["grade", "region"])
        for folds, found in ((made, ours), (graded, by_grade), (joined, jointly)):
            found.append(figures(folds, scans, vertebrae))
    print(f"{'':26}{'ours':>8}{'by grade':>18}{'by grade and region':>22}")
    print(
        f"{'spread over the folds':26}{'worst':>8}{'best':>10}{'median':>8}{'best':>14}{'median':>8}  verdict"
    )
    verdicts = [line(name, ours, by_grade, jointly) for name in ours[0]]
    times = {name: statistics.median(found) for name, found in seconds.items()}
    print(
        ", ".join(f"{name} {value:.2f} s" for name, value in times.items()),
        "(median for one division)",
    )
    print("no axis worse than the best of any seed:", "yes" if all(verdicts) else "NO")


def line(name: str, ours: list, *peers: list) -> bool:
    """Print one line; return whether our worst is no worse than the best of each peer."""
    worst = max(found[name] for found in ours)
    best = [min(found[name] for found in peer) for peer in peers]
    median = [statistics.median(found[name] for found in peer) for peer in peers]
    verdict = "better" if worst < min(best) else "as good" if worst == min(best) else "WORSE"
    cells = "".join(
        f"{b:>{10 + 4 * i}g}{m:>8g}" for i, (b, m) in enumerate(zip(best, median, strict=True))
    )
    print(f"{name:26}{worst:>8g}{cells}  {verdict}")
    return worst <= min(best)


if __name__ == "__main__":
    main()
