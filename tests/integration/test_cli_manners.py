"""The command as a program among others: its streams, its exit codes, and arguments that mean nothing."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import verse_data as vd
from tests.support.command import verse_data
from verse_data.api import lock_tree
from verse_data.errors import UsageError
from verse_data.phantom import write as write_phantom


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache root, whose name has a space, with a small phantom."""
    folder = tmp_path_factory.mktemp("my lab")
    tree = write_phantom(folder / "tree", n_subjects=4, shape=(32, 64, 24))
    lock_tree("phantom", tree, root=folder)
    return folder


def in_a_shell(*words: str, after: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a program in a shell; `after` follows it on the line, such as ``| head -c 1``."""
    return subprocess.run(
        ["bash", "-c", f'"$0" -m verse_data "$@" {after}', sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
    )


def test_whoever_reads_no_further_hears_no_complaint(root: Path) -> None:
    """``| head`` ends the command without a word."""
    done = in_a_shell("table", "phantom", "--root", str(root), after="| head -c 1")

    assert (done.returncode, done.stdout, done.stderr) == (0, "s", "")


def test_a_closed_stdout_is_no_error(root: Path) -> None:
    """A caller may close what it does not want to hear."""
    done = in_a_shell("status", "phantom", "--root", str(root), after=">&-")
    others = in_a_shell("table", "phantom", "--root", str(root), after=">&-")

    assert (done.returncode, done.stderr) == (0, "")
    assert (others.returncode, others.stderr) == (0, "")


def test_what_was_said_before_a_file_failed_is_kept() -> None:
    """Trouble with another file takes nothing away that waits for stdout."""
    script = (
        "import sys; from verse_data.cli import main; sys.stdout.write('s'); main._flush_stdout()"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout == "s"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_under_stdout_is_trouble_of_the_machine(root: Path) -> None:
    """One line that says so, and exit code 6."""
    done = in_a_shell("table", "phantom", "--root", str(root), after="> /dev/full")

    assert done.returncode == 6
    assert done.stderr.startswith("error: standard output")
    assert "The disk is full" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    ["doctor --offline", "summary phantom", "report phantom", "folds phantom --k 2", "get phantom"],
)
def test_json_is_all_that_stands_on_stdout(root: Path, words: str) -> None:
    """``--json`` parses as a whole, also of the verbs that tests/house does not record."""
    done = verse_data(*words.split(), "--root", str(root), "--json")

    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)


def test_an_unforeseen_error_is_told_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with exit code 1, and says that it is to be reported."""

    def fail(**_: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(vd, "list_releases", fail)
    done = verse_data("releases")

    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" in done.stderr
    assert (
        "error: unexpected RuntimeError: unforeseen\nThis is a fault of verse-data" in done.stderr
    )


@pytest.mark.parametrize("words", ["status", "query", "folds --k 2 --json", "releases"])
def test_a_folder_that_was_removed_keeps_nothing_from_being_read(words: str, root: Path) -> None:
    """The caller's own folder is not needed, and no dataset is called damaged for its sake."""
    verb, *more = words.split()
    asked = " ".join([verb, *(["phantom"] if verb != "releases" else []), *more])
    gone = root.parent / "gone"
    gone.mkdir()
    line = f"cd {shlex.quote(str(gone))} && rmdir ../gone && {sys.executable} -m verse_data {asked}"
    done = subprocess.run(
        ["bash", "-c", line],
        env={**os.environ, "VERSE_DATA_HOME": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["status", "phantom", "--root", "~nobody-of-this-name/x"],
        ["status", "phantom", "--root", "x" * 300],
        ["query", "phantom", "--out", "x" * 300 + ".csv"],
        ["lock", "lab", "--from-tree", "x" * 300],
        ["lock", "lab", "--from-lock", "x" * 300],
        ["adopt", "phantom", "x" * 300],
        ["leaks", "x" * 300],
        ["report", "verse19", "--patients", "x" * 300],
        ["query", "phantom", "--out", "pipe.csv"],
        ["folds", "phantom", "--k", "2", "--out", "pipe.csv"],
        ["folds", "phantom", "--k", "2", "--out", "."],
        ["lock", "lab", "--from-tree", "\udcff"],
        ["query", "phantom", "\udcff == 1"],
    ],
)
def test_odd_paths_are_no_fault_of_ours(
    words: list[str], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that cannot be are refused in a line, and what is no plain file is not replaced."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.csv")
    done = verse_data(*words, VERSE_DATA_HOME=str(root))

    assert done.returncode in {2, 3, 6}
    assert "Traceback" not in done.stderr
    assert Path("pipe.csv").is_fifo()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("cache prune --older-than -1", "a number of days, 0 or more"),
        ("cache prune --older-than nan", "a number of days, 0 or more"),
        ("get phantom --role ,", "',' names nothing"),
        ("get phantom --where grad==1", "no column grad"),
    ],
)
def test_arguments_that_mean_nothing_do_nothing(root: Path, words: str, text: str) -> None:
    """Each is a usage error, and none is taken for the default."""
    done = verse_data(*words.split(), "--root", str(root))

    assert done.returncode == 2
    assert text in done.stderr


