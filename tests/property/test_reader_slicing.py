"""For any volume, box and orientation, the reader agrees with plain slicing."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.zarr_stores import write_store
from verse_data.spine.geometry import AxisMap, Box
from verse_data.volumes.reader import ScanReader, close_all

CODES = [
    "".join(code)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for code in itertools.product(*axes)
]
"""All 48 orientations."""

sides = st.integers(1, 75)


@st.composite
def volumes(draw):
    """Draw an image and a mask with constant regions, as real ones have."""
    shape = (draw(sides), draw(sides), draw(sides))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    image = rng.integers(-1024, 3072, shape).astype(np.int16)
    label = rng.integers(0, 29, shape).astype(np.uint8)
    for array, value in ((image, -1024), (label, 0)):
        for axis in range(3):
            begin = draw(st.integers(0, shape[axis]))
            where = [slice(None)] * 3
            where[axis] = slice(begin, None)
            if draw(st.booleans()):
                array[tuple(where)] = value
    return image, label


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    arrays=volumes(),
    codec=st.sampled_from(["lz4", "zstd", "none"]),
    requests=st.lists(
        st.tuples(
            st.sampled_from(CODES),
            st.tuples(*[st.integers(-20, 60)] * 3),
            st.tuples(*[st.integers(0, 50)] * 3),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_reading_is_slicing(arrays, codec, requests):
    """read(box, orientation) equals padding, reorienting and slicing the volume in memory."""
    image, label = arrays
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(Path(folder), image, label, codec=codec)
        reader = ScanReader(store)
        for codes, start, size in requests:
            axes = AxisMap.between(reader.affine, codes)
            box = Box(start, tuple(a + n for a, n in zip(start, size, strict=True)))

            found = reader.read(box, orientation=codes)

            for array, truth, pad in zip(found, (image, label), (-1024, 0), strict=True):
                turned = np.pad(axes.apply(truth), (20, 110), constant_values=pad)
                where = tuple(
                    slice(a + 20, b + 20) for a, b in zip(box.start, box.stop, strict=True)
                )
                assert np.array_equal(array, turned[where])
                assert array.flags.c_contiguous
        close_all()
