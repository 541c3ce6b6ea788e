"""What `mass.py` counts, on a package small enough to count by hand."""

from __future__ import annotations

from pathlib import Path

import mass
import pytest

# Public classes and functions with their documentation, which is more than half of these files.
LONG_FOR_A_REASON = {"api.py", "release.py"}

FILES = {
    "__init__.py": '"""Front."""\n',
    "low/plan.py": (
        '"""Plan."""\n'
        "from pkg.high import plan as other  # why\n"
        "def add(a, b):\n"
        '    """Add.\n\n    Raises\n    ------\n    None\n    """\n'
        '    text = f"{a} and {b!r:>{b}}"\n'
        "    return text\n"
    ),
    "high/plan.py": (
        "def late():\n"
        "    # back down\n"
        "    import pkg.low.plan\n"
        "if TYPE_CHECKING:\n"
        "    from pkg.high.rest import x\n"
    ),
    "high/rest.py": f'x = "{"y" * 121}"\n',
}


@pytest.fixture
def counted(tmp_path: Path) -> list[mass.Module]:
    """Return the modules of a package of four files."""
    for name, text in FILES.items():
        path = tmp_path / "pkg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [
        mass.module(path, tmp_path / "pkg") for path in sorted((tmp_path / "pkg").rglob("*.py"))
    ]


def test_sums_are_those_counted_by_hand(counted: list[mass.Module]) -> None:
    """Docstrings are statements and tokens unless bare; an f-string is one token."""
    found = mass.figures(counted)

    assert (found["modules"], found["lines"]) == (4, 18)
    assert (found["statements"], found["statements, bare"]) == (12, 9)
    assert found["tokens, bare"] == found["tokens"] - 3
    assert [each.tokens for each in counted] == [1, 22, 3, 23]
    assert (found["lines of code"], found["comments"]) == (9, 2)
    assert (found["functions"], found["function length, median"]) == (2, 3)
    assert found["docstrings with sections"] == 1
    assert found["lines over 120 characters"] == 1
    assert (found["late imports"], found["typing imports"]) == (1, 1)


def test_a_circle_behind_a_function_is_seen(counted: list[mass.Module]) -> None:
    """Two modules that need one another are a circle, even where one import is late."""
    assert mass.circles(counted, {"top", "late", "typing"}) == [["pkg.high.plan", "pkg.low.plan"]]
    assert mass.circles(counted, {"top", "typing"}) == []


def test_base_names_of_two_modules_are_listed(counted: list[mass.Module]) -> None:
    """A base name that two folders use is given with both paths."""
    assert mass.shared_names(counted) == {"plan": ["high/plan.py", "low/plan.py"]}


def test_the_package_is_counted_whole() -> None:
    """Folders add up to the whole, and the command prints a figure for each."""
    counted = mass.measure(mass.ROOT)

    for name in ("modules", "lines", "statements", "tokens", "comments"):
        assert counted["all"][name] == sum(each[name] for each in counted["folders"].values()) > 0
    assert mass.report(counted, None).startswith("all ")
    assert "change" in mass.report(counted, counted)


def test_the_package_keeps_its_shape() -> None:
    """No circle of imports of any kind, no base name twice, and nothing that grows without end."""
    found = mass.measure(mass.ROOT)

    assert found["circles"] == []
    assert found["shared names"] == {}
    assert found["long functions"] == {}
    assert set(found["long modules"]) <= LONG_FOR_A_REASON
    assert found["all"]["lines over 120 characters"] == 0
    assert found["all"]["function length, p90"] <= 25
    assert found["all"]["comments"] >= 258
