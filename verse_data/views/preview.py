"""One scan as a picture: sagittal and coronal slice along the spine, mask and centroids on top.

In the style of the snapshots that VerSe publishes: vertebrae in colour, level names in the colour of
their mask, both slices at one scale. Drawn with Pillow only.
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
_GOLDEN_TURN: Final = 0.381966  # gives neighbours on the spine distant hues
PHANTOM_NOTE: Final = "phantom, not a patient"


def level_colour(level: str | None) -> Colour:
    """Return the RGB colour of a level, the same in every picture; faint grey without a level."""
    if level is None:
        return _FAINT
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
    """Write a PNG of one scan, atomically.

    Image and label have the same shape (X, Y, Z) in any orientation. The slices follow the centroids
    (voxel indices) along the spine, or without them the mask, or else are in the middle of the
    volume. `note` is a warning in the caption; by default, the release ``phantom`` gets one that it
    is no patient. The caption also says which of mask and centroids there are none of.
    """
    if image.ndim != 3 or (label is not None and label.shape != image.shape):
        other = None if label is None else label.shape
        raise UsageError(
            f"A preview needs image and label of one shape (X, Y, Z): {image.shape}, {other}."
        )
    if release == "phantom":
        note = note or PHANTOM_NOTE
    mask = np.zeros(image.shape, dtype=np.uint8) if label is None else label
    lacks = ["no mask"] * (label is None) + ["no centroids"] * (not centroids)
    place = "in the middle" if len(lacks) == 2 else "along the spine"
    notes = (f"cut {place}", ", ".join(filter(None, [note, *lacks])))
    stream = io.BytesIO()
    picture = _compose(panels(image, mask, affine, centroids), scan_id, release, *notes)
    picture.save(stream, format="PNG", optimize=True)
    write_file(path, stream.getvalue())
    return path


@dataclass(frozen=True)
class Panel:
    """An upright slice: HU and labels (rows from head to foot); centroids map label to (column, row)."""

    grey: npt.NDArray[Any]
    label: npt.NDArray[Any]
    points: Mapping[int, tuple[float, float]]
    pixel_mm: tuple[float, float]  # width, height
    sides: tuple[str, str]  # directions of the left and the right edge, such as ("R", "L")

    @property
    def size_mm(self) -> tuple[float, float]:
        """Extent from left to right, and from head to foot."""
        rows, columns = self.grey.shape
        return columns * self.pixel_mm[0], rows * self.pixel_mm[1]


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
    found = list(points.values()) or _bodies(labels, size_y) or [np.array(volume.shape) / 2]
    path = np.array(sorted(found, key=lambda point: float(point[2])))
    rows = np.arange(volume.shape[2])
    x, y = (
        np.rint(np.interp(rows, path[:, 2], path[:, axis]))
        .clip(0, volume.shape[axis] - 1)
        .astype(int)
        for axis in (0, 1)
    )
    sagittal = {label: (point[1], point[2]) for label, point in points.items()}
    coronal = {label: (point[0], point[2]) for label, point in points.items()}
    return (
        Panel(volume[x, :, rows], labels[x, :, rows], sagittal, (size_y, size_z), ("P", "A")),
        Panel(volume[:, y, rows].T, labels[:, y, rows].T, coronal, (size_x, size_z), ("R", "L")),
    )


def _bodies(labels: npt.NDArray[Any], size_y: float) -> list[npt.NDArray[np.float64]]:
    """Estimate the centres of the vertebral bodies: 10 mm in front of each label's centre of mass."""
    # The average distance of VerSe's centroids, which mark the body, from the centre of mass.
    coarse = labels[::2, ::2, ::2]
    front = np.array([0.0, 10 / size_y, 0.0])
    return [
        np.argwhere(coarse == label).mean(axis=0) * 2 + front
        for label in np.unique(coarse[coarse > 0])
    ]


