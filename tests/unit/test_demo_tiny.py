"""The small network of the demo: shapes, reproducibility, loss and overlap."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from verse_data.training import tiny


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Let torch use one thread: tests run side by side, and threads that wait for one another crawl."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Cubes(torch.utils.data.Dataset):
    """A bright cube on dark ground; number n lies n voxels off the corner."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index >= len(self):
            raise IndexError(index)
        label = torch.zeros(1, 16, 16, 16, dtype=torch.uint8)
        label[:, 2 + index : 10 + index, 4:12, 4:12] = 20
        return {"image": torch.where(label > 0, 500.0, -50.0), "label": label}


def test_output_has_the_shape_of_the_input():
    """Logits come at the resolution of the image, of odd sizes too."""
    network = tiny.TinyUNet(classes=3)
    assert network(torch.zeros(2, 1, 15, 16, 17)).shape == (2, 3, 15, 16, 17)


def test_training_is_reproducible_and_leaves_torchs_generator_alone():
    """Two runs of one seed have equal losses, and torch's own generator is not moved."""
    state = torch.random.get_rng_state()
    first, second, other = (tiny.train(Cubes(), steps=6, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert first.losses == second.losses
    assert first.losses != other.losses


def test_training_lowers_the_loss_and_raises_the_overlap():
    """A few dozen steps are enough for a cube."""
    told: list[tuple[int, float]] = []
    run = tiny.train(Cubes(), steps=30, report=lambda step, loss: told.append((step, loss)))
    assert [step for step, _ in told] == list(range(1, 31))
    assert tuple(loss for _, loss in told) == run.losses
    assert sum(run.losses[25:]) < 0.8 * sum(run.losses[:5])
    assert tiny.dice(run.network, Cubes(), count=4) > tiny.dice(tiny.untrained(), Cubes(), count=4)


def test_loss_and_dice_of_a_perfect_and_a_wrong_answer():
    """A perfect answer has loss 0, an inverted one a high loss; no bone at all has Dice 0."""
    truth = torch.zeros(1, 4, 4, 4, dtype=torch.bool)
    truth[:, :2] = True
    right = torch.stack([~truth, truth], dim=1) * 40.0
    assert tiny.segmentation_loss(right, truth).item() == pytest.approx(0, abs=1e-3)
    assert tiny.segmentation_loss(-right, truth).item() > 10
