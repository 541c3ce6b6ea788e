"""Random numbers that are pure functions of their key, on every machine and NumPy version.

``numpy.random.Generator`` may change its streams between versions; a bit generator may not. So
numbers are taken from Philox's raw bits, keyed by (seed, purpose, epoch, …).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

ORDER, DRAW, CLASS, TRANSFORM = range(4)
"""Purposes: keys that differ in them give unrelated numbers."""


def _bits(count: int, *key: int) -> npt.NDArray[np.uint64]:
    return np.random.Philox(np.random.SeedSequence(key)).random_raw(count)


def uniforms(count: int, *key: int) -> npt.NDArray[np.float64]:
    """Return `count` numbers in [0, 1) for `key`."""
    return np.asarray((_bits(count, *key) >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def permutation(count: int, *key: int) -> npt.NDArray[np.int64]:
    """Return the numbers 0 to `count` - 1 in an order drawn for `key`."""
    return np.argsort(_bits(count, *key), kind="stable")


def seeded_transform(
    transform: Callable[[Any], Any], sample: Any, seed: int, epoch: int, index: int
) -> Any:
    """Call `transform` with all usual random generators seeded for this sample.

    The generators' states are put back afterwards, so that a training run's own draws (dropout,
    mixing) do not depend on which samples were made in its process.
    """
    # Two words: MONAI's generators are of NumPy's kind, and would repeat its global one.
    word, own = (int(bits) for bits in _bits(2, seed, TRANSFORM, epoch, index))
    with _generators(word):
        reseed = getattr(transform, "set_random_state", None)
        if callable(reseed):  # MONAI's Randomizable keeps a generator of its own
            reseed(seed=own % 2**32)
        return transform(sample)


@contextmanager
def _generators(word: int) -> Iterator[None]:
    state_torch = torch.random.get_rng_state()
    state_numpy = np.random.get_state()  # noqa: NPY002 - the global one that transforms use
    state_python = random.getstate()
    # The default generator alone: torch.manual_seed would also touch every GPU.
    torch.default_generator.manual_seed(word % 2**63)
    np.random.seed(word % 2**32)  # noqa: NPY002
    random.seed(word)
    try:
        yield
    finally:
        torch.random.set_rng_state(state_torch)
        np.random.set_state(state_numpy)  # noqa: NPY002
        random.setstate(state_python)
