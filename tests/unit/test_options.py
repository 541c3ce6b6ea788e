"""Options of `load_split` that do not exist are named, with the nearest that does."""

from __future__ import annotations

import inspect
import typing

import pytest

from verse_data import api, training
from verse_data.errors import UsageError
from verse_data.serve import _OF_UNIT, own_fields, split_options
from verse_data.training.base import ServedDataset

UNITS = {
    "scan": training.ScanDataset,
    "patch": training.PatchDataset,
    "vertebra": training.VertebraDataset,
}


def test_a_misspelt_option_is_refused_with_the_nearest() -> None:
    """A misspelt option names the one that was meant, before anything is fetched."""
    with pytest.raises(UsageError, match="Did you mean 'patch_size'"):
        split_options("patch", {"patchsize": (64, 64, 64)})


def test_an_unknown_unit_is_refused() -> None:
    """A unit that does not exist lists those that do."""
    with pytest.raises(UsageError, match="scan, patch, vertebra"):
        split_options("volume", {})


@pytest.mark.parametrize("unit", UNITS)
def test_every_documented_option_is_one_that_the_dataset_takes(unit: str) -> None:
    """The options of a unit are those of its class, and those of fetching and converting."""
    preparing, own = split_options(unit, dict.fromkeys(own_fields(_OF_UNIT[unit])))
    given = {"self", "scans", "vertebrae", "provenance", "left_out", "needs_label", "served"}
    taken = set(inspect.signature(UNITS[unit].__init__).parameters)
    taken |= set(inspect.signature(ServedDataset.__init__).parameters)

    assert set(own) == taken - given
    assert set(preparing) == {"spacing", "interpolation", "codec", "workers", "progress"}


def test_type_checkers_take_what_a_release_is_opened_by_with_every_unit() -> None:
    """Overlays and licences too, which slices lacked; the call itself always took them."""
    for one in typing.get_overloads(api.load_split):
        options = eval(one.__annotations__["options"], vars(api)).__args__[0]
        taken = {*inspect.signature(one).parameters, *options.__annotations__}
        opened = {"release", "version", "where", "overlays", "licence", "root", "offline"}
        assert opened - taken == set(), one.__annotations__["return"]
