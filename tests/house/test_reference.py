"""The generated reference holds what the code knows, and the written page of findings every rule."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from verse_data import phantom
from verse_data.api import lock_tree
from verse_data.cli.main import app
from verse_data.tables import assemble, findings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "findings.md").read_text()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pages of the reference by name."""
    spec = importlib.util.spec_from_file_location("pages", ROOT / "docs" / "reference_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("reference")
    module.write_reference(folder)
    return {path.stem: path.read_text() for path in folder.iterdir()}


def test_every_command_has_all_its_options(pages: dict[str, str]) -> None:
    """Each command, also of a group, is a heading, and each of its options stands below it."""
    program = typer.main.get_command(app)
    commands = dict(program.commands)
    for name, group in program.commands.items():
        commands |= {f"{name} {n}": one for n, one in getattr(group, "commands", {}).items()}
    for name, command in commands.items():
        heading = rf"^#+ verse-data {name}$(.*?)(?=^#|\Z)"
        (below,) = re.findall(heading, pages["cli"], re.MULTILINE | re.DOTALL)
        options = [o for p in command.params if not p.hidden for o in p.opts if o[:2] == "--"]
        missing = [o for o in options if o != "--help" and f"`{o}" not in below]
        assert not missing, name


def test_every_public_name_has_its_place(pages: dict[str, str]) -> None:
    """Each class, function and constant of the list of public names is on one page of the API."""
    names = [
        line
        for line in (ROOT / "tests/house/public_names.txt").read_text().splitlines()
        if re.fullmatch(r"verse_data(\.[a-z_]+)*\.\w+", line) and not line.endswith("__version__")
    ]
    api = "\n".join(text for name, text in pages.items() if name.startswith("api-"))
    listed = re.findall(r"^\.\. auto\w+:: (\S+)$", api, re.MULTILINE)
    modules = {name for name in names if any(other.startswith(f"{name}.") for other in names)}
    assert set(names) - set(listed) - modules - {"verse_data.config"} == set()
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("environment", ["`VERSE_DATA_HOME`", "`VERSE_DATA_PROGRESS`", "`VERSE_DATA_OSF_TOKEN`"]),
        ("exit-codes", ["## 130", "verse_data.errors.ChunkCorrupt`"]),
        ("columns", ["`grade_status`", "`bmd_mg_cm3`", "`fracture.any`"]),
        ("schemas", ["## release_lock", "## vertebra"]),
    ],
)
def test_what_code_knows_is_on_its_page(pages: dict[str, str], page: str, expected: str) -> None:
    """Variables, exit codes, columns and schemas are told by the code that has them."""
    assert [text for text in expected if text not in pages[page]] == []


def _rules_of_the_code() -> Iterator[str]:
    """Yield the name of each rule: in what is yielded, and in what makes a finding."""
    for module in (findings, assemble):
        for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
            named = []
            if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
                named = node.value.elts[:1]
            elif isinstance(node, ast.Call):
                named = [one.value for one in node.keywords if one.arg == "rule"]
                named += node.args[1:2] if getattr(node.func, "id", "") == "_of" else []
            yield from (one.value for one in named if isinstance(one, ast.Constant))


def test_every_rule_is_explained() -> None:
    """Each rule by which something is listed stands in docs/findings.md; so add a new one there."""
    rules = set(_rules_of_the_code())
    assert len(rules) > 30
    assert [rule for rule in sorted(rules) if f"`{rule}`" not in PAGE] == []


def test_the_page_says_how_grave_a_finding_is(tmp_path: Path) -> None:
    """A rule that gives notes is marked so, and no other."""
    found = lock_tree("phantom", phantom.write(tmp_path / "tree", shape=(48, 96, 36))).findings
    for rule, severity in set(zip(found["rule"], found["severity"], strict=True)):
        row = re.search(rf"^\| [^|]*`{rule}`( \(note\))?", PAGE, re.MULTILINE)
        assert bool(row[1]) == (severity == "note"), rule