def _compose(
    parts: tuple[Panel, Panel], scan_id: str, release: str, cut: str, note: str
) -> Image.Image:
    """Arrange both panels at one scale side by side, with level names between and a caption below."""
    high = parts[0].size_mm[1]
    scale = min(_MAX_HEIGHT / high, _MAX_WIDTH / max(part.size_mm[0] for part in parts))
    drawn = [_draw(part, scale) for part in parts]
    width = 2 * _MARGIN + sum(_GUTTER + one.width for one in drawn)
    bottom = _MARGIN + drawn[0].height
    canvas = Image.new("RGB", (max(width, 560), bottom + _CAPTION), _PAPER)
    pen = ImageDraw.Draw(canvas)
    left = _MARGIN + _GUTTER
    for part, one in zip(parts, drawn, strict=True):
        _names(pen, part, scale, right=left - 14)
        canvas.paste(one, (left, _MARGIN))
        style: dict[str, Any] = {"stroke_width": 2, "stroke_fill": _PAPER}
        _write(pen, (left + 6, _MARGIN + 6), part.sides[0], 18, anchor="la", **style)
        left += one.width
        _write(pen, (left - 6, _MARGIN + 6), part.sides[1], 18, anchor="ra", **style)
        left += _GUTTER
    _scale_bar(pen, scale, right=canvas.width - _MARGIN, bottom=bottom + 26)
    _write(pen, (_MARGIN, bottom + 14), f"{scan_id}  ·  {release}", 20)
    _write(pen, (_MARGIN, bottom + 43), f"sagittal and coronal, {cut}", 15, fill=_FAINT)
    _write(pen, (_MARGIN, bottom + 64), note, 17, fill=_WARNING)
    return canvas


def _draw(panel: Panel, scale: float) -> Image.Image:
    """Draw one slice with its overlay, contours and centroids, `scale` pixels a millimetre."""
    wide, high = (max(1, round(extent * scale)) for extent in panel.size_mm)
    low, top = _WINDOW_HU
    grey = np.clip((panel.grey.astype(np.float32) - low) / (top - low), 0, 1) * 255
    base = Image.fromarray(grey.astype(np.uint8)).resize((wide, high), Image.Resampling.BICUBIC)
    picture = np.repeat(np.asarray(base, dtype=np.float32)[:, :, None], 3, axis=2)
    for value in np.unique(panel.label[panel.label > 0]):
        colour = np.array(level_colour(levels.LEVEL_OF_LABEL.get(int(value))), dtype=np.float32)
        # Resized as grey values with a threshold at half, for smoother edges than nearest.
        mask = Image.fromarray(np.where(panel.label == value, 255, 0).astype(np.uint8))
        inside = np.asarray(mask.resize((wide, high), Image.Resampling.BILINEAR)) > 127
        picture[inside] = (1 - _OPACITY) * picture[inside] + _OPACITY * colour
        picture[inside & ~_shrunk(inside)] = colour
    canvas = Image.fromarray(picture.astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    rows, columns = panel.grey.shape
    for value, (column, row) in panel.points.items():
        x, y = (column + 0.5) * wide / columns, (row + 0.5) * high / rows
        fill = level_colour(levels.LEVEL_OF_LABEL.get(value))
        pen.circle((x, y), 4, fill=fill, outline=_PAPER)
    return canvas


def _shrunk(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Erode a region by one pixel."""
    core = inside.copy()
    for smaller, larger in ((core, inside), (core.T, inside.T)):
        smaller[1:] &= larger[:-1]
        smaller[:-1] &= larger[1:]
    return core


def _write(
    pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int, **style: Any
) -> None:
    pen.text(place, text, font=ImageFont.load_default(size), **{"fill": _INK, **style})


def _names(pen: ImageDraw.ImageDraw, panel: Panel, scale: float, *, right: int) -> None:
    """Write each level's name at the height of its centroid, without overlaps."""
    y = float("-inf")
    for value, (_, row) in sorted(panel.points.items(), key=lambda item: item[1][1]):
        y = max(_MARGIN + (row + 0.5) * panel.pixel_mm[1] * scale, y + 20)
        level = levels.LEVEL_OF_LABEL.get(value)
        _write(pen, (right, y), level or str(value), 20, fill=level_colour(level), anchor="rm")


def _scale_bar(pen: ImageDraw.ImageDraw, scale: float, *, right: int, bottom: int) -> None:
    length = 50 if scale < 5 else 20
    left = right - round(length * scale)
    pen.line((left, bottom, right, bottom), fill=_INK, width=3)
    for x in (left, right):
        pen.line((x, bottom - 5, x, bottom + 5), fill=_INK, width=2)
    _write(pen, ((left + right) / 2, bottom + 10), f"{length} mm", 16, anchor="ma")
