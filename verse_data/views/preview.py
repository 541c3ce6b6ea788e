"""One scan as a picture: sagittal and coronal slice along the spine, mask and centroids on top.

The style is that of the snapshots that VerSe itself releases: bodies in colour, level names in the
colour of their mask, heights side by side. Drawn with Pillow alone.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from verse_data.errors import UsageError
from verse_data.files import write_file
from verse_data.spine import levels
from verse_data.spine.geometry import AxisMap, voxel_sizes

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

    Image and label have one shape (X, Y, Z) in any orientation. The slices follow the centroids
    (voxel indices) along the spine; where there are none, they follow the mask, else they lie in the
    middle of the volume. `note` is a warning in the caption; the release ``phantom`` always says
    that it is no patient.
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


@dataclass(frozen=True)
class Panel:
    """A slice, upright: HU and labels (rows head to foot), centroids as label to (column, row)."""

    grey: npt.NDArray[np.float32]
    label: npt.NDArray[np.uint8]
    points: Mapping[int, tuple[float, float]]
    pixel_mm: tuple[float, float]  # width, height
    sides: tuple[str, str]  # what lies at the left and at the right edge

    @property
    def width_mm(self) -> float:
        """Extent from left to right."""
        return float(self.grey.shape[1] * self.pixel_mm[0])

    @property
    def height_mm(self) -> float:
        """Extent from head to foot."""
        return float(self.grey.shape[0] * self.pixel_mm[1])


def panels(
    image: npt.NDArray[Any],
    mask: npt.NDArray[Any],
    affine: npt.ArrayLike,
    centroids: Mapping[int, npt.ArrayLike],
) -> tuple[Panel, Panel]:
    """Cut both slices along the curve through the centroids: sagittal, and coronal from the front."""
    axes = AxisMap.between(affine, "LAI")  # right to left, back to front, head to foot
    shape = (image.shape[0], image.shape[1], image.shape[2])
    volume, labels = axes.apply(image), axes.apply(mask)
    size_x, size_y, size_z = voxel_sizes(axes.affine(affine, shape))
    points = {label: axes.points(point, shape) for label, point in centroids.items()}
    points = {label: point for label, point in points.items() if np.isfinite(point).all()}
    rows = np.arange(volume.shape[2])
    x, y = _curve(list(points.values()) or _bodies(labels, size_y), volume.shape)
    sagittal = Panel(
        grey=volume[x, :, rows].astype(np.float32),
        label=labels[x, :, rows].astype(np.uint8),
        points={label: (point[1], point[2]) for label, point in points.items()},
        pixel_mm=(size_y, size_z),
        sides=("P", "A"),
    )
    coronal = Panel(
        grey=volume[:, y, rows].T.astype(np.float32),
        label=labels[:, y, rows].T.astype(np.uint8),
        points={label: (point[0], point[2]) for label, point in points.items()},
        pixel_mm=(size_x, size_z),
        sides=("R", "L"),
    )
    return sagittal, coronal


def _bodies(labels: npt.NDArray[Any], size_y: float) -> list[npt.NDArray[np.float64]]:
    """Guess where the bodies lie: 10 mm in front of each label's centre of mass."""
    # That is how far VerSe's centroids, which mark the body, lie in front of it on average.
    coarse = labels[::2, ::2, ::2]
    front = np.array([0.0, 10 / size_y, 0.0])
    return [
        np.argwhere(coarse == label).mean(axis=0) * 2 + front
        for label in np.unique(coarse[coarse > 0])
    ]


def _curve(
    points: list[npt.NDArray[np.float64]], shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return for each row, head to foot, the column (x, y) of the spine."""
    path = np.array(sorted(points or [np.array(shape) / 2], key=lambda point: float(point[2])))
    rows = np.arange(shape[2])
    x, y = (
        np.clip(np.rint(np.interp(rows, path[:, 2], path[:, axis])), 0, shape[axis] - 1)
        for axis in (0, 1)
    )
    return x.astype(np.intp), y.astype(np.intp)


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
        _sides(pen, panel, left, one.width)
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
        colour = np.array(_colour_of(int(value)), dtype=np.float32)
        # Resized as grey and cut at the half: a smooth edge, where nearest would give stairs.
        alone = Image.fromarray(np.where(panel.label == value, 255, 0).astype(np.uint8))
        inside = np.asarray(alone.resize(size, Image.Resampling.BILINEAR)) > 127
        picture[inside] = (1 - _OPACITY) * picture[inside] + _OPACITY * colour
        picture[inside & ~_shrunk(inside)] = colour
    canvas = Image.fromarray(picture.astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    for value, (column, row) in panel.points.items():
        x, y = (column + 0.5) * size[0] / columns, (row + 0.5) * size[1] / rows
        box = (x - 4, y - 4, x + 4, y + 4)
        pen.ellipse(box, fill=_colour_of(value), outline=_PAPER, width=1)
    return canvas


def _shrunk(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Take one pixel off the rim."""
    core = inside.copy()
    core[1:] &= inside[:-1]
    core[:-1] &= inside[1:]
    core[:, 1:] &= inside[:, :-1]
    core[:, :-1] &= inside[:, 1:]
    return core


def _write(
    pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int, **style: Any
) -> None:
    pen.text(place, text, font=ImageFont.load_default(size), **{"fill": _INK, **style})


def _colour_of(label: int) -> Colour:
    level = levels.LEVEL_OF_LABEL.get(label)
    return level_colour(level) if level else _FAINT


def _names(pen: ImageDraw.ImageDraw, panel: Panel, scale: float, corner: tuple[int, int]) -> None:
    """Write each level's name at the height of its centroid; names keep a distance."""
    lowest = float("-inf")
    for value, (_, row) in sorted(panel.points.items(), key=lambda item: item[1][1]):
        y = max(corner[1] + (row + 0.5) * panel.pixel_mm[1] * scale, lowest + 20)
        lowest = y
        name = levels.LEVEL_OF_LABEL.get(value, str(value))
        _write(pen, (corner[0] + _GUTTER - 14, y), name, 20, fill=_colour_of(value), anchor="rm")


def _sides(pen: ImageDraw.ImageDraw, panel: Panel, left: int, width: int) -> None:
    for name, x, anchor in zip(
        panel.sides, (left + 6, left + width - 6), ("la", "ra"), strict=True
    ):
        outline = {"stroke_width": 2, "stroke_fill": _PAPER}
        _write(pen, (x, _MARGIN + 6), name, 18, anchor=anchor, **outline)


def _scale_bar(pen: ImageDraw.ImageDraw, scale: float, *, right: int, bottom: int) -> None:
    length = 50 if scale < 5 else 20
    left = right - round(length * scale)
    pen.line((left, bottom, right, bottom), fill=_INK, width=3)
    for x in (left, right):
        pen.line((x, bottom - 5, x, bottom + 5), fill=_INK, width=2)
    _write(pen, ((left + right) / 2, bottom + 10), f"{length} mm", 16, anchor="ma")


def _caption(pen: ImageDraw.ImageDraw, words: tuple[str, str, str | None], *, top: int) -> None:
    scan_id, release, note = words
    _write(pen, (_MARGIN, top), f"{scan_id}  ·  {release}", 20)
    line = "sagittal and coronal, cut along the spine"
    _write(pen, (_MARGIN, top + 29), line, 15, fill=_FAINT)
    if note:
        _write(pen, (_MARGIN, top + 50), note, 17, fill=_WARNING)
