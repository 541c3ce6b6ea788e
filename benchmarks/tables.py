"""How long the tables take: the workbook, 160 scans joined and validated, a query, beside pandas' plain reading.

Run: .venv/bin/python benchmarks/tables.py [WORKBOOK]. Without a workbook, a generated one of the
same size is read. The trees are made up; only sizes and counts are those of VerSe'19.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support import workbooks
from tests.support.releases import locked, source_of, write_scan
from verse_data.releases.catalog import load_catalog
from verse_data.spine.levels import LABEL_OF_LEVEL
from verse_data.tables.assemble import Tables, build_tables
from verse_data.tables.grading import read_grading
from verse_data.tables.query import select

LIMIT_SECONDS = 1.5
QUERY_LIMIT_SECONDS = 0.02
QUERY_ROWS = 10_000
WHERE = "grade >= 2 and level in ['T12', 'L1'] and not foreign_material and bmd_mg_cm3 < 80"
ROUNDS = 5


def best(work: Callable[[], Any]) -> float:
    """Return the shortest of a few runs, in seconds."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> int:
    """Measure, print, and return 1 if the limit is broken."""
    # openpyxl says in this process that it drops an extension of the real workbook.
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = folder / "tree"
        entry = load_catalog("verse19")
        given = Path(sys.argv[1]) if len(sys.argv) > 1 else None
        book = given or workbooks.write_xlsx(
            folder / "grades.xlsx", [workbooks.row(n) for n in range(1, 161)]
        )
        rows = {graded.row.series_id: graded.row for graded in read_grading(book).rows}
        for series in entry.expected:
            levels = rows[series.series_id].grades if series.series_id in rows else {"L1": 0}
            labels = [LABEL_OF_LEVEL[level] for level in levels][:11]
            write_scan(root, series.scan_id, labels, split=series.split)
        (root / "grades.xlsx").write_bytes(book.read_bytes())
        lock = locked(root)

        # As in a dataset, equal contents are one file.
        contents = {file.annex_key: source_of(root, file) for file in lock.files}

        def whole() -> Tables:
            return build_tables(
                lock, lambda f: contents[f.annex_key], catalog=entry, derived=folder / "derived"
            )

        start = time.perf_counter()
        vertebrae = whole().vertebrae
        cold = time.perf_counter() - start
        warm = best(whole)
        ours = best(lambda: read_grading(book))
        plain = best(lambda: pd.read_excel(book, sheet_name="VerSe_dataset"))
        many = pd.concat([vertebrae] * (QUERY_ROWS // len(vertebrae) + 1)).iloc[:QUERY_ROWS]
        asked = best(lambda: select(many, WHERE))
        print(f"workbook, child process, all rules    {ours:6.2f} s")
        print(f"workbook, pandas.read_excel, no rules {plain:6.2f} s   ratio {ours / plain:.2f}")
        print(f"all tables of 160 scans, first time   {cold:6.2f} s   (tiny masks)")
        print(f"all tables of 160 scans, facts kept   {warm:6.2f} s   limit {LIMIT_SECONDS} s")
        print(
            f"a query on {QUERY_ROWS:,} rows               {asked:8.4f} s limit {QUERY_LIMIT_SECONDS} s"
        )
    return int(warm > LIMIT_SECONDS or asked > QUERY_LIMIT_SECONDS)


if __name__ == "__main__":
    raise SystemExit(main())
