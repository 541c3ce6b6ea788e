"""Adopting a grading workbook that the lock of a release does not list."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import openpyxl
import pytest
from typer.testing import CliRunner, Result

import verse_data as vd
from tests.support.workbooks import row, write_csv, write_xlsx
from verse_data import grades
from verse_data.api import lock_tree
from verse_data.cli.main import app
from verse_data.errors import ContentMissing, UsageError, ValidationFailed
from verse_data.phantom import write
from verse_data.records.lock import ReleaseLock
from verse_data.records.tables import SHEET
from verse_data.releases.repository import Repository

NAME = "phantom_grading.xlsx"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lock a made-up release without its workbook, once; tests change copies of it."""
    folder = tmp_path_factory.mktemp("built")
    made = write(folder / "tree", n_subjects=5, shape=(48, 96, 36))
    (made / NAME).rename(folder / NAME)
    lock_tree("phantom", made, root=folder / "home")
    return folder


@pytest.fixture
def book(built: Path, tmp_path: Path, home: Path) -> Path:
    """Copy tree and release, and return the workbook."""
    shutil.copytree(built / "tree", tmp_path / "tree")
    shutil.copytree(built / "home", home, symlinks=True)
    return Path(shutil.copy(built / NAME, tmp_path))


def adopt(*words: object) -> Result:
    """Run ``verse-data adopt phantom``."""
    return CliRunner().invoke(app, ["adopt", "phantom", *map(str, words)])


def versions() -> tuple[str, ...]:
    """Return the versions of the release."""
    return vd.open_release("phantom").files.versions()


def test_it_becomes_the_next_version(book: Path) -> None:
    """The version says so, holds the workbook at its root, and has the grades; the old one stays."""
    answer = adopt(book)

    assert answer.exit_code == 0
    assert f"{NAME}: it is part of v2" in answer.stderr
    newer, older = vd.open_release("phantom"), vd.open_release("phantom", version="v1")
    assert newer.version == "v2"
    assert {change.path for change in newer.diff("v1").files} == {NAME}
    assert newer.vertebrae["grade"].notna().any()
    assert NAME not in older.lock.by_path
    # The same tree, locked whole, is the same list of files.
    whole = shutil.copytree(book.parent / "tree", book.parent / "whole")
    shutil.copy(book, whole)
    assert lock_tree("phantom", whole, check=False).lock == newer.lock
    assert versions() == ("v1", "v2")


def test_it_is_found_in_a_folder_and_adopted_once(book: Path) -> None:
    """A folder that holds it will do, other tables beside it are no matter; again is no new version."""
    folder = book.parent / "folder"
    folder.mkdir()
    shutil.copy(book, folder)
    other = openpyxl.Workbook()
    other.save(folder / "inventory.xlsx")

    answer = CliRunner().invoke(app, ["adopt", "phantom", str(folder), "--json"])

    assert json.loads(answer.stdout)["new_workbook"] == {"path": NAME, "version": "v2"}
    assert json.loads(answer.stdout)["new"] == [NAME]
    assert "known      1" in adopt(book).stdout
    assert versions() == ("v1", "v2")


@pytest.mark.parametrize(
    ("name", "listed"), [("my_grading.csv", "my_grading.csv"), ("notes.csv", "grading.csv")]
)
def test_a_csv_export_is_one_too(book: Path, name: str, listed: str) -> None:
    """What it is, is told by its content; a name that says nothing becomes one that does."""
    export = write_csv(book.parent / name, [row(901), row(903)])

    assert adopt(export).exit_code == 0
    assert vd.open_release("phantom").index.grading[0].path == listed


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("broken.xlsx", ValidationFailed, "column A"),
        ("inventory.xlsx", ValidationFailed, SHEET),
        ("stranger.xlsx", UsageError, "workbook of another release"),
        ("gap.xlsx", ValidationFailed, "T12"),
    ],
)
def test_what_is_no_workbook_of_the_release_writes_nothing(
    book: Path, name: str, kind: type[Exception], text: str
) -> None:
    """A table that was named is taken, or is an error that says why; no version is made of it."""
    folder = book.parent
    write_xlsx(folder / "broken.xlsx", [row(901, verse_ID="x y")])
    write_xlsx(folder / "stranger.xlsx", [row(4)])
    write_xlsx(folder / "gap.xlsx", [row(901, **{"T12_fx-g": None, "T12_fx-s": None})])
    openpyxl.Workbook().save(folder / "inventory.xlsx")

    answer = adopt(folder / name)

    assert type(answer.exception) is kind
    assert text in str(answer.exception)
    assert versions() == ("v1",)


def test_a_second_workbook_is_refused(book: Path) -> None:
    """Be it beside the first, under its name or another, in an older version, or after it."""
    second = write_xlsx(book.parent / "second_grading.xlsx", [row(901)])

    assert "2 different grading workbooks" in str(adopt(book, second).exception)
    assert versions() == ("v1",)
    adopt(book)
    assert f"lists another: {NAME}" in str(adopt(second).exception)
    shutil.copy(second, book)
    assert f"lists another: {NAME}" in str(adopt(book).exception)
    assert "leave --version out" in str(adopt(second, "--version", "v1").exception)
    # In a folder it is reported, and the rest of the folder is adopted.
    answer = adopt(book.parent / "tree", second.parent)
    assert answer.exit_code == 0
    assert "not taken as the grading workbook" in answer.stderr
    assert versions() == ("v1", "v2")


