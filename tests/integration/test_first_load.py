"""The first load of a release that is locked and not fetched: what decides is fetched before it decides."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from osf_standin import Node, OsfStandin
from typer.testing import CliRunner

import verse_data as vd
from tests.support.workbooks import row, write_xlsx
from verse_data import config
from verse_data.api import dataset_of, lock_tree
from verse_data.cli.main import app
from verse_data.errors import (
    ContentMissing,
    IncompleteTable,
    Offline,
    QueryRefused,
    UsageError,
    ValidationFailed,
)
from verse_data.phantom import write as write_phantom
from verse_data.records.lock import ReleaseLock
from verse_data.releases.osf import walk_node

pytestmark = pytest.mark.usefixtures("one_core")

WHERE = "grade >= 1"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small phantom, as files."""
    return write_phantom(
        tmp_path_factory.mktemp("phantom") / "tree", n_subjects=4, shape=(32, 64, 24)
    )


@contextmanager
def locked(
    tree: Path, patch: pytest.MonkeyPatch, *, without: str = "nothing"
) -> Iterator[OsfStandin]:
    """Serve the phantom's files, but for those `without`, and lock them; nothing of it is here."""
    node = Node("jtfa5")
    for path in sorted(path for path in tree.rglob("*") if path.is_file()):
        if path.name != without:
            node.upload(path.relative_to(tree).as_posix(), path.read_bytes())
    with OsfStandin(node) as osf:
        for name, value in osf.environment.items():
            patch.setenv(name, value)
        settings = config.resolve()
        lock = walk_node("jtfa5", config=settings, release="lab")
        dataset_of("lab", settings).publish(lock)
        yield osf


@pytest.fixture
def osf(tree: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OsfStandin]:
    """Serve the phantom, and lock it; nothing of it is here."""
    del home  # only set by then
    with locked(tree, monkeypatch) as osf:
        yield osf


@pytest.mark.usefixtures("osf")
@pytest.mark.parametrize("unit", ["scan", "vertebra"])
def test_a_condition_is_asked_of_files_that_are_here(unit: str, tree: Path, tmp_path: Path) -> None:
    """Grades, masks and centroids are fetched before they say what is served."""
    lock_tree("lab", tree, root=tmp_path / "whole")
    options = {"unit": unit, "release": "lab", "where": WHERE}

    served = vd.load_split("training", **options)
    expected = vd.load_split("training", root=tmp_path / "whole", **options)

    assert len(served) == len(expected) > 0
    assert served.excluded.equals(expected.excluded)


@pytest.mark.usefixtures("osf")
def test_vertebrae_are_served_with_their_grades(tree: Path, tmp_path: Path) -> None:
    """Also without a condition, no vertebra counts as not assessed because its grade is not here."""
    lock_tree("lab", tree, root=tmp_path / "whole")

    served = vd.load_split("training", unit="vertebra", release="lab")
    expected = vd.load_split("training", unit="vertebra", release="lab", root=tmp_path / "whole")

    assert served.counts() == expected.counts()
    assert {row["grade"] for row in served} == {row["grade"] for row in expected}


@pytest.mark.usefixtures("osf")
def test_tables_say_what_has_come_since_they_were_read() -> None:
    """One opened release: its tables before and after a fetch."""
    release = vd.open_release("lab")
    with pytest.warns(
        IncompleteTable, match=r"files .* are not here.*: verse-data get lab --role"
    ) as warned:
        before = release.vertebrae

    release.fetch()

    assert len(before) == 0
    assert {Path(warning.filename) for warning in warned} == {Path(__file__)}
    assert release.vertebrae["has_mask"].any()
    assert release.vertebrae["grade"].notna().any()


@pytest.mark.usefixtures("osf")
def test_a_table_is_fetched_or_said_to_lack_files(tree: Path, tmp_path: Path) -> None:
    """``load_table`` brings what the table is made of; offline it warns of what is not here."""
    lock_tree("lab", tree, root=tmp_path / "whole")
    with pytest.warns(IncompleteTable, match="verse-data get lab"):
        assert len(vd.load_table(release="lab", offline=True)) == 0

    loaded = vd.load_table(release="lab")

    assert loaded.equals(vd.load_table(release="lab", root=tmp_path / "whole"))


@pytest.mark.usefixtures("osf")
def test_commands_say_that_tables_lack_files() -> None:
    """An answer out of files that are not here is not taken for one about the release."""
    level = "level >= 'T11'"
    for words in (["query", "lab", level], ["table", "lab"], ["findings", "lab"]):
        answer = CliRunner().invoke(app, words)

        assert answer.exit_code == 0
        assert "are not here, and what they say is missing: verse-data get lab" in answer.stderr


