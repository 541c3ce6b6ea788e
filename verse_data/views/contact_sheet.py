"""Many vertebrae on one picture, and the samples of a dataset: small crops with their facts below."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageDraw

from verse_data.errors import FILE_FAULTS, VerseDataError, counted
from verse_data.machine import allowed_cores
from verse_data.progress import Progress, silent
from verse_data.spine.levels import LABEL_OF_LEVEL
from verse_data.views.drawing import (
    AMBER,
    FAINT,
    INK,
    MARGIN,
    PAPER,
    PHANTOM_NOTE,
    WINDOW,
    WINDOW_HU,
    Colour,
    draw_caption,
    draw_slice,
    draw_text,
    fitted,
    level_colour,
    mark_colour,
    mark_edges,
    wrapped,
)
from verse_data.views.preview import marks_of
from verse_data.views.slices import Places, middle_planes, places, through_level
from verse_data.volumes.reader import ScanReader

MOST: Final = 1000
"""Vertebrae on one sheet: more are no picture that anybody looks at."""
_EXTENT_MM: Final = 80.0
_SIDE: Final = 200  # pixels of a crop
_GAP: Final = 10
_LINE: Final = 19
_MIN_WIDTH: Final = 640  # for the caption
_HEAT: Final[Colour] = (255, 60, 40)
_HEAT_OPACITY: Final = 190
PLANES: Final = ("sagittal", "coronal", "axial")
_NORMALISED: Final = 20.0
"""Images with no larger value than this are not in HU any more: a transform has scaled them."""


@dataclass(frozen=True, kw_only=True)
class Vertebra:
    """One vertebra to draw, with its mark (a grade, ``x`` or ``?``) and what else is known of it."""

    scan_id: str
    level: str
    mark: str = "?"
    shape: str = ""


def vertebrae_of(rows: pd.DataFrame) -> list[Vertebra]:
    """Return what is drawn of rows of vertebrae; only a fracture has a shape."""
    shapes = rows["fracture_type"].astype(object).where(rows["grade"] > 0, "").fillna("")
    cells = zip(rows["scan_id"], rows["level"], marks_of(rows), shapes, strict=True)
    return [Vertebra(scan_id=a, level=b, mark=c, shape=d) for a, b, c, d in cells]


@dataclass(frozen=True)
class Line:
    """Words below a tile, each in its colour."""

    words: Sequence[tuple[str, Colour]]
    size: int = 14


@dataclass(frozen=True)
class Tile:
    """A small picture with lines below it."""

    picture: Image.Image
    lines: Sequence[Line]


def draw_sheet(
    vertebrae: Sequence[Vertebra],
    sources: Mapping[str, ScanReader | VerseDataError],
    *,
    title: str,
    is_phantom: bool,
    progress: Progress = silent,
) -> tuple[Image.Image, list[VerseDataError]]:
    """Draw vertebrae of several scans, each sagittally through its centroid, in their order.

    Also return the errors of damaged scans, whose tiles say that they are damaged.
    """
    groups = [(name, list(rows)) for name, rows in groupby(vertebrae, lambda row: row.scan_id)]
    tiles: list[Tile] = []
    faults: list[VerseDataError] = []
    with (
        ThreadPoolExecutor(max(1, int(allowed_cores()))) as pool,
        progress("Drawing vertebrae", len(vertebrae), "items") as advance,
    ):
        for some, error in pool.map(
            lambda group: _tiles_of(sources.get(group[0]), group[1]), groups
        ):
            tiles += some
            faults += [error] if error else []
            advance(len(some))
    scans = counted(len({name for name, _ in groups}), "scan")
    facts = [
        f"{counted(len(vertebrae), 'vertebra', 'vertebrae')} of {scans}",
        f"sagittal through the centroid, {_EXTENT_MM:g} x {_EXTENT_MM:g} mm, anterior on the left",
        WINDOW,
        "Genant grade, x foreign material, ? not assessed",
    ]
    return arrange(tiles, title, facts, [PHANTOM_NOTE] if is_phantom else []), faults


def _tiles_of(
    source: ScanReader | VerseDataError | None, rows: Sequence[Vertebra]
) -> tuple[list[Tile], VerseDataError | None]:
    """Draw the vertebrae of one scan; return the error if it is damaged."""
    if source is None:
        return [Tile(_blank("no CT"), _lines(row)) for row in rows], None
    try:
        if isinstance(source, VerseDataError):
            raise source
        found = places(source)
        return [Tile(_crop(source, found, row), _lines(row)) for row in rows], None
    except FILE_FAULTS as error:
        lost = type(error)(f"{rows[0].scan_id} is not on the sheet: {error}")
        return [Tile(_blank("damaged"), _lines(row)) for row in rows], lost


def _crop(reader: ScanReader, found: Places, row: Vertebra) -> Image.Image:
    label = LABEL_OF_LEVEL[row.level]
    if label not in found.points:
        return _blank("no mask, no centroid")
    part = through_level(reader, found.points[label], _EXTENT_MM)
    picture = draw_slice(part, _SIDE / _EXTENT_MM, overlay=[label]).resize((_SIDE, _SIDE))
    if label not in found.marked:
        draw_text(ImageDraw.Draw(picture), (6, 4), "no centroid", 12, fill=AMBER)
    return picture


def _blank(why: str) -> Image.Image:
    """Return a tile that says why there is no picture."""
    picture = Image.new("RGB", (_SIDE, _SIDE), (24, 24, 24))
    draw_text(ImageDraw.Draw(picture), (_SIDE / 2, _SIDE / 2), why, 14, fill=AMBER, anchor="mm")
    return picture


def _lines(row: Vertebra) -> list[Line]:
    mark = " ".join(filter(None, [row.mark, row.shape if row.mark in "123" else ""]))
    words = [(row.level, level_colour(row.level)), (mark, mark_colour(row.mark))]
    return [Line(words, 18), Line([(row.scan_id, FAINT)], 13)]


@dataclass(frozen=True, kw_only=True)
class SampleView:
    """One sample of a dataset: image and label (X, Y, Z), voxel index to cut at, and its lines.

    A slice has one voxel in depth, its `plane`, and `points` to mark; `heat` is from 0 to 1.
    """

    image: npt.NDArray[Any]
    label: npt.NDArray[Any] | None
    affine: npt.ArrayLike
    at: npt.NDArray[np.float64] | None
    lines: Sequence[str]
    sided: bool = True  # whether `affine` is known to tell right from left
    plane: str | None = None
    points: Mapping[int, npt.NDArray[np.float64]] = field(default_factory=dict)
    heat: npt.NDArray[Any] | None = None


def draw_samples(samples: Sequence[SampleView], title: str, *, is_phantom: bool) -> Image.Image:
    """Draw samples in three planes each, in the bone window where their values can be HU."""
    are_hu = all(np.abs(one.image).max(initial=0) > _NORMALISED for one in samples)
    tiles = [_planes(one, are_hu=are_hu) for one in samples]
    window = WINDOW if are_hu else "each sample from its least to its largest value"
    planes = dict.fromkeys(
        name for one in samples for name in ([one.plane] if one.plane else PLANES)
    )
    facts = [", ".join(planes), window, "labels outlined"]
    facts += ["heatmaps in red"] * any(one.heat is not None for one in samples)
    notes = [PHANTOM_NOTE] if is_phantom else []
    if not all(one.sided for one in samples):
        notes.append("no R and L: the transform may have mirrored the image")
    return arrange(tiles, title, facts, notes)


def _planes(sample: SampleView, *, are_hu: bool) -> Tile:
    """Draw one sample: its three planes side by side, at one scale."""
    parts = middle_planes(sample.image, sample.label, sample.affine, sample.at, sample.points)
    which = [PLANES.index(sample.plane)] if sample.plane else [0, 1, 2]
    chosen = [parts[n] for n in which]
    scale = _SIDE / max(extent for part in chosen for extent in part.size_mm)
    if sample.plane:  # alone, a long spine may be twice as high
        scale = min(_SIDE / chosen[0].size_mm[0], 2 * _SIDE / chosen[0].size_mm[1])
    low, high = float(sample.image.min()), float(sample.image.max())
    window = WINDOW_HU if are_hu else (low, high)
    drawn = [draw_slice(part, scale, window=window) for part in chosen]
    if sample.heat is not None:
        hot = middle_planes(sample.heat, None, sample.affine, sample.at)
        for one, part in zip(drawn, [hot[n] for n in which], strict=True):
            weight = Image.fromarray((part.grey.clip(0, 1) * _HEAT_OPACITY).astype(np.uint8))
            one.paste(_HEAT, mask=weight.resize(one.size, Image.Resampling.BILINEAR))
    width = max(_SIDE, sum(one.width for one in drawn) + _GAP // 4 * (len(drawn) - 1))
    picture = Image.new("RGB", (width, max(one.height for one in drawn)), PAPER)
    left = 0
    for part, one in zip(chosen, drawn, strict=True):
        if sample.sided:
            mark_edges(one, part, size=11)
        picture.paste(one, (left, 0))
        left += one.width + _GAP // 4
    first, *rest = sample.lines
    return Tile(picture, [Line([(first, INK)], 16), *(Line([(one, FAINT)], 13) for one in rest)])


def arrange(
    tiles: Sequence[Tile], title: str, facts: Sequence[str], notes: Sequence[str] = ()
) -> Image.Image:
    """Arrange tiles about as wide as high, with a title above and facts and warnings below it."""
    wide = max(tile.picture.width for tile in tiles)
    high = max(tile.picture.height for tile in tiles)
    below = 8 + max(sum(line.size + 5 for line in tile.lines) for tile in tiles)
    step_x, step_y = wide + _GAP, high + below + _GAP
    columns = min(len(tiles), max(1, round(math.sqrt(1.5 * len(tiles) * step_y / step_x))))
    rows = math.ceil(len(tiles) / columns)
    columns = math.ceil(len(tiles) / rows)  # no row that is nearly empty
    width = max(2 * MARGIN - _GAP + columns * step_x, _MIN_WIDTH)
    lines = wrapped(facts, 14, width - 2 * MARGIN)
    warnings = wrapped(notes, 14, width - 2 * MARGIN)
    top = MARGIN + 34 + _LINE * (len(lines) + len(warnings)) + _GAP
    canvas = Image.new("RGB", (width, top + rows * step_y + MARGIN - _GAP), PAPER)
    pen = ImageDraw.Draw(canvas)
    draw_text(pen, (MARGIN, MARGIN - 4), fitted(title, 20, width - 2 * MARGIN), 20)
    draw_caption(pen, MARGIN + 28, lines, warnings, size=14, step=_LINE)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        left, upper = MARGIN + column * step_x, top + row * step_y
        canvas.paste(tile.picture, (left, upper))
        _write_lines(pen, tile.lines, left, upper + tile.picture.height + 6, wide)
    return canvas


def _write_lines(
    pen: ImageDraw.ImageDraw, lines: Sequence[Line], left: int, top: int, width: int
) -> None:
    """Write lines of coloured words, cut to the width of a tile."""
    for line in lines:
        x = float(left)
        for word, colour in line.words:
            text = fitted(word, line.size, left + width - x)
            draw_text(pen, (x, top), text, line.size, fill=colour)
            x += pen.textlength(text, font_size=line.size) + line.size / 2
        top += line.size + 5