def test_a_workbook_of_another_name_is_not_hidden_by_a_well_known_one(book: Path) -> None:
    """What the lock lists counts, and not which of two names would be chosen; notes are no workbook."""
    lab = book.rename(book.with_name("lab.xlsx"))
    second = write_xlsx(book.parent / "grading.xlsx", [row(901)])
    assert adopt(lab).exit_code == 0

    assert "lists another: lab.xlsx" in str(adopt(second).exception)
    assert versions() == ("v1", "v2")


def test_a_locked_table_that_is_no_workbook_makes_way(book: Path) -> None:
    """Somebody's notes beside the scans do not keep the workbook out: content tells it from them."""
    tree = book.parent / "tree"
    openpyxl.Workbook().save(tree / "notes.xlsx")
    lock_tree("phantom", tree, check=False)

    assert adopt(shutil.copy(book, book.with_name("lab.xlsx"))).exit_code == 0
    assert [file.path for file in vd.open_release("phantom").workbook.listed] == ["lab.xlsx"]


def test_two_that_are_adopted_at_once_become_one(book: Path) -> None:
    """Whoever comes second is refused as if it had come later, and the newest version keeps the first."""
    second = write_xlsx(book.parent / "second_grading.xlsx", [row(901)])
    place = vd.open_release("phantom").files.path
    start = Barrier(2)

    def take(source: Path) -> str:
        start.wait()
        try:
            return grades.adopt(Repository(place), [source]).version
        except UsageError as error:
            return str(error)

    with ThreadPoolExecutor(2) as both:
        said = sorted(both.map(take, (book, second)), key=len)

    assert said[0] == "v2"
    assert "lists another: " in said[1]
    assert versions() == ("v1", "v2")


def test_a_lock_made_from_an_older_version_is_not_published_after_a_newer(book: Path) -> None:
    """Nothing that came in between is lost; a lock that is a version already is that version."""
    old = vd.open_release("phantom")
    adopt(book)
    less = ReleaseLock(release="phantom", source=old.lock.source, files=old.lock.files[1:])

    with pytest.raises(UsageError, match="v2 is the newest version now"):
        old.files.publish(less, after="v1")
    assert old.files.publish(old.lock, after="v1") == "v1"
    assert versions() == ("v1", "v2")


def test_an_older_version_names_the_one_that_lists_it(book: Path) -> None:
    """So does a release that was opened before; adopting for the older version says the same."""
    opened = vd.open_release("phantom")
    adopt(book)

    for older in (opened, vd.open_release("phantom", version="v1")):
        with pytest.raises(ContentMissing, match=r"v2 lists one: open version='v2'"):
            older.select("grade >= 2")
    again = adopt(book, "--version", "v1").exception
    assert "v1 does not list, and only the newest" in str(again)
    vd.open_release("phantom").files.publish(
        ReleaseLock(release="phantom", source=opened.lock.source, files=opened.lock.files[1:])
    )
    with pytest.raises(ContentMissing, match=r"v2 lists one: open version='v2'"):
        opened.select("grade >= 2")


def test_a_version_that_loses_it_is_told(book: Path) -> None:
    """Locking the changed tree again lists no workbook; the note names it, and what adopts it again."""
    adopt(book)
    tree = book.parent / "tree"
    words = ["lock", "phantom", "--from-tree", str(tree), "--no-check"]
    assert "grading workbook" not in CliRunner().invoke(app, words).stderr
    next(tree.rglob("*_snp.png")).unlink()

    told = CliRunner().invoke(app, words).stderr

    assert f"v2 lists the grading workbook {NAME}, and v3" in told
    assert f"verse-data adopt phantom {NAME}" in told


def test_nothing_that_belongs_is_said_in_a_sentence(book: Path) -> None:
    """Counts of nothing alone would read as success."""
    stray = book.with_name("stray.txt")
    stray.write_text("nothing of the release")

    answer = adopt(stray)

    assert answer.exit_code == 0
    assert "Nothing of what was given belongs to phantom v1." in answer.stderr
    assert "Nothing of" not in adopt(book).stderr
    assert "Nothing of" not in adopt(book).stderr


def test_a_csv_export_that_is_called_a_workbook_is_read_all_the_same(book: Path) -> None:
    """Content decides, and not the ending."""
    assert adopt(write_csv(book.with_name("export.xlsx"), [row(901), row(903)])).exit_code == 0


def test_a_source_that_is_not_there_makes_no_version(book: Path) -> None:
    """Every source is looked at before anything is written."""
    assert "does not exist" in str(adopt(book, book.parent / "nowhere").exception)
    assert versions() == ("v1",)
