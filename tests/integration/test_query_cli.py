"""``verse-data query``, ``folds`` and ``leaks`` on a small phantom release."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from verse_data import api
from verse_data.cli.main import run
from verse_data.errors import ValidationFailed
from verse_data.phantom import write
from verse_data.tables.folds import Folds, make_folds

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lock a small phantom once for all tests of this file."""
    folder = tmp_path_factory.mktemp("release")
    tree = write(folder / "tree", n_subjects=8, shape=(32, 64, 24))
    api.lock_tree("phantom", tree, root=folder / "home")
    return folder / "home"


@pytest.fixture
def verse_data(root: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Run:
    """Return a function that runs the command and gives exit code, stdout and stderr."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setenv("VERSE_DATA_HOME", str(root))
        monkeypatch.setattr(sys, "argv", ["verse-data", *words])
        try:
            run()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return call


def test_query_prints_rows_and_says_how_many(verse_data: Run, root: Path) -> None:
    """The table goes to stdout, the count to stderr, with the columns that the query used."""
    code, out, err = verse_data("query", "phantom", "grade >= 2 and label < 25")
    rows = api.open_release("phantom", root=root).select("grade >= 2 and label < 25")

    assert code == 0
    assert len(out.splitlines()) == 1 + len(rows)
    assert out.split()[:3] == ["scan_id", "level", "grade"]
    assert "label" in out.splitlines()[0]
    assert err.startswith(f"{len(rows)} of ")


@pytest.mark.parametrize("how", [["--json"], ["--csv"], ["--out", "rows.csv"]])
def test_a_condition_says_how_many_rows_fit_however_they_are_written(
    how: list[str], verse_data: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The count is on stderr, beside data that go to a program or a file."""
    monkeypatch.chdir(tmp_path)
    assert " vertebrae\n" in verse_data("query", "phantom", "grade >= 2", *how)[2].replace(
        " of ", "", 1
    )


def test_json_and_csv_are_nothing_but_data(verse_data: Run, root: Path) -> None:
    """Both hold every column and the same rows; missing is null, and empty."""
    _, as_json, _ = verse_data("query", "phantom", "missing(grade)", "--json")
    _, as_csv, _ = verse_data("query", "phantom", "missing(grade)", "--csv")
    rows = api.open_release("phantom", root=root).select("missing(grade)")
    records, lines = json.loads(as_json), list(csv.DictReader(io.StringIO(as_csv)))

    assert len(records) == len(lines) == len(rows) > 0
    assert list(records[0]) == list(lines[0]) == list(rows.columns)
    assert {record["grade"] for record in records} == {None}
    assert {line["grade"] for line in lines} == {""}
    assert [record["level"] for record in records] == rows["level"].tolist()


def test_other_tables_and_columns_can_be_asked(verse_data: Run) -> None:
    """--table and --columns choose; the definitions of vertebrae do not fit scans."""
    _, out, _ = verse_data(
        "query", "phantom", "split == 'training'", "--table", "scans", "--columns", "scan_id,split"
    )
    code, _, err = verse_data("query", "phantom", "fracture.any", "--table", "scans")

    assert out.splitlines()[0].split() == ["scan_id", "split"]
    assert {line.split()[1] for line in out.splitlines()[1:]} == {"training"}
    assert code == 2
    assert "this table has no column grade" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["grad >= 2"], "Did you mean grade?"),
        (["grade >= 2", "--json", "--csv"], "exclude each other"),
        (["grade >= 2", "--columns", "grad"], "no column 'grad'"),
        (["__import__('os')"], "Query refused"),
    ],
)
def test_bad_queries_exit_with_two(verse_data: Run, words: list[str], said: str) -> None:
    """A refusal goes to stderr with its place; stdout stays empty."""
    code, out, err = verse_data("query", "phantom", *words)

    assert (code, out) == (2, "")
    assert said in err


def test_folds_are_written_checked_and_free_of_leaks(
    verse_data: Run, root: Path, tmp_path: Path
) -> None:
    """The written file passes --check and the leak check, and is what the API makes."""
    path = tmp_path / "folds.json"
    code, out, err = verse_data("folds", "phantom", "--k", "3", "--out", str(path))
    release = api.open_release("phantom", root=root)

    assert code == 0
    assert "spread" in out
    assert f"Wrote {path}" in err
    assert Folds.read(path, release.scans).digest == release.folds(3).digest
    assert verse_data("folds", "phantom", "--check", str(path))[0] == 0
    assert verse_data("leaks", str(path), "--release", "phantom")[0] == 0