def test_a_ct_is_fetched_where_it_alone_places_centroids(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a scan without a mask, a condition on positions is asked of the grid of its CT."""
    with locked(tree, monkeypatch, without="sub-verse901_seg-vert_msk.nii.gz"):
        release = vd.open_release("lab")

        rows = release.fetch_and_select("centroid_x > -100000", graded=True)

    assert "verse901" in set(rows["scan_id"])
    here = [file.path for file in release.locked(roles=["ct"]) if release.files.has(file)]
    assert [Path(path).name for path in here] == ["sub-verse901_ct.nii.gz"]
    found = CliRunner().invoke(app, ["findings", "lab"])
    assert "--role grading,centroids,ct_json,mask,ct" in found.stderr
    assert CliRunner().invoke(app, ["table", "lab"]).stderr == ""
    stored = release.files.object_path(release.series["verse901"].files["ct"])
    stored.parent.chmod(0o755)
    stored.unlink()
    table = CliRunner().invoke(app, ["table", "lab"])
    assert "1 of 1 files" in table.stderr
    assert "get lab --scan verse901 --role ct" in table.stderr


def test_a_broken_workbook_stops_who_needs_grades(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks for none of them does not fetch it, and is served also once it is here."""
    broken = shutil.copytree(tree, tmp_path / "broken")
    write_xlsx(broken / "phantom_grading.xlsx", [row(901, verse_ID="x y")])
    patches = {"unit": "patch", "sampling": "level", "patch_size": 16, "release": "lab"}
    with locked(broken, monkeypatch):
        before = vd.load_split("training", **patches)
        lumbar = vd.load_split("training", release="lab", where="level >= 'L1'")
        release = vd.open_release("lab")
        assert not any(release.files.has(file) for file in release.index.grading)
        for options in ({"where": WHERE}, {"unit": "vertebra"}):
            with pytest.raises(ValidationFailed, match=r"phantom_grading\.xlsx.*column A"):
                vd.load_split("training", release="lab", **options)
        assert all(release.files.has(file) for file in release.index.grading)
        release.fetch()

    with pytest.warns(IncompleteTable, match="What the grading workbook says is missing"):
        again = vd.load_split("training", release="lab", where="level >= 'L1'")
    assert len(again) == len(lumbar) > 0
    assert len(vd.load_split("training", **patches)) == len(before) > 0
    for ask in (lambda: release.vertebrae, lambda: release.select(WHERE), lambda: release.folds(2)):
        with pytest.raises(ValidationFailed, match="column A"):
            ask()
    found = release.findings.set_index("rule")
    assert found.loc["broken-file", "file"] == "phantom_grading.xlsx"
    assert "no-workbook" not in found.index


@pytest.mark.usefixtures("osf")
@pytest.mark.parametrize(
    "columns", [["scan_id", "level", "foreign_material"], ["scan_id", "level"]]
)
def test_rows_are_held_against_the_workbook_where_they_say_what_it_says(
    columns: list[str], tree: Path, tmp_path: Path
) -> None:
    """Rows of foreign material have no grade and need it; those with scan and level alone do not."""
    chosen = lock_tree("lab", tree, root=tmp_path / "whole").select("foreign_material")
    release = vd.open_release("lab")

    served = release.dataset(chosen[columns])

    assert len(served) == chosen["scan_id"].nunique() > 0
    assert all(release.files.has(file) for file in release.index.grading) is (len(columns) > 2)


@pytest.mark.usefixtures("osf")
def test_an_empty_condition_is_not_everything() -> None:
    """``get --where ""`` is a mistake, and no wish to fetch the whole release."""
    answer = CliRunner().invoke(app, ["get", "lab", "--where", ""])

    assert isinstance(answer.exception, QueryRefused)
    assert "0 of " not in answer.stdout


@pytest.mark.parametrize(
    "options",
    [
        {"orientation": "RAX"},
        {"seed": -1},
        {"transform": "flip"},
        {"workers": 0},
        {"spacing": (1, 1)},
        {"codec": "gzip"},
        {"where": "grad >= 1"},
        {"unit": "patch", "patch_size": (96, 96)},
        {"unit": "patch", "sampling": ["grade"]},
        {"unit": "patch", "weights": {"T12": 1}},
        {"unit": "vertebra", "include": 3},
        {"image_dtype": ["int16"]},
        {"unit": "vertebra", "axes": "body"},
    ],
)
def test_a_wrong_option_asks_nothing_of_osf(osf: OsfStandin, options: dict[str, object]) -> None:
    """Options are looked at before hours of listing and download, and not after."""
    before = len(osf.seen)

    with pytest.raises((UsageError, QueryRefused)):
        vd.load_split("training", release="verse19", **options)

    assert len(osf.seen) == before


@pytest.mark.usefixtures("osf")
def test_what_cannot_be_had_is_an_error_and_no_smaller_dataset() -> None:
    """Offline, the files that a condition looks at are listed."""
    with pytest.raises(Offline, match=r"_seg-vert_msk\.nii\.gz"):
        vd.load_split("training", release="lab", where=WHERE, offline=True)


@pytest.mark.usefixtures("osf")
def test_a_workbook_that_nobody_serves_is_asked_for() -> None:
    """Where grades decide, the workbook is to adopt; where they do not, scans are served."""
    dataset = dataset_of("lab", config.resolve())
    lock = dataset.lock()
    files = [
        file.model_copy(update={"file_id": None, "file_version": None, "sha256": "a" * 64})
        if file.path.endswith(".xlsx")
        else file
        for file in lock.files
    ]
    dataset.publish(ReleaseLock(release=lock.release, source=lock.source, files=tuple(files)))

    for options in ({"unit": "vertebra"}, {"where": WHERE}):
        with pytest.raises(ContentMissing, match="verse-data adopt lab "):
            vd.load_split("training", release="lab", **options)
    assert len(vd.load_split("training", release="lab")) > 0
