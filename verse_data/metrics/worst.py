"""The page of the worst scans of an evaluation: truth and prediction as pictures, and their scores."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

import numpy as np
import pandas as pd

from verse_data import markup
from verse_data.metrics.predicted import Prediction, predicted_mask, predicted_points
from verse_data.metrics.scores import FIGURES, Evaluation, mean_rows
from verse_data.spine.geometry import AxisMap, Grid
from verse_data.spine.levels import LABEL_OF_LEVEL
from verse_data.views.drawing import encoded
from verse_data.views.preview import Subject, draw_comparison, marks_of
from verse_data.views.report import page, scroll
from verse_data.views.slices import DISPLAY, Labels

_STYLE: Final = """<style>
body{max-width:110em}
.verse-data .scan{display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start}
.verse-data .scan img{max-width:100%;height:auto}
.verse-data .scan figure{margin:0;max-width:none;flex:1 1 40em}
</style>"""


def worst_first(scans: pd.DataFrame) -> list[str]:
    """Return the ids of scans by identification rate, then by Dice, the lowest first."""
    keys = [name for name in ("id_rate", "dice") if name in scans]
    return list(scans.sort_values(keys, na_position="last", kind="stable")["scan_id"])


def picture(subject: Subject, prediction: Prediction, grid: Grid) -> bytes:
    """Return truth and prediction of a scan side by side, as JPEG."""
    axes = AxisMap.between(grid.affine, DISPLAY)
    if prediction.mask is None:
        array = np.zeros(axes.shape(grid.shape), np.uint8)
    else:
        array = axes.apply(predicted_mask(prediction.mask, grid))
    marked = {
        LABEL_OF_LEVEL[level]: axes.points(point, grid.shape)
        for level, point in (predicted_points(prediction.points, grid) or {}).items()
        if np.isfinite(point).all()
    }
    return encoded(draw_comparison(subject, Labels.of(array, marked)), ".jpg")


def make(
    scores: Evaluation, pictures: Mapping[str, bytes], ids: Sequence[str], about: Mapping[str, str]
) -> str:
    """Return the page of the scans `ids`; one without a picture has its scores alone."""
    facts = scores.about | dict(about)
    which = f"the worst {len(ids)} of {len(scores.scans)} scans"
    title = f"{facts['release']} {facts['version']}: {which}"
    return page(title, [f"<h1>{escape(title)}</h1>", *_body(scores, pictures, ids, facts)])


def _body(
    scores: Evaluation, pictures: Mapping[str, bytes], ids: Sequence[str], about: Mapping[str, Any]
) -> Iterator[str]:
    """Yield the sections: figures, and each scan with its picture."""
    yield _STYLE
    yield (
        "<p>By identification rate, then by Dice, the lowest first. Grade: Genant, x foreign "
        "material, ? not assessed. Nearest: the true level that lies nearest to the predicted one.</p>"
    )
    yield "".join(f"<p>Note: {escape(line)}.</p>" for line in scores.notes)
    yield scroll(
        markup.table(("figure", "mean of scans", "mean of vertebrae"), mean_rows(scores)), "Means"
    )
    known = scores.scans.set_index("scan_id")
    for scan_id in ids:
        drawn = base64.b64encode(pictures.get(scan_id, b"")).decode()
        alt = escape(f"{scan_id}: true outlines beside the predicted ones")
        image = f'<figure><img alt="{alt}" src="data:image/jpeg;base64,{drawn}"></figure>'
        figures = known.reindex(columns=["id_rate", "dice"]).loc[scan_id].dropna()
        facts = ", ".join(f"{FIGURES[str(name)]} {value:.3f}" for name, value in figures.items())
        own = scores.vertebrae[scores.vertebrae["scan_id"] == scan_id]
        yield (
            f"<h2>{escape(scan_id)}</h2><p>{escape(facts)}</p>"
            f'<div class="scan">{image if drawn else "<p>no CT</p>"}'
            f"{scroll(_vertebrae(own), scan_id)}</div>"
        )
    yield f"<footer><h2>About</h2>{scroll(markup.facts('', about), 'About')}</footer>"


def _vertebrae(rows: pd.DataFrame) -> str:
    """Return the table of the vertebrae of one scan."""
    if rows.empty:
        return "<p>No vertebra to score.</p>"
    status = rows["mask_status"].fillna(rows["point_status"])
    marks = pd.Series(marks_of(rows), rows.index).mask(status == "additional", "")
    digits = {"dice": 3, "hd95_mm": 1, "distance_mm": 1}
    numbers = [
        ["" if pd.isna(value) else f"{value:.{n}f}" for value in rows[name]]
        for name, n in digits.items()
    ]
    nearest = rows["nearest"].fillna("")
    cells = zip(rows["level"], marks, status, *numbers, nearest, strict=True)
    heads = ("level", "grade", "", "Dice", "HD95, mm", "distance, mm", "nearest")
    return markup.table(heads, cells, left=(2,))
