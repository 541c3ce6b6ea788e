"""One scan as a picture: sagittal and coronal slice along the spine, plain and with its mask.

Drawn with Pillow only, from the scan's store.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from verse_data.errors import FILE_FAULTS, VerseDataError
from verse_data.problems import raise_faults
from verse_data.progress import Progress, silent
from verse_data.spine.geometry import voxel_sizes
from verse_data.spine.levels import BELOW_LEVELS, LABEL_OF_LEVEL, LEVEL_OF_LABEL
from verse_data.views.drawing import (
    INK,
    MARGIN,
    PAPER,
    PHANTOM_NOTE,
    WINDOW,
    draw_caption,
    draw_slice,
    draw_text,
    fitted,
    label_colour,
    mark_colour,
    mark_edges,
    wrapped,
    write_picture,
)
from verse_data.views.slices import Labels, Places, Slice, along_spine, places
from verse_data.volumes.build import in_processes
from verse_data.volumes.reader import ScanReader

_MAX_HEIGHT: Final = 860
_MAX_WIDTH: Final = 1500  # of all panels; of a comparison, which a page shrinks to its own width:
_COMPARED_WIDTH: Final = 1100
_MAX_SCALE: Final = 8.0  # pixels a millimetre, for scans of a few voxels
_MIN_WIDTH: Final = 600  # of the picture, for its caption
_GAP: Final = 12
_MIN_SIDE: Final = 48  # of a panel: room for the letters of two edges
_NAMES: Final = 78  # the column of names and marks beside a panel
_NAME: Final = 20  # the height of a name in that column
_LINE: Final = 22
_NAME_OF: Final = LEVEL_OF_LABEL | BELOW_LEVELS  # in the order along the spine
_WORTH_A_PROCESS: Final = 4
"""Pictures that take about as long as it takes to start a process."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a preview shows: a scan, the release and version that it is of, and its marks.

    `marks` maps a level to its grade, ``x`` or ``?``; levels that it lacks were not assessed. None
    means that no grades are here.
    """

    source: ScanReader | VerseDataError  # why there is none
    release: str
    version: str
    marks: Mapping[str, str] | None = None
    fill: bool = False
    is_phantom: bool = False

    def reader(self) -> ScanReader:
        """Return the reader of the store, or raise why there is none."""
        if isinstance(self.source, VerseDataError):
            raise self.source
        return self.source

    def mark(self, label: int) -> str:
        """Return what is written beside a level."""
        if self.marks is None or label not in LEVEL_OF_LABEL:
            return ""
        return self.marks.get(LEVEL_OF_LABEL[label], "?")

    def unseen(self, found: Places) -> list[str]:
        """Return the levels with a mark that have no place in the scan, each with its mark."""
        given = {level: mark for level, mark in (self.marks or {}).items() if mark != "?"}
        lost = _names({LABEL_OF_LEVEL[level] for level in given} - found.points.keys())
        return [f"{level} ({given[level]})" for level in lost]


def marks_of(rows: pd.DataFrame) -> list[str]:
    """Return the grade of each row of vertebrae, ``x`` for foreign material, or ``?``."""
    graded = zip(rows["grade"], rows["foreign_material"].fillna(value=False), strict=True)
    return ["x" if is_foreign else "?" if pd.isna(g) else str(g) for g, is_foreign in graded]


def marks_by_scan(rows: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return the mark of each level, by scan."""
    marks: dict[str, dict[str, str]] = {}
    for name, level, mark in zip(rows["scan_id"], rows["level"], marks_of(rows), strict=True):
        marks.setdefault(name, {})[level] = mark
    return marks


