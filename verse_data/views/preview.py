"""One scan as a picture: sagittal and coronal slice along the spine, mask and centroids on top.

The style is that of the snapshots that VerSe itself releases: bodies in colour, level names in the
colour of their mask, heights side by side. Drawn with Pillow alone.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from verse_data.errors import UsageError
from verse_data.publishing import write_file
from verse_data.spine import levels
from verse_data.views.slices import Panel, panels

Colour = tuple[int, int, int]
_WINDOW_HU: Final = (-200.0, 1000.0)
_MAX_HEIGHT: Final = 860
_MAX_WIDTH: Final = 620  # of one panel
_MARGIN: Final = 20
_GUTTER: Final = 58
_CAPTION: Final = 100
_OPACITY: Final = 0.42
_INK: Final[Colour] = (232, 232, 232)
_FAINT: Final[Colour] = (160, 160, 160)
_WARNING: Final[Colour] = (255, 184, 77)
_PAPER: Final[Colour] = (0, 0, 0)
_GOLDEN_TURN: Final = 0.381966  # neighbours on the spine get far hues
PHANTOM_NOTE: Final = "phantom, not a patient"


def level_colour(level: str) -> Colour:
    """Return the RGB colour of a level, the same in every picture."""
    place = levels.position(level)
    hue = (place * _GOLDEN_TURN) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.62 if place % 2 else 0.78, 1.0)
    return (round(red * 255), round(green * 255), round(blue * 255))


def preview_png(
    image: npt.NDArray[Any],
    label: npt.NDArray[Any] | None,
    affine: npt.ArrayLike,
    centroids: Mapping[int, npt.ArrayLike],
    path: Path,
    *,
    scan_id: str,
    release: str,
    note: str | None = None,
) -> Path:
    """Write a PNG of one scan, whole or not at all.

    Parameters
    ----------
    image : (X, Y, Z) array
        HU, in any orientation.
    label : (X, Y, Z) array or None
        VerSe labels on the same grid; None if the scan has no mask.
    affine : (4, 4) array
        Voxel index to world mm, RAS+.
    centroids : mapping of label to voxel index
        In the grid of `image`. The slices follow them along the spine; where there are none, they
        follow the mask, else they lie in the middle of the volume.
    path : Path
        Target.
    scan_id, release : str
        Said in the caption.
    note : str, optional
        A warning in the caption. The release ``phantom`` always says that it is no patient.

    Raises
    ------
    UsageError
        If the arrays are not of one three-dimensional shape.
    """
    if image.ndim != 3 or (label is not None and label.shape != image.shape):
        other = None if label is None else label.shape
        raise UsageError(
            f"A preview needs image and label of one shape (X, Y, Z): {image.shape}, {other}."
        )
    mask = np.zeros(image.shape, dtype=np.uint8) if label is None else label
    sagittal, coronal = panels(image, mask, affine, centroids)
    if release == "phantom":
        note = note or PHANTOM_NOTE
    picture = _compose(sagittal, coronal, scan_id=scan_id, release=release, note=note)
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    write_file(path, stream.getvalue())
    return path


def _compose(
    sagittal: Panel, coronal: Panel, *, scan_id: str, release: str, note: str | None
) -> Image.Image:
    """Put both panels at one scale beside each other, level names between, the caption below."""
    widest = max(sagittal.width_mm, coronal.width_mm)
    scale = min(_MAX_HEIGHT / sagittal.height_mm, _MAX_WIDTH / widest)
    height = round(sagittal.height_mm * scale)
    drawn = [_draw(panel, scale) for panel in (sagittal, coronal)]
    width = 2 * _MARGIN + 2 * _GUTTER + sum(one.width for one in drawn)
    canvas = Image.new("RGB", (max(width, 560), _MARGIN + height + _CAPTION), _PAPER)
    pen = ImageDraw.Draw(canvas)
    left = _MARGIN
    for panel, one in zip((sagittal, coronal), drawn, strict=True):
        _names(pen, panel, scale, (left, _MARGIN))
        left += _GUTTER
        canvas.paste(one, (left, _MARGIN))
        _sides(pen, panel, (left, _MARGIN, one.width))
        left += one.width
    _scale_bar(pen, scale, right=canvas.width - _MARGIN, bottom=_MARGIN + height + 26)
    _caption(pen, (scan_id, release, note), top=_MARGIN + height + 14)
    return canvas


def _draw(panel: Panel, scale: float) -> Image.Image:
    """Draw one slice with its overlay, contours and centroids, `scale` pixels a millimetre."""
    rows, columns = panel.grey.shape
    size = (max(1, round(panel.width_mm * scale)), round(panel.height_mm * scale))
    low, high = _WINDOW_HU
    grey = np.clip((panel.grey - low) / (high - low), 0, 1) * 255
    base = Image.fromarray(grey.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    picture = np.repeat(np.asarray(base, dtype=np.float32)[:, :, None], 3, axis=2)
    for value in np.unique(panel.label[panel.label > 0]):
        level = levels.LEVEL_OF_LABEL.get(int(value))
        colour = np.array(level_colour(level) if level else _FAINT, dtype=np.float32)
        # Resized as grey and cut at the half: a smooth edge, where nearest would give stairs.
        alone = Image.fromarray(np.where(panel.label == value, 255, 0).astype(np.uint8))
        inside = np.asarray(alone.resize(size, Image.Resampling.BILINEAR)) > 127
        picture[inside] = (1 - _OPACITY) * picture[inside] + _OPACITY * colour
        picture[inside & ~_shrunk(inside)] = colour
    canvas = Image.fromarray(picture.astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    for value, (column, row) in panel.points.items():
        x, y = (column + 0.5) * size[0] / columns, (row + 0.5) * size[1] / rows
        level = levels.LEVEL_OF_LABEL.get(value)
        fill = level_colour(level) if level else _FAINT
        pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=fill, outline=_PAPER, width=1)
    return canvas


def _shrunk(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Take one pixel off the rim."""
    core = inside.copy()
    core[1:] &= inside[:-1]
    core[:-1] &= inside[1:]
    core[:, 1:] &= inside[:, :-1]
    core[:, :-1] &= inside[:, 1:]
    return core


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _names(pen: ImageDraw.ImageDraw, panel: Panel, scale: float, corner: tuple[int, int]) -> None:
    """Write each level's name at the height of its centroid; names keep a distance."""
    lowest = float("-inf")
    for value, (_, row) in sorted(panel.points.items(), key=lambda item: item[1][1]):
        level = levels.LEVEL_OF_LABEL.get(value)
        y = max(corner[1] + (row + 0.5) * panel.pixel_mm[1] * scale, lowest + 20)
        lowest = y
        name, colour = (level, level_colour(level)) if level else (str(value), _FAINT)
        pen.text((corner[0] + _GUTTER - 14, y), name, fill=colour, font=_font(20), anchor="rm")


