"""Laws of order, ranks and shares, over generated cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verse_data.training import PatchDataset, ServedScan
from verse_data.training.draw import DrawPlan, permutation, uniforms
from verse_data.training.patch import fitted_box

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no error."""

triples = st.tuples(*[st.integers(1, 60)] * 3)


def dataset(count: int, seed: int) -> PatchDataset:
    scan = ServedScan("verse900", "verse900", "training", Path("/nowhere/ab"))
    return PatchDataset([scan], label=False, patches_per_epoch=count, seed=seed)


@PATIENT
@given(
    count=st.integers(0, 40),
    world=st.integers(1, 8),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 5),
)
def test_ranks_serve_each_sample_once(count: int, world: int, seed: int, epoch: int) -> None:
    """Over all ranks every sample comes exactly once; padded, every rank has as many."""
    numbers, lengths = [], set()
    for rank in range(world):
        exact = dataset(count, seed).sampler(rank=rank, world_size=world, uneven="exact")
        exact.set_epoch(epoch)
        taken = list(exact)
        assert len(taken) == len(exact)
        assert {e for e, _ in taken} <= {epoch}
        numbers += [number for _, number in taken]
        lengths.add(len(dataset(count, seed).sampler(rank=rank, world_size=world)))

    assert sorted(numbers) == list(range(count))
    assert len(lengths) == 1


@PATIENT
@given(
    count=st.integers(1, 30),
    worlds=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    steps=st.integers(0, 30),
)
def test_what_was_served_and_what_is_left_make_the_epoch(
    count: int, worlds: tuple[int, int], steps: int
) -> None:
    """Stopping after any step, on any number of ranks, and going on with any other, loses none."""
    before, after = worlds
    steps = min(steps, count // before)
    samplers = [
        dataset(count, 3).sampler(rank=r, world_size=before, uneven="exact") for r in range(before)
    ]
    served = [number for s in samplers for _, number in list(s)[:steps]]
    state = samplers[0].state_dict(served=steps)
    rest = []
    for rank in range(after):
        sampler = dataset(count, 3).sampler(rank=rank, world_size=after, uneven="exact")
        sampler.load_state_dict(state)
        rest += [number for _, number in sampler] if state["epoch"] == 0 else []

    assert sorted(served + rest) == list(range(count))


@PATIENT
@given(
    count=st.integers(1, 40),
    worlds=st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6)),
    steps=st.tuples(st.integers(0, 12), st.integers(0, 12)),
)
def test_padded_ranks_stay_in_step_across_resumes(
    count: int, worlds: tuple[int, int, int], steps: tuple[int, int]
) -> None:
    """Through two changes of world size, all ranks always have as many samples, and none is lost."""
    state, seen = dataset(count, 3).sampler().state_dict(), set[int]()
    for world, taken in zip(worlds, (*steps, count), strict=True):
        ranks = [dataset(count, 3).sampler(rank=rank, world_size=world) for rank in range(world)]
        for sampler in ranks:
            sampler.load_state_dict(state)
        parts = [[number for _, number in sampler] for sampler in ranks]
        assert {len(part) for part in parts} == {ranks[0].remaining}
        assert sum(map(len, parts)) - ranks[0].padded == count - state["offset"]
        seen |= {number for part in parts for number in part[:taken]}
        states = [s.state_dict(served=min(taken, s.remaining)) for s in ranks]
        assert all(other == states[0] for other in states)
        state = states[0]
        if state["epoch"] == 1:
            break

    assert state["epoch"] == 1
    assert seen == set(range(count))


@PATIENT
@given(count=st.integers(1, 40), world=st.integers(1, 6), steps=st.integers(0, 12))
def test_resuming_on_as_many_ranks_gives_the_same_remainder(
    count: int, world: int, steps: int
) -> None:
    """With the same world size, the rest of a rank is what it would have been, padding included."""
    for rank in range(world):
        whole = dataset(count, 3).sampler(rank=rank, world_size=world)
        resumed = dataset(count, 3).sampler(rank=rank, world_size=world)
        state = whole.state_dict(served=steps)
        resumed.load_state_dict(state)
        if state["epoch"] == 0:
            assert list(resumed) == list(whole)[steps:]


@PATIENT
@given(weights=st.lists(st.integers(0, 9), min_size=1, max_size=12), count=st.integers(0, 50))
def test_shares_are_met_to_within_one(weights: list[int], count: int) -> None:
    """Systematic drawing takes each item its share of the count, rounded up or down."""
    weights[0] += 1
    shares = np.array(weights) / sum(weights)

    drawn = np.bincount(DrawPlan(shares, count, 0).items(0), minlength=len(shares))

    assert drawn.sum() == count
    assert np.abs(drawn - shares * count).max(initial=0) < 1 + 1e-9


@PATIENT
@given(size=triples, shape=triples, first=st.tuples(*[st.integers(-99, 99)] * 3))
def test_boxes_lie_inside_or_around_the_volume(
    size: tuple[int, int, int], shape: tuple[int, int, int], first: tuple[int, int, int]
) -> None:
    """Along each axis a box lies in the volume, or the volume lies in the middle of the box."""
    box = fitted_box(first, size, shape)

    assert box.shape == size
    for asked, start, stop, whole in zip(first, box.start, box.stop, shape, strict=True):
        if stop - start > whole:
            assert abs(-start - (stop - whole)) <= 1
        else:
            assert 0 <= start <= stop <= whole
            assert start == asked or start in {0, whole - (stop - start)}


@PATIENT
@given(key=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4), count=st.integers(0, 99))
def test_numbers_are_functions_of_their_key(key: list[int], count: int) -> None:
    """The same key gives the same numbers; they lie in [0, 1); permutations are permutations."""
    numbers = uniforms(count, *key)

    assert ((numbers >= 0) & (numbers < 1)).all()
    assert (numbers == uniforms(count, *key)).all()
    assert sorted(permutation(count, *key)) == list(range(count))
