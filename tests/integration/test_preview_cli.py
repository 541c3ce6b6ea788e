"""``verse-data preview`` on a small phantom."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

import verse_data as vd
from tests.support.pictures import colours
from verse_data import phantom
from verse_data.api import lock_tree
from verse_data.cli.main import app
from verse_data.errors import IntegrityError, QueryRefused, UsageError
from verse_data.views.drawing import AMBER, mark_colour
from verse_data.volumes.layout import MANIFEST_KEY


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("preview")
    lock_tree("phantom", phantom.write(home / "tree", n_subjects=8, shape=(32, 64, 24)), root=home)
    return home


def run(root: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["preview", "phantom", *words, "--root", str(root)])


@pytest.mark.parametrize("case", ["two_series", "lps", "float64_mask", "missing_derivative"])
def test_any_scan_is_drawn(root, tmp_path, case):
    """Scans of all kinds, also one without a mask, become a PNG at the path that is printed."""
    path = tmp_path / "scan.png"
    done = run(root, phantom.CASES[case], "--out", str(path))
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"


def test_json_names_scan_version_and_path(root, tmp_path):
    """With --json, stdout is JSON alone, of one named scan as of several."""
    path = tmp_path / "scan.png"
    told = json.loads(run(root, "verse901", "-o", str(path), "--json").stdout)
    assert told == {"release": "phantom", "version": "v1", "paths": {"verse901": str(path)}}


def test_several_scans_are_drawn_into_a_folder(root, tmp_path, one_core):
    """Named scans, or those of a split, become a file each, in one format."""
    done = run(root, "verse901", "verse903", "-o", str(tmp_path), "--format", "jpg", "--json")
    files = {name: str(tmp_path / f"{name}.jpg") for name in ("verse901", "verse903")}
    assert json.loads(done.stdout)["paths"] == files
    assert {path.name for path in tmp_path.glob("*.jpg")} == {"verse901.jpg", "verse903.jpg"}


def test_many_scans_are_drawn_by_processes(root, tmp_path):
    """Two processes draw what one draws."""
    release = vd.open_release("phantom", root=root)
    names = [name for name, scan in release.series.items() if "ct" in scan.files][:8]
    for workers in (1, 2):
        paths = {name: tmp_path / str(workers) / f"{name}.png" for name in names}
        assert release.previews(paths, workers=workers) == paths
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in "12")
    assert one == two
    assert len(one) == 8


def test_a_condition_chooses_scans(root, tmp_path, one_core):
    """--where draws the scans that have such a vertebra, out of those chosen otherwise."""
    found = vd.open_release("phantom", root=root).select("grade == 3 and split == 'training'")
    done = run(root, "--where", "grade == 3", "--split", "training", "-o", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert {path.stem for path in tmp_path.glob("*.png")} == set(found["scan_id"])


def test_grades_of_the_workbook_are_drawn(root):
    """A preview in Python has the scan's grades beside its levels."""
    release = vd.open_release("phantom", root=root)
    rows = release.select("grade == 3")
    seen = colours(release.preview(rows["scan_id"].iloc[0]))
    assert {mark_colour("3"), AMBER} <= seen  # amber: it is no patient


def test_a_sheet_shows_each_vertebra_of_a_condition(root, tmp_path, one_core):
    """One picture has the crops of all vertebrae, and fewer of them make a smaller one."""
    path = tmp_path / "sheet.webp"
    done = run(root, "--where", "grade >= 1", "--sheet", str(path), "--json")
    assert json.loads(done.stdout)["path"] == str(path)
    release = vd.open_release("phantom", root=root)
    few = release.sheet("grade == 3", scan_ids=["verse901"])
    with Image.open(path) as picture:
        assert picture.format == "WEBP"
        assert picture.height > few.height
    assert {mark_colour("3"), AMBER} <= colours(few)
    assert mark_colour("1") not in colours(few)


def test_a_sheet_says_where_there_is_nothing_to_draw(root, one_core):
    """A graded vertebra without mask and centroid, or without CT, has a tile that says so."""
    release = vd.open_release("phantom", root=root)
    rows = release.select("grade_status == 'no_mask' and has_centroid == False")
    assert len(rows) > 0
    picture = release.sheet("grade_status == 'no_mask' and has_centroid == False")
    assert (24, 24, 24) in colours(picture)