def test_what_to_type_next_names_the_root(root: Path) -> None:
    """A hint can be pasted, also where the root's path has a space."""
    done = verse_data("preview", "phantom", "verse999", "--root", str(root))

    assert f"verse-data table phantom scans --root '{root}'" in done.stderr


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"spacing": 0.05}, r"spacing=0\.05: give one voxel size"),
        ({"spacing": (1, 1)}, r"spacing=\(1, 1\): give one voxel size"),
        ({"spacing": "1,1,1"}, "such as 1, or three"),
        ({"codec": "gzip"}, "codec='gzip' is none of lz4, zstd, none"),
        ({"workers": 0}, "workers=0"),
        ({"orientation": ("R", "A", "S")}, "give axis codes such as 'RAS'"),
        ({"release": []}, r"release=\[\]: give a name"),
        ({"release": None}, "release=None: give a name"),
        ({"release": ["phantom", 1]}, "or a list of names"),
        ({"unit": ["scan"]}, "none of scan, patch, vertebra"),
        ({"version": 1}, "version=1: give a text"),
        ({"root": 1}, "root=1 is no path"),
    ],
)
def test_options_of_load_split_that_mean_nothing(
    root: Path, options: dict[str, object], text: str
) -> None:
    """Each is one error of ours that shows what was given."""
    with pytest.raises(UsageError, match=text):
        vd.load_split("training", **({"release": "phantom", "root": root} | options))  # type: ignore[call-overload]


def test_python_names_the_right_word_too(root: Path) -> None:
    """Splits, releases and scans that are nearly right are refused with the one that is meant."""
    release = vd.open_release("phantom", root=root)

    with pytest.raises(UsageError, match="Did you mean 'training'"):
        vd.load_split("train", release="phantom", root=root)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="Did you mean 'validation'"):
        release.folds(2, split="val")
    with pytest.raises(UsageError, match="Did you mean 'phantom'"):
        vd.open_release("phantm", root=root)
    with pytest.raises(UsageError, match="Did you mean 'verse901'"):
        release.fetch(["901"])


def test_roles_are_a_list_of_those_that_exist(root: Path) -> None:
    """A single text is not searched for the names of roles."""
    release = vd.open_release("phantom", root=root)

    for roles in ("ct_json", ["image"], "ct"):
        with pytest.raises(UsageError, match="give a list; roles are ct,"):
            release.locked(roles=roles)  # type: ignore[arg-type]


@pytest.mark.parametrize("scan_ids", ["verse901", 901, [901], [["verse901"]], ["verse901", "x"]])
def test_scan_ids_are_a_list_of_those_that_exist(root: Path, scan_ids: object) -> None:
    """A single text is not taken for its letters."""
    release = vd.open_release("phantom", root=root)

    with pytest.raises(UsageError):
        release.fetch(scan_ids)  # type: ignore[arg-type]
