"""What the command says before it does anything: help, completion, and refusals that name the right word."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from tests.support.command import verse_data as in_this_process
from verse_data.api import lock_tree
from verse_data.cli.common import EXIT_CODES, GROUPS
from verse_data.cli.main import app
from verse_data.errors import VerseDataError
from verse_data.phantom import write as write_phantom

PROGRAM = Path(sys.executable).parent / "verse-data"
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache root with a small phantom."""
    folder = tmp_path_factory.mktemp("lab")
    tree = write_phantom(folder / "tree", n_subjects=4, shape=(32, 64, 24))
    lock_tree("phantom", tree, root=folder)
    return folder


def verse_data(
    *words: str, root: Path | None = None, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run the command with these variables beside those of the test."""
    return in_this_process(*words, **settings, **({"VERSE_DATA_HOME": str(root)} if root else {}))


def program(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Do the same with the installed program."""
    environment = {**os.environ, **settings}
    return subprocess.run(
        [str(PROGRAM), *words], capture_output=True, text=True, check=False, env=environment
    )


def commands() -> list[list[str]]:
    """Return the words of every command that is shown, those of groups too."""
    found: list[list[str]] = []
    for name, command in get_command(app).commands.items():
        below = getattr(command, "commands", None)
        found += [[name, verb] for verb in below] if below else [[name]]
    return found


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("--help", {"COLUMNS": "100"}),
        ("cache build -h", {"COLUMNS": "40"}),
        ("gett phantom", {}),
        ("", {"_VERSE_DATA_COMPLETE": "complete_bash", "COMP_WORDS": "verse-data ge", "COMP_CWORD": "1"}),
        ("", {"_VERSE_DATA_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "verse-data ge"}),
    ],
)  # fmt: skip
def test_the_installed_program_says_the_same(words: str, settings: dict[str, str]) -> None:
    """Help, refusals and completion, which the tests below hear from the entry point in this process."""
    there, here = program(*words.split(), **settings), verse_data(*words.split(), **settings)

    assert (there.returncode, there.stdout, there.stderr) == (
        here.returncode,
        here.stdout,
        here.stderr,
    )
    assert there.stdout + there.stderr != ""


def test_help_lists_every_command_in_one_group_with_a_whole_sentence() -> None:
    """No command is left over or cut, and the exit codes stand below."""
    shown = get_command(app).commands
    grouped = [name for names in GROUPS.values() for name in names]
    done = verse_data("--help", COLUMNS="100")

    assert set(shown) <= set(grouped)
    assert len(grouped) == len(set(grouped))
    assert "\nOther:" not in done.stdout
    assert "..." not in done.stdout.replace("[ARGS]...", "")
    for code, text in EXIT_CODES.items():
        assert f"  {code:<5}{text}" in done.stdout


def test_every_error_has_an_exit_code_that_help_explains() -> None:
    """The table is that of the error tree."""

    def codes(kind: type[VerseDataError]) -> set[int]:
        return {kind.exit_code}.union(*map(codes, kind.__subclasses__()))

    assert codes(VerseDataError) <= set(EXIT_CODES)


def test_the_page_about_the_command_line_names_what_help_names() -> None:
    """Groups, their commands and exit codes are those of ``verse-data --help``."""
    text = (DOCS / "cli.md").read_text()
    rows = dict(re.findall(r"^\| ([^|`]+) \| (.+) \|$", text, flags=re.MULTILINE))
    shown = get_command(app).commands

    for title, names in GROUPS.items():
        named = re.findall(r"`([a-z]+)`", rows[title])
        assert named == [name for name in names if name in shown]
    for code, meaning in EXIT_CODES.items():
        assert rows[str(code)] == meaning


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_of_a_command_wraps_in_a_narrow_terminal(words: list[str]) -> None:
    """At 40 columns no line is longer, no option is cut, and no type is left unsaid."""
    done = verse_data(*words, "-h", COLUMNS="40")

    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 40
    assert "…" not in done.stdout
    assert "any>" not in done.stdout.lower()
    assert done.stdout == verse_data(*words, "--help", COLUMNS="40").stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("ge", "get"),
        ("get ph", "phantom"),
        ("get phantom --scan verse902", "verse902_split-verse951 verse902_split-verse952"),
        ("get phantom --scan verse901,verse903", "verse901,verse903"),
        ("get phantom --subject verse90", "verse901 verse902 verse903 verse904"),
        ("get phantom --split t", "test training"),
        ("get phantom --role ct,ce", "ct,centroids"),
        ("get phantom --version v", "v1"),
        ("get nowhere --scan v", ""),
        ("query phantom --columns level,gr", "level,grade level,grade_status"),
        ("query phantom --table scans --columns n_gr", "n_graded"),
        ("table phantom scans --where n_gr", "n_graded"),
        ("verify phantom --level c", "content"),
        ("folds phantom --stratify reg", "region"),
    ],
)
def test_a_shell_completes_names(root: Path, typed: str, offered: str) -> None:
    """Through the protocols of Typer for bash and zsh; where nothing is known, nothing is offered."""
    line = f"verse-data {typed}"
    bash = verse_data(
        root=root,
        _VERSE_DATA_COMPLETE="complete_bash",
        COMP_WORDS=line,
        COMP_CWORD=str(len(line.split()) - 1),
    )
    zsh = verse_data(root=root, _VERSE_DATA_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=line)

    assert (bash.stdout.split(), bash.stderr) == (offered.split(), "")
    assert all(f'"{word}"' in zsh.stdout for word in offered.split())


