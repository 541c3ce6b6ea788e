"""Levels, labels and their order."""

from __future__ import annotations

import pytest

from verse_data.errors import UsageError
from verse_data.spine import levels


def test_t13_lies_between_t12_and_l1_although_its_label_is_28() -> None:
    """Spine order is not label order: T13 comes after T12 and before L1."""
    assert levels.position("T12") < levels.position("T13") < levels.position("L1")
    assert levels.LABEL_OF_LEVEL["T13"] == 28


def test_labels_follow_the_published_map() -> None:
    """C1 is 1, C7 7, T1 8, T12 19, L1 20, L6 25; 26 and 27 name nothing."""
    published = {"C1": 1, "C7": 7, "T1": 8, "T12": 19, "L1": 20, "L6": 25}

    assert {level: levels.LABEL_OF_LEVEL[level] for level in published} == published
    assert not {26, 27} & set(levels.LEVEL_OF_LABEL)
    assert len(levels.LEVEL_OF_LABEL) == len(levels.LEVELS) == 26


def test_regions_cover_the_spine() -> None:
    """There are 7 cervical, 13 thoracic and 6 lumbar levels."""
    regions = [levels.region(level) for level in levels.LEVELS]

    assert [regions.count(r) for r in ("cervical", "thoracic", "lumbar")] == [7, 13, 6]


def test_an_unknown_level_is_named() -> None:
    """A level that does not exist is refused by its name."""
    with pytest.raises(UsageError, match="'T14'"):
        levels.position("T14")
