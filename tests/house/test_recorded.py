"""What must not change while the inside is rebuilt: held against a record of commands, bytes and errors.

The record lies in ``recorded/``, a file for each section; ``python -m tests.house.record`` writes it
anew, and ``python -m tests.house.record --whole FOLDER`` writes it unabridged, to compare two commits
in full. It was taken through the names of ``import verse_data as vd`` and the command line alone.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.house.brief import differences
from tests.house.record import RECORDED, SECTIONS, made_with, shortened, take

_SHOWN = 40
_PACKED = "phantom as written, packed"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Everything, taken once."""
    taken = take(tmp_path_factory.mktemp("record"))
    return {name: json.loads(json.dumps(shortened(taken[name]))) for name in SECTIONS}


def recorded(name: str) -> dict[str, Any]:
    """Return one file of the record."""
    return json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("section", SECTIONS)
def test_it_is_as_recorded(found: dict[str, dict[str, Any]], section: str) -> None:
    """Every entry of a section is what it was when the record was taken."""
    expected, got = recorded(section), found[section]
    if section == "releases" and expected[_PACKED]["zlib"] != got[_PACKED]["zlib"]:
        del expected[_PACKED], got[_PACKED]  # this zlib compresses otherwise

    lines = list(differences(expected, got))

    assert not lines, _told(section, lines)


def test_the_record_holds_these_sections_and_no_others() -> None:
    """Each section has a file, and each file a section."""
    names = {path.stem for path in RECORDED.glob("*.json")}
    assert names == {*SECTIONS, "made_with"}


def test_control_differences_are_found_and_named() -> None:
    """A changed, a missing and a new entry are each told with their place and both values."""
    expected = {"a": {"b": [1, 2]}, "gone": 1, "same": "x"}
    lines = list(differences(expected, {"a": {"b": [1, 2.0]}, "new": True, "same": "x"}))

    assert lines == [
        "a → b[1]\n    expected 2\n    got      2.0",
        "gone\n    expected 1\n    got      nothing",
        "new\n    expected nothing\n    got      true",
    ]


def _told(section: str, lines: list[str]) -> str:
    """Return the differences as a text, with the packages that may be their reason."""
    then, now = recorded("made_with"), made_with()
    others = [f"{name} {then[name]} → {now[name]}" for name in then if then[name] != now[name]]
    more = [f"… and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    why = [f"Recorded with other packages: {', '.join(others)}"] if others else []
    return "\n".join([f"{len(lines)} differences in {section}:", *lines[:_SHOWN], *more, *why])
