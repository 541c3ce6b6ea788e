"""Order, ranks, resuming and balance: pure functions, so they are tested without reading a voxel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch.utils.data import DistributedSampler, RandomSampler, Sampler

from tests.support import training as support
from verse_data.errors import UsageError
from verse_data.training import BalancedSampler, PatchDataset, ServedScan, VertebraDataset


def dataset(count: int, *, seed: int = 0) -> PatchDataset:
    """Return a dataset of `count` patches of a store that is never opened."""
    scan = ServedScan("verse900", "verse900", "training", Path("/nowhere/ab"))
    return PatchDataset([scan], label=False, patches_per_epoch=count, seed=seed)


def skewed() -> pd.DataFrame:
    """Return a table where one subject has most vertebrae and all severe fractures but one."""
    rows = [("verse900", level, 3 if n < 6 else 0) for n, level in enumerate(["T12", "L1"] * 30)]
    rows += [(f"verse9{n:02}", "L1", 0) for n in range(1, 10)]
    rows += [("verse901", "T12", 3), ("verse902", "T12", 1), ("verse903", "L2", 2)]
    specs = [support.Spec(scan, levels=(level,), grades={level: g}) for scan, level, g in rows]
    return support.table(specs)


def graded(table: pd.DataFrame, seed: int = 0) -> VertebraDataset:
    ids = table["scan_id"].unique()
    scans = [ServedScan(scan, scan, "training", Path("/nowhere") / scan) for scan in ids]
    return VertebraDataset(scans, table, label_mode="none", seed=seed)


def test_an_epoch_is_a_permutation_of_its_own() -> None:
    """Each epoch has every sample once, in an order that depends on seed and epoch alone."""
    sampler = dataset(50).sampler()

    orders = [sampler.order(epoch).tolist() for epoch in range(3)]

    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert dataset(50).sampler().order(1).tolist() == orders[1]
    assert dataset(50, seed=1).sampler().order(1).tolist() != orders[1]
    assert dataset(5).sampler(shuffle=False).order(7).tolist() == [0, 1, 2, 3, 4]


def test_the_order_is_the_same_on_every_machine() -> None:
    """The order of a known seed is known: a change of it would break every resumed run."""
    assert dataset(8, seed=7).sampler().order(3).tolist() == [3, 2, 4, 6, 5, 7, 1, 0]


def test_padding_is_said() -> None:
    """With 4 ranks and 10 samples, 2 are repeated, every rank has 3, and repr says so."""
    samplers = [dataset(10).sampler(rank=rank, world_size=4) for rank in range(4)]

    numbers = [number for sampler in samplers for _, number in sampler]

    assert [len(s) for s in samplers] == [3, 3, 3, 3]
    assert sorted(set(numbers)) == list(range(10))
    assert len(numbers) == 12
    assert samplers[0].padded == 2
    assert "2 padded over all ranks" in repr(samplers[0])


@pytest.mark.parametrize(
    ("rank", "world"), [(0, None), (None, 2), (2, 2), (-1, 2), (0.5, 2), (0, "2")]
)
def test_ranks_without_sense_are_refused(rank: int | None, world: int | None) -> None:
    """Rank and world size come together, and the rank lies in the world."""
    with pytest.raises(UsageError, match="give both"):
        dataset(10).sampler(rank=rank, world_size=world)


def test_a_state_is_json_and_goes_on_with_other_ranks() -> None:
    """A run of 2 ranks that stopped after 3 steps each goes on as one of 3 ranks."""
    order = dataset(20).sampler().order(0).tolist()
    first = dataset(20).sampler(rank=0, world_size=2, uneven="exact")
    state = json.loads(json.dumps(first.state_dict(served=3)))

    rest = []
    for rank in range(3):
        sampler = dataset(20).sampler(rank=rank, world_size=3, uneven="exact")
        sampler.load_state_dict(state)
        rest += [number for _, number in sampler]

    assert sorted(rest) == sorted(order[6:])


def test_a_state_of_another_run_is_refused() -> None:
    """A state is bound to the seed and to what the dataset serves."""
    state = dataset(20).sampler().state_dict()

    with pytest.raises(UsageError, match="run with seed 0"):
        dataset(20, seed=1).sampler().load_state_dict(state)
    with pytest.raises(UsageError, match="run with dataset"):
        dataset(21).sampler().load_state_dict(state)


def test_numbers_of_numpy_make_a_state_of_plain_json() -> None:
    """Epoch, rank, world size and count may be NumPy's; the state is JSON all the same."""
    sampler = dataset(20).sampler(rank=np.int64(1), world_size=np.int64(2))
    sampler.set_epoch(np.int64(3))

    state = json.loads(json.dumps(sampler.state_dict(served=np.int64(4))))

    assert (state["epoch"], state["offset"]) == (3, 8)