def test_leaks_need_the_names_of_a_release_alone(verse_data: Run, tmp_path: Path) -> None:
    """Broken and absent files are no reason not to compare names; the names are its own."""
    tree = write(tmp_path / "tree", n_subjects=4, shape=(32, 64, 24))
    for path in tree.rglob("*ctd.json"):
        path.write_text("{}")
    api.lock_tree("spoilt", tree, root=tmp_path / "home", check=False)
    sides = tmp_path / "sides.json"
    sides.write_text(json.dumps({"train": ["verse902_split-verse951"], "val": ["verse952"]}))

    words = ["leaks", str(sides), "--release", "spoilt", "--root", str(tmp_path / "home")]
    code, out, _ = verse_data(*words)

    assert code == 3
    assert "verse902: train (verse902_split-verse951) and val (verse952)" in out


def test_folds_of_one_split_hold_its_scans_alone(verse_data: Run, root: Path) -> None:
    """--split divides the scans of one published split."""
    _, out, _ = verse_data("folds", "phantom", "--k", "2", "--split", "training", "--json")
    scans = api.open_release("phantom", root=root).scans
    training = sorted(scans["scan_id"][scans["split"] == "training"])

    assert sorted(scan for part in json.loads(out)["folds"] for scan in part["scans"]) == training
    assert verse_data("folds", "phantom", "--split", "train")[0] == 2


def test_changed_folds_exit_with_four(verse_data: Run, tmp_path: Path) -> None:
    """A file that was edited is not accepted."""
    path = tmp_path / "folds.json"
    verse_data("folds", "phantom", "--k", "3", "--out", str(path))
    path.write_text(path.read_text().replace('"seed":0', '"seed":1'))
    code, _, err = verse_data("folds", "phantom", "--check", str(path))

    assert code == 4
    assert "changed after it was written" in err


def test_folds_of_another_lock_exit_with_three(verse_data: Run, root: Path, tmp_path: Path) -> None:
    """The same scans at another version are other files, and reading the folds back says so."""
    release = api.open_release("phantom", root=root)
    path, other = tmp_path / "folds.json", "sha256:" + "0" * 64
    tables = release.scans, release.vertebrae
    make_folds(*tables, k=3, release="phantom", lock=other).write(path)
    code, _, err = verse_data("folds", "phantom", "--check", str(path))

    assert code == 3
    assert other in err
    assert release.lock.digest in err
    make_folds(*tables, k=3, release="verse19").write(path)
    with pytest.raises(ValidationFailed, match="of another release: verse19"):
        release.read_folds(path)


def test_the_file_and_fold_with_an_empty_side_are_named(verse_data: Run, tmp_path: Path) -> None:
    """Of several folds in one file, and of a file for each side."""
    folds, blank, full = (tmp_path / name for name in ("folds.json", "blank.txt", "full.txt"))
    folds.write_text(
        json.dumps(
            [{"train": ["verse901"], "val": ["verse903"]}, {"train": ["verse901"], "val": []}]
        )
    )
    blank.write_text("")
    full.write_text("verse901\n")
    for words, named in (
        ([str(folds)], f"{folds}, fold 1: Fewer than two sides"),
        ([f"train={full}", f"val={blank}"], f"train={full}, val={blank}: Fewer than two sides"),
    ):
        code, _, said = verse_data("leaks", *words)
        assert (code, named in said) == (2, True), said


def test_leaking_split_exits_with_three(verse_data: Run, tmp_path: Path) -> None:
    """Two series of one phantom patient on two sides are named, in words and as JSON."""
    (tmp_path / "train.txt").write_text("verse951\nverse901\n")
    (tmp_path / "val.txt").write_text("sub-verse902_split-verse952_ct.nii.gz\n")
    words = [
        "leaks",
        f"train={tmp_path}/train.txt",
        f"val={tmp_path}/val.txt",
        "--release",
        "phantom",
    ]
    code, out, _ = verse_data(*words)
    _, as_json, _ = verse_data(*words, "--json")

    assert code == 3
    assert "verse902: train (verse951) and val (sub-verse902_split-verse952_ct.nii.gz)" in out
    assert json.loads(as_json)["split"]["leaks"][0]["subject_id"] == "verse902"
    (tmp_path / "val.txt").write_text("a,b\n0,verse901\n")
    code, out, said = verse_data(*words)
    assert (code, out) == (2, "")  # bad input is no leak
    assert "val.txt: none of its headings" in said
    (tmp_path / "val.txt").write_text("verse901\nnobody\n")
    (tmp_path / "train.txt").write_text("verse951\n")
    code, out, _ = verse_data(*words)
    assert (code, "1 entry could not be placed" in out) == (3, True)  # it may leak
