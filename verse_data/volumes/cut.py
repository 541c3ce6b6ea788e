"""A box in some orientation, cut out of a stored volume: where it lies there, and what is padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError
from verse_data.spine.geometry import AxisMap, Box, Shape
from verse_data.volumes.shard import Shard


@dataclass(frozen=True)
class Cut:
    """A box, split into what lies inside the volume and what is padding.

    Attributes
    ----------
    start, stop : (int, int, int)
        What lies inside, in the stored grid.
    inside : tuple of slice
        The same as a part of the output, in the target's axes.
    whole : bool
        Whether nothing is padding.
    axes : AxisMap
        From the stored grid to the target's axes.
    """

    start: Shape
    stop: Shape
    inside: tuple[slice, slice, slice]
    whole: bool
    axes: AxisMap

    @classmethod
    def of(cls, box: Box, axes: AxisMap, stored: Shape) -> Cut:
        """Cut `box`, given in the axes that `axes` leads to, out of a volume of shape `stored`.

        Raises
        ------
        UsageError
            If the box ends before it starts.
        """
        if min(box.shape) < 0:
            message = f"The box from {box.start} to {box.stop} ends before it starts."
            raise UsageError(message)
        inside = box.clipped(axes.shape(stored))
        start, stop = [0, 0, 0], [0, 0, 0]
        for target, (source, flip) in enumerate(zip(axes.axes, axes.flips, strict=True)):
            low, high = inside.start[target], inside.stop[target]
            start[source] = stored[source] - high if flip else low
            stop[source] = stored[source] - low if flip else high
        i, j, k = (
            slice(max(low - first, 0), max(high - first, 0))
            for low, high, first in zip(inside.start, inside.stop, box.start, strict=True)
        )
        return cls(
            start=(start[0], start[1], start[2]),
            stop=(stop[0], stop[1], stop[2]),
            inside=(i, j, k),
            whole=inside == box,
            axes=axes,
        )

    def fill(self, shard: Shard, out: npt.NDArray[Any], pad: int) -> npt.NDArray[Any]:
        """Fill `out` with the voxels of the box and with `pad` around them, and return it."""
        held = None
        if not self.whole or out.dtype == np.uint8:  # most of a mask is what it is filled with
            out.fill(pad)
            held = pad
        part = out[self.inside]
        if part.size:
            shard.gather(_undo(self.axes, part), self.start, self.stop, held=held)
        return out


def _undo(axes: AxisMap, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a view of `volume`, given in the target's axes, in the stored grid's axes."""
    steps = tuple(slice(None, None, -1 if flip else 1) for flip in axes.flips)
    return volume[steps].transpose(np.argsort(axes.axes))
