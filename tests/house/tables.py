"""What the tables hold, what conditions select, and the properties of folds."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pandas as pd

import verse_data as vd
from tests.house.place import Place

VERTEBRAE = (
    "grade >= 2",
    "grade != 0",
    "not (grade >= 2)",
    "missing(grade)",
    "grade != 0 or missing(grade)",
    "fracture.any",
    "fracture.moderate and not foreign_material",
    "not fracture.any",
    "fracture_type == 'crush'",
    "fracture_type in ['wedge', 'biconcave'] and grade == 2",
    "foreign_material",
    "not foreign_material",
    "grade_status == 'not_assessed'",
    "level == 'L1'",
    "level in ['T12', 'L1']",
    "level not in ['T12', 'L1'] and grade == 3",
    "'T12' < level < 'L1'",
    "level > 'L3'",
    "'T4' <= level <= 'T6'",
    "region == 'cervical'",
    "not has_mask",
    "has_mask and not has_centroid",
    "split == 'test' and grade >= 1",
    "split != 'training' and voxels > 100",
    "1 <= grade < 3 and bmd_mg_cm3 < 80",
    "bmd_mg_cm3 == 0",
    "age_years < 40",
    "centroid_z > -100.5 and centroid_x < 0",
    "volume_mm3 >= 20000",
    "scan_id == 'verse999'",
)
SCANS = ("n_mask_labels != n_centroids or missing(max_grade) and axcodes in ['PIR', 'RAS']",)
SUBJECTS = ("age_years > 70 and not missing(t_score)",)


def tables(place: Place) -> dict[str, Any]:
    """Return columns, types and digests of the tables of both releases, and what conditions select."""
    found: dict[str, Any] = {}
    for name in ("verse19", "phantom"):
        release = vd.open_release(name)
        for table in ("scans", "vertebrae", "subjects", "findings"):
            frame = getattr(release, table)
            found[f"{name} {table}"] = {
                "rows": len(frame),
                "types": {column: _type(frame[column]) for column in frame.columns},
                "csv": _digest(place, frame),
            }
    for condition in VERTEBRAE:
        rows = release.select(condition)
        found[f"vertebrae where {condition}"] = _chosen(rows, ["scan_id", "level"])
    for condition in SCANS:
        rows = vd.load_table("scans", release="phantom", where=condition)
        found[f"scans where {condition}"] = _chosen(rows, ["scan_id"])
    for condition in SUBJECTS:
        rows = vd.load_table("subjects", release="phantom", where=condition)
        found[f"subjects where {condition}"] = _chosen(rows, ["subject_id"])
    return found | _written(place)


def _digest(place: Place, frame: pd.DataFrame) -> str:
    """Return the SHA-256 of a table as CSV, its numbers rounded: their last bits depend on the processor."""
    floats = [name for name in frame.columns if _type(frame[name]).lower() == "float64"]
    rounded = frame.assign(**{name: frame[name].round(6) + 0.0 for name in floats})
    return hashlib.sha256(place.tidy(rounded.to_csv(index=False)).encode()).hexdigest()


def _type(column: pd.Series) -> str:
    """Return the type of a column, with the words of a category."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        words = " < ".join if column.dtype.ordered else ", ".join
        return f"category: {words(map(str, column.dtype.categories))}"
    return str(column.dtype)


def _written(place: Place) -> dict[str, Any]:
    """Return what the command line writes of tables: to stdout, as CSV and as Parquet."""
    shown = place.call("table", "phantom", "scans")
    found: dict[str, Any] = {
        "table phantom scans": {
            "exit": shown.exit,
            "first line": shown.stdout.splitlines()[0],
            "stdout": hashlib.sha256(shown.stdout.encode()).hexdigest(),
        }
    }
    out = place.folder / "vertebrae.parquet"
    said = place.call("table", "phantom", "vertebrae", "--out", str(out))
    again = pd.read_parquet(out)
    found["table phantom vertebrae --out vertebrae.parquet"] = {
        "exit": said.exit,
        "rows": len(again),
        "types": {column: _type(again[column]) for column in again.columns},
        "as csv": _digest(place, again),
    }
    return found


def _chosen(rows: pd.DataFrame, names: list[str]) -> dict[str, Any]:
    """Return which rows were chosen, in their order."""
    ids = [" ".join(map(str, row)) for row in rows[names].itertuples(index=False)]
    return {"rows": len(rows), "which": "; ".join(ids)}


def folds(place: Place) -> dict[str, Any]:
    """Return properties of folds alone: which patient is in which may change with a later version."""
    release = vd.open_release("phantom")
    subject_of = release.scans.set_index("scan_id")["subject_id"].to_dict()
    found: dict[str, Any] = {}
    for k, seed, split in ((5, 0, None), (3, 1, None), (2, 0, "training")):
        made, again = (release.folds(k, seed=seed, split=split) for _ in range(2))
        parts = [made.split(number) for number in range(made.k)]
        held = [{subject_of[scan] for scan in part["validation"]} for part in parts]
        apart = all(
            not {subject_of[scan] for scan in part["training"]} & one
            for part, one in zip(parts, held, strict=True)
        )
        found[f"k={k} seed={seed} split={split}"] = {
            "parts": made.k,
            "scans in each fold": sorted(
                {len(p["training"]) + len(p["validation"]) for p in parts}
            ),
            "patients held out": sum(map(len, held)),
            "patients held out twice": sum(map(len, held)) - len(set().union(*held)),
            "training and validation apart": apart,
            "same when made twice": made.digest == again.digest,
        }
    words = ("folds", "phantom", "--k", "3")
    value = json.loads(place.call(*words, "--json").stdout)
    out = str(place.folder / "folds.json")
    found["folds phantom --k 3 --json"] = {
        "keys": sorted(value),
        "keys of a fold": sorted(value["folds"][0]),
        "keys of the balance": sorted(value["balance"][0]),
        "axes": sorted({row["axis"] for row in value["balance"]}),
        "same as Python's": value["digest"] == release.folds(3).digest,
    }
    found["folds --out, then read"] = {
        "exit": place.call(*words, "--out", out).exit,
        "the same": release.read_folds(out).digest == value["digest"],
    }
    edited = json.loads((place.folder / "folds.json").read_text())
    found["the file of folds"] = {"keys": sorted(edited), "kind": edited["kind"]}
    return found
