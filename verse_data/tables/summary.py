"""What a release holds, counted: patients, series, and vertebrae by status, grade and level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from verse_data import markup
from verse_data.errors import counted
from verse_data.records.names import SPLITS
from verse_data.spine.levels import LEVELS

ALL: Final = "all"
NO_SPLIT: Final = "no split"
_STATUS: Final = ("graded", "foreign_material", "not_assessed", "no_mask")
_GRADES: Final = (0, 1, 2, 3)
_COLUMNS: Final = (*(f"grade {grade}" for grade in _GRADES), "foreign material", "no grade")


@dataclass(frozen=True)
class Summary:
    """What one version of a release holds, by published split.

    A vertebra counts once in each CT series that shows it: series of one patient may overlap.

    Attributes
    ----------
    release, version : str
        What was counted.
    counts : pandas.DataFrame
        A row per kind (patients, series, vertebrae, status, grades), a column per split, and ``all``.
    levels : dict of pandas.DataFrame
        For each split and ``all``: a row per level from head to foot; vertebrae by grade, with foreign
        material, without a grade, and in all.
    """

    release: str
    version: str
    counts: pd.DataFrame
    levels: Mapping[str, pd.DataFrame]

    def __repr__(self) -> str:
        return f"<Summary of {self._title}>\n{self.counts.to_string()}"

    def __str__(self) -> str:
        """Return all counts, and those of each level, as text."""
        tables = [self.counts.to_string()]
        if len(self.levels[ALL]):
            tables.append(self.levels[ALL].to_string())
        return "\n\n".join([f"{self.release} {self.version}", *tables])

    def _repr_html_(self) -> str:
        """Return both tables for a notebook."""
        tables = (("", self.counts), ("level", self.levels[ALL]))
        return "".join(
            markup.table(
                [corner, *frame.columns],
                ([name, *row] for name, row in zip(frame.index, frame.to_numpy(), strict=True)),
                caption=f"{self._title}{', by level' if corner else ''}",
            )
            for corner, frame in tables
            if len(frame)
        )

    @property
    def _title(self) -> str:
        of = self.counts[ALL]
        parts = (
            counted(int(of["patients"]), "patient"),
            f"{of['series']:,} CT series",
            counted(int(of["vertebrae"]), "vertebra", "vertebrae"),
        )
        return f"{self.release} {self.version}: {', '.join(parts)}"

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values, by split."""
        levels = {
            split: rows.rename(columns=_key).to_dict(orient="index")
            for split, rows in self.levels.items()
        }
        counts = self.counts.rename(index=_key).to_dict()
        return {
            "release": self.release,
            "version": self.version,
            "counts": counts,
            "levels": levels,
        }


def _key(name: str) -> str:
    """Return the name of a row or column as programs like it: ``grade_3``."""
    return name.replace(" ", "_")


def summarize(
    scans: pd.DataFrame, vertebrae: pd.DataFrame, *, release: str, version: str
) -> Summary:
    """Count the rows of two tables of a release by split."""
    split = scans["split"].astype(object).where(scans["split"].notna(), NO_SPLIT)
    known = [name for name in (*SPLITS, NO_SPLIT) if (split == name).any()]
    counts, levels = {}, {}
    for name in (*known, ALL):
        series = scans if name == ALL else scans[split == name]
        rows = vertebrae[vertebrae["scan_id"].isin(series["scan_id"])]
        counts[name] = _counts(series, rows)
        levels[name] = _levels(rows)
    return Summary(release, version, pd.DataFrame(counts), levels)


def _counts(scans: pd.DataFrame, rows: pd.DataFrame) -> dict[str, int]:
    """Count patients, series and vertebrae of one split."""
    status, grade = rows["grade_status"], rows["grade"]
    return {
        "patients": int(scans["subject_id"].nunique()),
        "series": len(scans),
        "vertebrae": len(rows),
        **{name.replace("_", " "): int((status == name).sum()) for name in _STATUS},
        "fractures": int((grade > 0).fillna(value=False).sum()),
        **{f"grade {one}": int((grade == one).fillna(value=False).sum()) for one in _GRADES},
    }


def _levels(rows: pd.DataFrame) -> pd.DataFrame:
    """Count vertebrae by level and grade; a level that is nowhere has no row."""
    marked = rows["foreign_material"].fillna(value=False).astype(bool)
    kind = ("grade " + rows["grade"].astype("string")).astype(object)
    kind = kind.where(rows["grade"].notna(), "no grade").where(~marked, "foreign material")
    level = rows["level"].astype(str)
    there = [name for name in LEVELS if (level == name).any()]
    table = pd.crosstab(level, kind).reindex(index=there, columns=list(_COLUMNS), fill_value=0)
    table.index.name = table.columns.name = None
    return table.assign(vertebrae=table.sum(axis=1)).astype(int)