@pytest.mark.parametrize("sampler", [RandomSampler, DistributedSampler])
def test_a_sampler_of_torch_is_refused(sampler: type[Sampler[int]]) -> None:
    """A sampler that cannot stop and go on is an error that names what can."""
    options = {"num_replicas": 2, "rank": 0} if sampler is DistributedSampler else {}
    patches = dataset(20)

    with pytest.raises(UsageError, match=r"dataset\.sampler(.|\n)*use_distributed_sampler=False"):
        patches.loader(sampler=sampler(patches, **options))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"offset": 10**6}, "offset"),
        ({"offset": 20}, "offset"),
        ({"offset": -3}, "offset"),
        ({"offset": 1.7}, "offset"),
        ({"offset": True}, "offset"),
        ({"offset": "3"}, "offset"),
        ({"epoch": -1}, "epoch"),
        ({"epoch": 0.5}, "epoch"),
        ({"epoch": 2**63}, "epoch"),
        ({"more": 1}, "not the state of a run"),
    ],
)
def test_a_state_that_cannot_be_is_refused(change: dict[str, Any], text: str) -> None:
    """Offset and epoch must be whole numbers that this epoch has; what is refused changes nothing."""
    sampler = dataset(20).sampler()
    sampler.set_epoch(4)

    with pytest.raises(UsageError, match=text):
        sampler.load_state_dict({**sampler.state_dict(served=2), **change})

    assert (sampler.epoch, sampler.dataset.epoch, sampler.remaining) == (4, 4, 20)


@pytest.mark.parametrize("state", [{}, {"epoch": 0}, None, "state", [1]])
def test_what_is_no_state_is_refused(state: Any) -> None:
    """Whatever state_dict did not give is a UsageError."""
    with pytest.raises(UsageError, match="not the state of a run"):
        dataset(20).sampler().load_state_dict(state)


def test_a_state_of_another_sampler_is_refused() -> None:
    """A state is bound to class and options of its sampler: their orders differ."""
    fx = graded(skewed())
    samplers = {
        "shuffled": fx.sampler(),
        "in order": fx.sampler(shuffle=False),
        "balanced": BalancedSampler(fx),
        "fewer": BalancedSampler(fx, count=50),
        "weighted": BalancedSampler(fx, grade_weights={0: 1, 3: 2}),
        "limited": BalancedSampler(fx, max_subject_share=0.5),
        "balanced, in order": BalancedSampler(fx, shuffle=False),
    }

    for one, giver in samplers.items():
        for other, taker in samplers.items():
            if one == other:
                taker.load_state_dict(json.loads(json.dumps(giver.state_dict(served=5))))
                assert taker.state_dict()["offset"] == 5
            else:
                with pytest.raises(UsageError, match="run with sampler"):
                    taker.load_state_dict(giver.state_dict(served=5))


def test_a_balanced_order_without_shuffling_is_the_datasets() -> None:
    """shuffle=False draws the same vertebrae, in the order of the dataset."""
    fx = graded(skewed())
    plain, shuffled = BalancedSampler(fx, shuffle=False), BalancedSampler(fx)

    assert plain.order(2).tolist() == sorted(shuffled.order(2).tolist())


@pytest.mark.parametrize("uneven", ["pad", "exact"])
def test_ranks_say_the_same_after_the_same_steps(uneven: str) -> None:
    """58 samples over 3 ranks: after each common step, all ranks give the same state."""
    samplers = [dataset(58).sampler(rank=r, world_size=3, uneven=uneven) for r in range(3)]

    for served in range(20):
        states = [sampler.state_dict(served=served) for sampler in samplers]
        assert states == [states[0]] * 3
        assert (states[0]["epoch"], states[0]["offset"]) == (0, 3 * served)
    assert samplers[0].state_dict(served=20)["epoch"] == 1


def test_a_rank_without_samples_is_not_done_before_it_began() -> None:
    """A rank that gets nothing of an epoch stays in it until the epoch is over."""
    sampler = dataset(1).sampler(rank=2, world_size=3, uneven="exact")

    assert sampler.remaining == 0
    assert sampler.state_dict()["epoch"] == 0