def _sides(pen: ImageDraw.ImageDraw, panel: Panel, place: tuple[int, int, int]) -> None:
    left, top, width = place
    for name, x, anchor in (
        (panel.sides[0], left + 6, "la"),
        (panel.sides[1], left + width - 6, "ra"),
    ):
        pen.text(
            (x, top + 6),
            name,
            fill=_INK,
            font=_font(18),
            anchor=anchor,
            stroke_width=2,
            stroke_fill=_PAPER,
        )


def _scale_bar(pen: ImageDraw.ImageDraw, scale: float, *, right: int, bottom: int) -> None:
    length = 50 if scale < 5 else 20
    left = right - round(length * scale)
    pen.line((left, bottom, right, bottom), fill=_INK, width=3)
    for x in (left, right):
        pen.line((x, bottom - 5, x, bottom + 5), fill=_INK, width=2)
    pen.text(
        ((left + right) / 2, bottom + 10), f"{length} mm", fill=_INK, font=_font(16), anchor="ma"
    )


def _caption(pen: ImageDraw.ImageDraw, words: tuple[str, str, str | None], *, top: int) -> None:
    scan_id, release, note = words
    line = "sagittal and coronal, cut along the spine"
    pen.text((_MARGIN, top), f"{scan_id}  ·  {release}", fill=_INK, font=_font(20))
    pen.text((_MARGIN, top + 29), line, fill=_FAINT, font=_font(15))
    if note:
        pen.text((_MARGIN, top + 50), note, fill=_WARNING, font=_font(17))
