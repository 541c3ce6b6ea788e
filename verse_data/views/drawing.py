"""What all pictures share: colours, the bone window, slices, text, and the formats of files."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from verse_data.files import check_output, write_file
from verse_data.spine import levels
from verse_data.spine.windows import WINDOWS
from verse_data.views.slices import Slice

Colour = tuple[int, int, int]
WINDOW_HU: Final = WINDOWS["bone"]
WINDOW: Final = f"bone window {WINDOW_HU[0]:g} to {WINDOW_HU[1]:g} HU"
INK: Final[Colour] = (232, 232, 232)
FAINT: Final[Colour] = (160, 160, 160)
AMBER: Final[Colour] = (255, 184, 77)
PAPER: Final[Colour] = (0, 0, 0)
MARGIN: Final = 20
PHANTOM_NOTE: Final = "phantom, not a patient"
_OPACITY: Final = 0.42
_GOLDEN_TURN: Final = 0.381966  # gives neighbours on the spine distant hues
_OF_MARK: Final[dict[str, Colour]] = {
    "1": (255, 221, 120),
    "2": (255, 160, 70),
    "3": (255, 96, 96),
    "x": (140, 200, 255),
}
FORMATS: Final[dict[str, dict[str, Any]]] = {
    ".png": {"format": "PNG"},
    ".jpg": {"format": "JPEG", "quality": 92, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 92, "subsampling": 0},
    ".webp": {"format": "WEBP", "quality": 92},
    ".pdf": {"format": "PDF", "quality": 92, "resolution": 150.0},
}
"""Extensions of pictures, and what Pillow is told for each."""


def level_colour(level: str | None) -> Colour:
    """Return the RGB colour of a level, the same in every picture; faint grey without a level."""
    if level is None:
        return FAINT
    place = levels.position(level)
    hue = (place * _GOLDEN_TURN) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.62 if place % 2 else 0.78, 1.0)
    return (round(red * 255), round(green * 255), round(blue * 255))


def label_colour(label: int) -> Colour:
    """Return the colour of the level of a label."""
    return level_colour(levels.LEVEL_OF_LABEL.get(label))


def mark_colour(mark: str) -> Colour:
    """Return the colour of a grade, ``x`` or ``?``: the higher the grade, the more it stands out."""
    return _OF_MARK.get(mark[:1], FAINT)


def check_picture(path: Path) -> Path:
    """Return `path` if a picture can be written there, in the format of its extension."""
    return check_output(path, FORMATS, "a picture")


def write_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture atomically, in the format of its extension."""
    write_file(path, encoded(picture, check_picture(path).suffix.lower()))


def encoded(picture: Image.Image, extension: str) -> bytes:
    """Return a picture in the format of an extension, such as ``".jpg"``."""
    stream = io.BytesIO()
    picture.save(stream, **FORMATS[extension])
    return stream.getvalue()


def draw_text(
    pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int, **style: Any
) -> None:
    """Write one line of text; `style` as in Pillow."""
    pen.text(place, text, font=ImageFont.load_default(size), **{"fill": INK, **style})


def draw_caption(
    pen: ImageDraw.ImageDraw, top: int, facts: list[str], notes: list[str], *, size: int, step: int
) -> None:
    """Write facts, and below them warnings in amber, `step` pixels apart."""
    for number, text in enumerate(facts + notes):
        fill = FAINT if number < len(facts) else AMBER
        draw_text(pen, (MARGIN, top + step * number), text, size, fill=fill)


def wrapped(texts: Iterable[str], size: int, width: float) -> list[str]:
    """Join `texts` to lines of at most `width` pixels; a text that is wider alone takes several."""
    font = ImageFont.load_default(size)
    lines: list[str] = []
    for text in texts:
        longer = f"{lines[-1]}  ·  {text}" if lines else text
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        lines.append("")
        for word in text.split(" "):
            longer = f"{lines[-1]} {word}".lstrip()
            if font.getlength(longer) <= width:
                lines[-1] = longer
            else:
                lines += [fitted(word, size, width)]
    return [line for line in lines if line]


def fitted(text: str, size: int, width: float) -> str:
    """Return `text`, with an ellipsis for what is beyond `width` pixels."""
    font = ImageFont.load_default(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def draw_slice(
    part: Slice,
    scale: float,
    *,
    overlay: Sequence[int] | None = None,
    fill: bool = False,
    window: tuple[float, float] = WINDOW_HU,
) -> Image.Image:
    """Draw a slice with `scale` pixels a millimetre.

    The labels of `overlay` (default: all) are outlined, or filled as well, and the centroids dotted.
    """
    wide, high = (max(1, round(extent * scale)) for extent in part.size_mm)
    low, top = window
    grey = np.clip((part.grey.astype(np.float32) - low) / max(top - low, 1e-6), 0, 1) * 255
    base = Image.fromarray(grey.astype(np.uint8)).resize((wide, high), Image.Resampling.BICUBIC)
    picture = np.repeat(np.asarray(base, dtype=np.float32)[:, :, None], 3, axis=2)
    there = [int(value) for value in np.unique(part.label) if value]
    for value in there if overlay is None else (v for v in there if v in overlay):
        colour = np.array(label_colour(value), dtype=np.float32)
        # Resized as grey values with a threshold at half, for smoother edges than nearest.
        mask = Image.fromarray(np.where(part.label == value, 255, 0).astype(np.uint8))
        inside = np.asarray(mask.resize((wide, high), Image.Resampling.BILINEAR)) > 127
        if fill:
            picture[inside] = (1 - _OPACITY) * picture[inside] + _OPACITY * colour
        picture[inside & ~_shrunk(inside)] = colour
    canvas = Image.fromarray(picture.astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    rows, columns = part.grey.shape
    for value, (column, row) in (part.points or {}).items():
        if value in part.marked and (overlay is None or value in overlay):
            x, y = (column + 0.5) * wide / columns, (row + 0.5) * high / rows
            pen.circle((x, y), 3, fill=label_colour(value), outline=PAPER)
    return canvas


def _shrunk(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Erode a region by one pixel."""
    core = inside.copy()
    for smaller, larger in ((core, inside), (core.T, inside.T)):
        smaller[1:] &= larger[:-1]
        smaller[:-1] &= larger[1:]
    return core


def mark_edges(canvas: Image.Image, part: Slice, size: int = 16) -> None:
    """Write the direction of each edge inside it, as on a radiologist's screen."""
    pen = ImageDraw.Draw(canvas)
    (left, right), (top, bottom), gap = part.sides, part.ends, size / 3
    wide, high = canvas.size
    for text, place, anchor in (
        (left, (gap, high / 2), "lm"),
        (right, (wide - gap, high / 2), "rm"),
        (top, (wide / 2, gap), "ma"),
        (bottom, (wide / 2, high - gap), "md"),
    ):
        draw_text(pen, place, text, size, anchor=anchor, stroke_width=2, stroke_fill=PAPER)