def test_a_resumed_run_on_more_ranks_stays_in_step() -> None:
    """56 samples, one step on 2 ranks, then 3 ranks: each takes as many as the others."""
    state = dataset(56).sampler(rank=0, world_size=2).state_dict(served=1)
    order = dataset(56).sampler().order(0).tolist()

    parts = []
    for rank in range(3):
        sampler = dataset(56).sampler(rank=rank, world_size=3)
        sampler.load_state_dict(state)
        parts.append([number for _, number in sampler])
        assert len(parts[-1]) == sampler.remaining == 18
        assert sampler.padded == 0

    assert sorted(number for part in parts for number in part) == sorted(order[2:])


def test_a_state_after_the_last_sample_is_the_next_epoch() -> None:
    """Stopping at the end of an epoch goes on at the beginning of the next."""
    state = dataset(20).sampler().state_dict(served=20)

    assert (state["epoch"], state["offset"]) == (1, 0)


def test_balance_meets_the_asked_grades_where_no_limit_stands_in_the_way() -> None:
    """Without a limit, grades have exactly the asked shares, in the epoch that is drawn too."""
    fx = graded(skewed())
    sampler = BalancedSampler(
        fx, grade_weights={0: 1, 1: 1, 2: 1, 3: 1}, max_subject_share=1.0, count=100
    )

    drawn = fx.rows["grade"][sampler.order(0)]

    assert np.allclose(sampler.shares.groupby("grade")["share"].sum(), 0.25, atol=1e-6)
    assert np.abs(np.bincount(drawn) - 25).max() <= 1
    assert len(sampler) == 100
    assert sampler.order(0).tolist() != sampler.order(1).tolist()
    again = BalancedSampler(fx, grade_weights=dict.fromkeys(range(4), 5.0), max_subject_share=1)
    assert again.shares.equals(sampler.shares)
    assert BalancedSampler(
        fx, grade_weights=dict.fromkeys(range(4), 1), max_subject_share=1.0, count=100
    ).order(4).tolist() == (sampler.order(4).tolist())


def test_a_limit_counts_only_the_subjects_that_are_drawn_from() -> None:
    """Where two subjects have the asked grade, a limit below a half cannot be met, and is refused."""
    fx = graded(skewed())

    with pytest.raises(UsageError, match="cannot be met by 2 subjects"):
        BalancedSampler(fx, grade_weights={0: 0, 3: 1}, max_subject_share=0.3)
    shares = BalancedSampler(fx, grade_weights={3: 1}, max_subject_share=0.5).shares

    drawn = shares[shares["share"] > 0].groupby("subject_id")["share"].sum()
    assert set(shares.loc[shares["share"] > 0, "grade"]) == {3}
    assert drawn.to_numpy() == pytest.approx([0.5, 0.5])


def test_the_usual_limit_can_always_be_met() -> None:
    """Without a limit of one's own, a grade that one subject alone has may be drawn alone."""
    sampler = BalancedSampler(graded(skewed()), grade_weights={2: 1})

    assert sampler.shares["share"].sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_subject_share": 0.01}, "cannot be met by 10 subjects"),
        ({"grade_weights": {0: 0}}, "one of them must be more"),
        ({"grade_weights": {-1: 1}}, "names the grade -1"),
        ({"grade_weights": {0: float("inf")}}, "not a finite number"),
        ({"grade_weights": {0: "a"}}, "not a finite number"),
        ({"grade_weights": {0.5: 1}}, "names the grade 0.5"),
        ({"grade_weights": {0: 2, 3: -1}}, "of 0 or more"),
        ({"grade_weights": [1, 2]}, "not a mapping"),
        ({"max_subject_share": float("nan")}, "not a finite number"),
        ({"max_subject_share": "a"}, "not a finite number"),
        ({"count": 2.5}, "not a whole number"),
        ({"count": 0}, "not a whole number"),
    ],
)
def test_balance_that_cannot_be_is_refused(options: dict[str, Any], text: str) -> None:
    """A limit below an even share, or a grade that does not occur, is an error."""
    with pytest.raises(UsageError, match=text):
        BalancedSampler(graded(skewed()), **options)


def test_an_empty_dataset_cannot_be_balanced() -> None:
    """Where nothing is served, the error points to the reasons."""
    with pytest.raises(UsageError, match="excluded"):
        BalancedSampler(graded(skewed()[:0]))
