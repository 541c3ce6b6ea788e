"""One scan as a picture: sagittal and coronal slice along the spine, plain and with its mask.

Drawn with Pillow only, from the scan's store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd
from PIL import Image, ImageDraw

from verse_data.errors import FILE_FAULTS, VerseDataError
from verse_data.problems import raise_faults
from verse_data.progress import Progress, silent
from verse_data.spine.geometry import voxel_sizes
from verse_data.spine.levels import LEVEL_OF_LABEL
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
from verse_data.views.slices import Places, Slice, along_spine, places
from verse_data.volumes.build import in_processes
from verse_data.volumes.reader import ScanReader

_MAX_HEIGHT: Final = 860
_MAX_WIDTH: Final = 1500  # of all panels
_MAX_SCALE: Final = 8.0  # pixels a millimetre, for scans of a few voxels
_MIN_WIDTH: Final = 600  # of the picture, for its caption
_GAP: Final = 12
_NAMES: Final = 78  # the column of names and marks beside a panel
_LINE: Final = 22
_WORTH_A_PROCESS: Final = 4
"""Pictures that take about as long as it takes to start a process."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a preview shows: a scan, the release and version that it is of, and its marks.

    `marks` maps a level to its grade, ``x`` or ``?``; levels that it lacks were not assessed. None
    means that no grades are here.
    """

    reader: ScanReader
    release: str
    version: str
    marks: Mapping[str, str] | None = None
    fill: bool = False
    is_phantom: bool = False

    def mark(self, label: int) -> str:
        """Return what is written beside a level."""
        if self.marks is None:
            return ""
        return self.marks.get(LEVEL_OF_LABEL.get(label, ""), "?")


def marks_of(rows: pd.DataFrame) -> list[str]:
    """Return the grade of each row of vertebrae, ``x`` for foreign material, or ``?``."""
    graded = zip(rows["grade"], rows["foreign_material"].fillna(value=False), strict=True)
    return ["x" if is_foreign else "?" if pd.isna(g) else str(g) for g, is_foreign in graded]


def draw_preview(subject: Subject) -> Image.Image:
    """Draw a scan: plain, then with outlines and names, then from the front; a caption below."""
    reader = subject.reader
    found = places(reader)
    sagittal, coronal = along_spine(reader, found)
    overlaid = bool(found.points)
    parts = [(sagittal, False), *([(sagittal, True)] if overlaid else []), (coronal, overlaid)]
    gaps = sum(_NAMES if named else _GAP for _, named in parts) + 2 * MARGIN
    wide = sum(part.size_mm[0] for part, _ in parts)
    scale = min(_MAX_HEIGHT / sagittal.size_mm[1], _MAX_WIDTH / wide, _MAX_SCALE)
    drawn = [
        draw_slice(part, scale, overlay=None if named else (), fill=subject.fill)
        for part, named in parts
    ]
    width = max(sum(one.width for one in drawn) + gaps, _MIN_WIDTH)
    texts = _caption(subject, reader, found)
    lines = wrapped(texts[0], 15, width - 2 * MARGIN)
    notes = wrapped(texts[1], 15, width - 2 * MARGIN)
    below = MARGIN + drawn[0].height
    canvas = Image.new("RGB", (width, below + 62 + _LINE * (len(lines) + len(notes))), PAPER)
    pen = ImageDraw.Draw(canvas)
    left = MARGIN
    for (part, named), one in zip(parts, drawn, strict=True):
        left += _NAMES if named else _GAP * (left > MARGIN)
        if named:
            _write_names(pen, part, scale, subject, right=left - 10)
        mark_edges(one, part)
        canvas.paste(one, (left, MARGIN))
        left += one.width
    _scale_bar(pen, scale, right=width - MARGIN, bottom=below + 24)
    title = f"{reader.scan_id}  ·  {subject.release} {subject.version}"
    draw_text(pen, (MARGIN, below + 12), fitted(title, 20, width - 150 - 50 * min(scale, 5.0)), 20)
    draw_caption(pen, below + 44, lines, notes, size=15, step=_LINE)
    return canvas


def _caption(subject: Subject, reader: ScanReader, found: Places) -> tuple[list[str], list[str]]:
    """Return the facts and the warnings below a picture."""
    sizes = " x ".join(f"{size:.3g}" for size in voxel_sizes(reader.affine))
    cut = "cut along the spine" if found.points else "cut in the middle of the scan"
    facts = [WINDOW, f"voxels {sizes} mm (R-L, A-P, S-I)", cut]
    if subject.marks is not None and found.points:
        facts.append("beside a level: Genant grade, x foreign material, ? not assessed")
    notes = [PHANTOM_NOTE] if subject.is_phantom else []
    if not reader.has_label:
        notes.append("no mask")
    elif not reader.labels:
        notes.append("the mask is empty")
    if not found.marked:
        notes.append("no centroids")
    elif guessed := sorted(found.points.keys() - found.marked):
        names = ", ".join(LEVEL_OF_LABEL.get(label, str(label)) for label in guessed)
        notes.append(f"no centroid: {names}")
    if subject.marks is None:
        notes.append("no grades here")
    return facts, notes


def _write_names(
    pen: ImageDraw.ImageDraw, part: Slice, scale: float, subject: Subject, *, right: int
) -> None:
    """Write each level and its mark at the height of its centroid, without overlaps."""
    y = float("-inf")
    points = part.points or {}
    for label, (_, row) in sorted(points.items(), key=lambda item: item[1][1]):
        inside = min(max(row + 0.5, 0.0), len(part.grey))  # a wrong centroid may lie outside
        y = max(MARGIN + inside * part.pixel_mm[1] * scale, y + 20)
        name = LEVEL_OF_LABEL.get(label, str(label))
        draw_text(pen, (right - 22, y), name, 19, fill=label_colour(label), anchor="rm")
        mark = subject.mark(label)
        draw_text(pen, (right, y), mark, 19, fill=mark_colour(mark), anchor="rm")


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
        return error
    return None


def write_previews(
    tasks: Mapping[Path, Subject], *, workers: int, progress: Progress = silent
) -> None:
    """Write a picture at each path, in as many processes; damaged stores are raised at the end."""
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