def draw_preview(subject: Subject) -> Image.Image:
    """Draw a scan: plain, then with outlines and names, then from the front; a caption below."""
    reader = subject.reader()
    found = places(reader)
    sagittal, coronal = along_spine(reader, found)
    overlaid = bool(found.points)
    panels = [_Panel(sagittal), *([_Panel(sagittal, subject.mark)] if overlaid else [])]
    row, scale = _row(
        [*panels, _Panel(coronal, subject.mark if overlaid else None)], fill=subject.fill
    )
    texts = _caption(subject, reader, found)
    lines, notes = (wrapped(text, 15, row.width - 2 * MARGIN) for text in texts)
    canvas = Image.new("RGB", (row.width, row.height + 62 + _LINE * len(lines + notes)), PAPER)
    canvas.paste(row)
    pen = ImageDraw.Draw(canvas)
    _scale_bar(pen, scale, right=row.width - MARGIN, bottom=row.height + 24)
    title = f"{reader.scan_id}  ·  {subject.release} {subject.version}"
    width = row.width - 150 - 50 * min(scale, 5.0)
    draw_text(pen, (MARGIN, row.height + 12), fitted(title, 20, width), 20)
    draw_caption(pen, row.height + 44, lines, notes, size=15, step=_LINE)
    return canvas


def draw_comparison(subject: Subject, predicted: Labels) -> Image.Image:
    """Draw the true outlines of a scan beside the predicted ones, on the same slices."""
    reader = subject.reader()
    found = places(reader)
    panels: list[_Panel] = []
    for true, other in zip(
        along_spine(reader, found), along_spine(reader, found, predicted), strict=True
    ):
        panels.append(_Panel(true, subject.mark, "truth"))
        panels.append(_Panel(other, lambda _: "", "predicted"))
    row, scale = _row(panels, widest=_COMPARED_WIDTH)
    canvas = Image.new("RGB", (row.width, row.height + 44), PAPER)
    canvas.paste(row)
    pen = ImageDraw.Draw(canvas)
    _scale_bar(pen, scale, right=row.width - MARGIN, bottom=row.height + 20)
    facts = [WINDOW, *([PHANTOM_NOTE] if subject.is_phantom else [])]
    draw_text(pen, (MARGIN, row.height + 12), "  ·  ".join(facts), 15)
    return canvas


class _Panel(NamedTuple):
    """A slice to draw; with `mark`, outlined, and the names and marks of its levels beside it."""

    part: Slice
    mark: Callable[[int], str] | None = None
    title: str = ""


def _row(
    panels: Sequence[_Panel], *, fill: bool = False, widest: int = _MAX_WIDTH
) -> tuple[Image.Image, float]:
    """Draw panels side by side, and return their pixels a millimetre."""
    gaps = sum(_NAMES if mark else _GAP for _, mark, _ in panels) + 2 * MARGIN
    wide = sum(part.size_mm[0] for part, *_ in panels)
    scale = min(_MAX_HEIGHT / panels[0].part.size_mm[1], widest / wide, _MAX_SCALE)
    drawn = [
        _with_room(draw_slice(part, scale, overlay=None if mark else (), fill=fill))
        for part, mark, _ in panels
    ]
    width = max(sum(one.width for one in drawn) + gaps, _MIN_WIDTH)
    names = max((len(part.points or ()) for part, mark, _ in panels if mark), default=0)
    below = MARGIN + max(drawn[0].height, _NAME * names)
    canvas = Image.new("RGB", (width, below), PAPER)
    pen, left = ImageDraw.Draw(canvas), MARGIN
    for (part, mark, title), one in zip(panels, drawn, strict=True):
        left += _NAMES if mark else _GAP * (left > MARGIN)
        if mark:
            top = MARGIN + (one.height - part.size_mm[1] * scale) / 2
            _write_names(pen, part, scale, mark, right=left - 10, top=top, bottom=below)
        mark_edges(one, part)
        canvas.paste(one, (left, MARGIN))
        draw_text(pen, (left, 0), title, 16)
        left += one.width
    return canvas, scale