def test_bash_completes_levels_within_a_condition(root: Path) -> None:
    """The script that --install-completion writes works in a real shell, within quotes too."""
    script = """
        eval "$(_VERSE_DATA_COMPLETE=source_bash verse-data)"
        COMP_WORDS=(verse-data query phantom "\\"level >= 'L"); COMP_CWORD=3
        _verse_data_completion verse-data
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "VERSE_DATA_HOME": str(root), "PATH": path}
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, env=environment
    )

    assert done.stdout.splitlines() == [f"level >= 'L{number}'" for number in range(1, 7)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("gett phantom", "Did you mean 'get'?"),
        ("status phantm", "Did you mean 'phantom'?"),
        ("get vers19", "Did you mean 'verse19'?"),
        ("lock vers19", "Did you mean 'verse19'?"),
        ("folds phantom --split val", "Did you mean 'validation'?"),
        ("get phantom --scan 901", "Did you mean 'verse901'?"),
        ("preview phantom verse902", "'verse902_split-verse951' or 'verse902_split-verse952'?"),
        ("provenance phantom 901", "Did you mean 'verse901'?"),
        ("get phantom --subject 901", "Did you mean 'verse901'?"),
        ("verify phantom --level hsh", "Did you mean 'hash'?"),
        ("cache build phantom --codec lz5", "Did you mean 'lz4'?"),
        ("cache build phantom --workers 0", "0: give a whole number, 1 or more."),
        ("folds phantom --k x", "x: give a whole number, 2 or more."),
        ("folds phantom --stratify grades", "Did you mean 'grade'?"),
        ("table phantom vertebra", "Did you mean 'vertebrae'?"),
        ("table phantom --out t.xlsx", "a table is written as .parquet or .csv"),
        ("query phantom n_graded>1", "The table of scans has it"),
        ("query phantom grade>1 --table subjects", "--table vertebrae"),
        ("query phantom --columns levl", "Did you mean 'level'?"),
        ("query grade>1", "Its name comes first: verse-data query RELEASE 'grade>1'"),
        ("schemas show vertebre", "Did you mean 'vertebra'?"),
    ],
)
def test_a_wrong_word_is_refused_before_anything_is_done(root: Path, words: str, said: str) -> None:
    """Exit code 2, nothing on stdout, and what was meant, in words that are not Pydantic's."""
    done = verse_data(*words.split(), root=root)

    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert not re.search(r"Input should|Value error|validation error|pydantic", done.stderr)


def test_one_spacing_stands_for_all_axes(root: Path) -> None:
    """On the command line and in Python; scans can be chosen."""
    import verse_data as vd

    done = verse_data(
        *["cache", "build", "phantom", "--scan", "verse901", "--spacing", "4", "--json"], root=root
    )
    [store] = json.loads(done.stdout).values()
    [served] = vd.open_release("phantom", root=root).contribution(["verse901"], spacing=4).scans

    assert str(served.store) == store


def test_query_without_a_condition_gives_all_rows(root: Path, tmp_path: Path) -> None:
    """In each form: printed, as JSON, as CSV, and in a file."""
    out = tmp_path / "rows.csv"
    printed = verse_data("query", "phantom", root=root).stdout.splitlines()
    as_json = verse_data("query", "phantom", "--json", root=root).stdout
    as_csv = verse_data("query", "phantom", "--csv", root=root).stdout
    verse_data("query", "phantom", "--out", str(out), root=root)
    table = verse_data("table", "phantom", "--json", root=root).stdout

    assert len(printed) - 1 == len(json.loads(as_json)) == len(as_csv.splitlines()) - 1 > 20
    assert out.read_text() == as_csv
    assert table == as_json


def test_numbers_are_printed_as_they_are_meant(root: Path) -> None:
    """Arithmetic leaves -1.6000000000000014, where -1.6 is meant."""
    for form in ("--json", "--csv"):
        text = verse_data("query", "phantom", form, root=root).stdout

        assert re.search(r"-?[0-9]+\.[0-9]", text)
        assert not re.search(r"\.[0-9]{7}|e-", text)


@pytest.mark.parametrize("words", ["query phantom", "status phantom", "releases"])
def test_a_narrow_terminal_cuts_no_name(root: Path, words: str) -> None:
    """Lines that do not fit are left to the terminal to wrap."""
    import pty

    master, slave = pty.openpty()
    environment = {**os.environ, "VERSE_DATA_HOME": str(root), "COLUMNS": "40", "NO_COLOR": "1"}
    with subprocess.Popen(
        [str(PROGRAM), *words.split()], stdout=slave, stderr=subprocess.PIPE, env=environment
    ) as process:
        os.close(slave)
        shown = b""
        try:
            while piece := os.read(master, 4096):
                shown += piece
        except OSError:  # the command has ended
            pass
    os.close(master)
    text = shown.decode()

    assert process.returncode == 0
    assert "…" not in text
    for name in {"query": ["verse902_split-verse952"], "status": ["centroids"]}.get(
        words.split(maxsplit=1)[0], ["phantom", "verse19"]
    ):
        assert name in text
