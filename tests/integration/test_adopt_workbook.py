"""Adopting a grading workbook that the lock of a release does not list."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import openpyxl
import pytest
from typer.testing import CliRunner, Result

import verse_data as vd
from tests.support.workbooks import row, write_csv, write_xlsx
from verse_data.api import lock_tree
from verse_data.cli.main import app
from verse_data.errors import UsageError, ValidationFailed
from verse_data.phantom import write
from verse_data.records.grading import SHEET

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
    assert "known           1" in adopt(book).stdout
    assert versions() == ("v1", "v2")


def test_a_csv_export_is_one_too(book: Path) -> None:
    """What it is, is told by its content."""
    export = write_csv(book.parent / "my_grading.csv", [row(901), row(903)])

    assert adopt(export).exit_code == 0
    assert vd.open_release("phantom").index.grading[0].path == "my_grading.csv"


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("broken.xlsx", ValidationFailed, "column A"),
        ("inventory.xlsx", ValidationFailed, SHEET),
        ("stranger.xlsx", UsageError, "workbook of another release"),
        ("gap.xlsx", ValidationFailed, "T12"),
        ("notes.csv", UsageError, "Rename it"),
    ],
)
def test_what_is_no_workbook_of_the_release_writes_nothing(
    book: Path, name: str, kind: type[Exception], text: str
) -> None:
    """A table that was named is taken, or is an error that says why; no version is made of it."""
    folder = book.parent
    write_xlsx(folder / "broken.xlsx", [row(901, verse_ID="x")])
    write_xlsx(folder / "stranger.xlsx", [row(4)])
    write_xlsx(folder / "gap.xlsx", [row(901, **{"T12_fx-g": None, "T12_fx-s": None})])
    write_csv(folder / "notes.csv", [row(901)])
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


def test_a_source_that_is_not_there_makes_no_version(book: Path) -> None:
    """Every source is looked at before anything is written."""
    assert "does not exist" in str(adopt(book, book.parent / "nowhere").exception)
    assert versions() == ("v1",)