def _with_room(picture: Image.Image) -> Image.Image:
    """Centre a slice of a few pixels on paper with room for the letters of its edges."""
    x, y = (max(0, _MIN_SIDE + 1 - edge) // 2 for edge in picture.size)
    return picture.crop((-x, -y, picture.width + x, picture.height + y))  # black outside


def _caption(subject: Subject, reader: ScanReader, found: Places) -> tuple[list[str], list[str]]:
    """Return the facts and the warnings below a picture."""
    sizes = " x ".join(f"{size:.3g}" for size in voxel_sizes(reader.affine))
    cut = "cut along the spine" if found.points else "cut in the middle of the scan"
    facts = [WINDOW, f"voxels {sizes} mm (R-L, A-P, S-I)", cut]
    unseen = subject.unseen(found)
    if subject.marks is not None and (found.points or unseen):
        facts.append("beside a level: Genant grade, x foreign material, ? not assessed")
    if found.points.keys() & BELOW_LEVELS.keys():
        facts.append("S sacrum, Co coccyx")
    notes = [PHANTOM_NOTE] if subject.is_phantom else []
    if not reader.has_label:
        notes.append("no mask")
    elif not reader.labels:
        notes.append("the mask is empty")
    if not found.marked:
        notes.append("no centroids")
    elif guessed := _names(found.points.keys() - found.marked - BELOW_LEVELS.keys()):
        notes.append(f"no centroid: {', '.join(guessed)}")
    if reader.labels and (bare := _names(found.marked.difference(reader.labels))):
        notes.append(f"not in the mask: {', '.join(bare)}")
    if unseen:
        notes.append(f"neither mask nor centroid: {', '.join(unseen)}")
    if subject.marks is None:
        notes.append("no grades here")
    return facts, notes


def _names(labels: Collection[int]) -> list[str]:
    """Return the names of labels in the order along the spine."""
    return [name for label, name in _NAME_OF.items() if label in labels]


def _write_names(
    pen: ImageDraw.ImageDraw,
    part: Slice,
    scale: float,
    mark: Callable[[int], str],
    *,
    right: int,
    top: float,
    bottom: int,
) -> None:
    """Write each level and its mark at the height of its centroid, in spine order at one height."""
    points = part.points or {}
    order = [label for label in _NAME_OF if label in points]
    order.sort(key=lambda label: points[label][1])
    # A wrong centroid may lie outside.
    rows = np.clip([points[label][1] + 0.5 for label in order], 0, len(part.grey))
    steps = _NAME * np.arange(len(order))
    lowest = bottom - _NAME / 2 - steps[::-1]
    apart = np.maximum.accumulate(top + rows * part.pixel_mm[1] * scale - steps) + steps
    for label, y in zip(order, np.minimum(apart, lowest).tolist(), strict=True):
        colour, sign = label_colour(label), mark(label)
        draw_text(pen, (right - 22, y), _NAME_OF[label], 19, fill=colour, anchor="rm")
        draw_text(pen, (right, y), sign, 19, fill=mark_colour(sign), anchor="rm")


def _scale_bar(pen: ImageDraw.ImageDraw, scale: float, *, right: int, bottom: int) -> None:
    length = 50 if scale < 5 else 20
    left = right - round(length * scale)
    pen.line((left, bottom, right, bottom), fill=INK, width=3)
    for x in (left, right):
        pen.line((x, bottom - 5, x, bottom + 5), fill=INK, width=2)
    draw_text(pen, (left - 10, bottom), f"{length} mm", 15, anchor="rm")


def _write_one(task: tuple[Subject, Path]) -> VerseDataError | None:
    """Draw and write one preview; return the error if its store is to blame."""
    try:
        write_picture(draw_preview(task[0]), task[1])
    except FILE_FAULTS as error:
        return type(error)(f"{task[1].name} is not drawn: {error}")
    return None


def write_previews(
    tasks: Mapping[Path, Subject], *, workers: int, progress: Progress = silent
) -> None:
    """Write a picture at each path, in as many processes; damaged scans are raised at the end."""
    pairs = [(subject, path) for path, subject in tasks.items()]
    faults = []
    with progress("Drawing previews", len(pairs), "items") as advance:
        processes = min(workers, len(pairs) // _WORTH_A_PROCESS)
        done = (
            in_processes(_write_one, pairs, workers=processes)
            if processes > 1
            else ((pair, _write_one(pair)) for pair in pairs)
        )
        for _, error in done:
            faults += [error] if error else []
            advance(1)
    raise_faults(faults)