@pytest.mark.parametrize(
    ("words", "error", "text"),
    [
        (["verse999", "-o", "x.png"], UsageError, "verse999"),
        (["verse901", "-o", "x.tiff"], UsageError, ".webp"),
        (["verse901", "-o", "x.png", "--format", "jpg"], UsageError, "leave --format out"),
        (["verse901", "verse903", "-o", "x.png"], UsageError, "Name a folder"),
        ([], UsageError, "which scans"),
        (["verse901", "--sheet", "x.png"], UsageError, "--where"),
        (["--where", "grade > 0", "--sheet", "x.txt"], UsageError, ".pdf"),
        (["--where", "grade > 0", "--sheet", "x.png", "-o", "y"], UsageError, "--out"),
        (
            ["--where", "level == 'C1' and grade == 3", "--sheet", "x.png"],
            UsageError,
            "no vertebra",
        ),
        (["--where", "level == 'C1' and grade == 3", "-o", "x"], UsageError, "no scan"),
        (["--where", "grad > 3"], QueryRefused, "grade"),
        (["verse901", "-o", ".png"], UsageError, "'.png' is no name of a picture"),
        (["verse901", "-o", "/dev/null"], UsageError, "/dev/null is no folder"),
        (["verse901", "-o", "/dev/null/a.png"], UsageError, "/dev/null is no folder"),
        (["--where", "grade > 0", "--sheet", "-"], SystemExit, "2"),
        (["verse901", "-o", ""], SystemExit, "2"),
        (["verse901", "--split", "test"], UsageError, "no scan for --split and the named scans"),
        (["--subject", "verse901", "--split", "test"], UsageError, "for --split and --subject as"),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_nothing_is_written(
    root, tmp_path, monkeypatch, *, words, error, text
):
    """A wrong scan, format, or mix of options is named, and no file is left."""
    monkeypatch.chdir(tmp_path)
    done = run(root, *words)
    assert isinstance(done.exception, error)
    assert text in str(done.exception)
    assert list(tmp_path.glob("*")) == []


def test_one_file_for_two_scans_is_refused(root, tmp_path):
    """In Python too, no picture replaces another."""
    with pytest.raises(UsageError, match="two pictures"):
        vd.open_release("phantom", root=root).previews(
            dict.fromkeys(("verse901", "verse903"), tmp_path / "a.png")
        )


def damaged(root: Path, home: Path, part: str) -> vd.Release:
    """Return the release at another root, where one file of verse901 has flipped bits."""
    shutil.copytree(root, home, symlinks=True)
    release = vd.open_release("phantom", root=home)
    if part == "ct":
        shutil.rmtree(home / "stores", ignore_errors=True)
        file = release.path("verse901", "ct").resolve()
        file.chmod(0o644)
    else:
        file = release.build_cache(["verse901"])["verse901"] / part
    file.write_bytes(bytes(byte ^ 1 for byte in file.read_bytes()))
    return release


@pytest.mark.parametrize("part", ["image/c/0/0/0", MANIFEST_KEY, "ct"])
def test_what_is_damaged_is_named_and_the_others_are_drawn(root, tmp_path, one_core, part):
    """A chunk, manifest or CT of one scan is an error that names it; the other picture is written."""
    release = damaged(root, tmp_path / "home", part)
    paths = {name: tmp_path / f"{name}.png" for name in ("verse901", "verse903")}
    with pytest.raises(
        IntegrityError, match=r"verse901.png is not drawn: .*verse-data (cache|drop)"
    ):
        release.previews(paths)
    assert [path.is_file() for path in paths.values()] == [False, True]


@pytest.mark.parametrize("part", ["image/c/0/0/0", MANIFEST_KEY])
def test_a_sheet_without_a_damaged_store_is_drawn(root, tmp_path, one_core, part):
    """Its tiles say so; the sheet is written before the error, and in Python there is a warning."""
    release, sheet = damaged(root, tmp_path / "home", part), tmp_path / "sheet.png"
    scans, lost = ("verse901", "verse903"), "verse901 is not on the sheet: .*verse-data cache"
    done = run(tmp_path / "home", *scans, "--where", "grade == 3", "--sheet", str(sheet))
    assert isinstance(done.exception, IntegrityError)
    with pytest.warns(UserWarning, match=lost):
        drawn = release.sheet("grade == 3", scan_ids=scans)
    with Image.open(sheet) as picture:
        assert picture.size == drawn.size
        assert {mark_colour("3"), (24, 24, 24)} <= colours(picture)


def test_without_a_usable_workbook_scans_are_drawn_without_grades(tmp_path, one_core):
    """A release without grades gives the picture, which says that there are none."""
    tree = phantom.write(tmp_path / "tree", n_subjects=4, shape=(32, 64, 24))
    (tree / "phantom_grading.xlsx").unlink()
    seen = colours(lock_tree("mine", tree, root=tmp_path / "home").preview("verse901"))
    assert AMBER in seen
    assert not {mark_colour(mark) for mark in "123x"} & seen
