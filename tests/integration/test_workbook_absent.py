"""A release whose grading workbook is not here: nothing that needs grades comes back empty in silence."""

from __future__ import annotations

import warnings
from pathlib import Path

import openpyxl
import pytest
from typer.testing import CliRunner

import verse_data as vd
from tests.support.workbooks import row, write_xlsx
from verse_data import config
from verse_data.api import dataset_of, load_table, lock_tree
from verse_data.cli.main import app
from verse_data.config import resolve
from verse_data.errors import ContentMissing, IncompleteTable, QueryRefused, UsageError
from verse_data.phantom import write
from verse_data.release import Release
from verse_data.releases.tree import lock_tree as hash_tree
from verse_data.spine.levels import LEVELS

pytestmark = pytest.mark.usefixtures("one_core")

NAMED = r"grading workbook.*10\.1148/ryai\.2020190138.*verse-data adopt phantom "


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Write a made-up release without its workbook."""
    made = write(tmp_path / "tree", n_subjects=4, shape=(48, 96, 36))
    (made / "phantom_grading.xlsx").rename(tmp_path / "phantom_grading.xlsx")
    return made


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lock one in a cache root, once for all tests that ask and change nothing."""
    folder = tmp_path_factory.mktemp("absent")
    made = write(folder / "tree", n_subjects=4, shape=(48, 96, 36))
    (made / "phantom_grading.xlsx").unlink()
    lock_tree("phantom", made, root=folder / "home")
    return folder / "home"


@pytest.fixture
def release(root: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    """Open it anew."""
    del home  # only set by then
    monkeypatch.setenv(config.HOME_VARIABLE, str(root))
    return vd.open_release("phantom")


@pytest.fixture
def phantom_without_contents(tree: Path) -> None:
    """Lock it, and bring none of its files here: the network has to be asked for each."""
    dataset_of("phantom", resolve()).publish(hash_tree(tree, release="phantom"))


@pytest.mark.parametrize(
    "where",
    [
        "grade >= 2",
        "missing(grade)",
        "level == 'L1' and not foreign_material",
        "fracture_type == 'wedge'",
        "grade_status == 'not_assessed'",
        "bmd_mg_cm3 < 80",
        "age_years > 60",
        "fracture.any",
    ],
)
def test_a_condition_on_grades_is_an_error(release: Release, where: str) -> None:
    """It names the workbook, the paper that it is a supplement of, and the line that adopts it."""
    for ask in (
        lambda: release.select(where),
        lambda: release.fetch_and_select(where),
        lambda: load_table(release="phantom", where=where),
        lambda: vd.load_split("training", release="phantom", where=where),
    ):
        with pytest.raises(ContentMissing, match=NAMED):
            ask()


def test_other_conditions_are_answered(release: Release) -> None:
    """Levels are told by masks and centroids, and a condition that means nothing is still refused."""
    with pytest.warns(IncompleteTable, match=NAMED):
        lumbar = release.select("level >= 'L1'")

    assert set(lumbar["level"]) <= set(LEVELS[LEVELS.index("L1") :])
    assert len(release.select("has_mask")) > 0  # warned of once
    with pytest.raises(QueryRefused):
        release.select("grad >= 2")


def test_folds_warn_once_and_leave_grades_out(release: Release) -> None:
    """Patients are divided all the same, balanced over what is known; grades asked for are an error."""
    with pytest.warns(IncompleteTable, match=f"not over grade and foreign_material.*{NAMED}"):
        made = release.folds(2)

    assert made.stratify == ("region",)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert release.folds(2) == made
    with pytest.raises(ContentMissing, match=NAMED):
        release.folds(2, stratify=["grade"])


def test_findings_tell_of_it(release: Release) -> None:
    """The list of findings has a row for the workbook."""
    with pytest.warns(IncompleteTable, match=NAMED):
        found = release.findings.set_index("rule")

    assert "grades" in found.loc["no-workbook", "message"]


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["query", "phantom", "grade >= 2"], 4),
        (["table", "phantom", "--where", "grade >= 2"], 4),
        (["get", "phantom", "--where", "grade >= 2"], 4),
        (["query", "phantom", "level == 'L1'"], 0),
        (["table", "phantom"], 0),
        (["folds", "phantom", "--k", "2"], 0),
        (["findings", "phantom"], 0),
        (["report", "phantom"], 0),
    ],
)
def test_commands_say_so(words: list[str], code: int) -> None:
    """Those that need grades end with 4; the others answer, and say on stderr what is missing."""
    answer = CliRunner().invoke(app, words)
    told = str(answer.exception) if code else answer.stderr

    assert isinstance(answer.exception, ContentMissing) if code else answer.exit_code == 0
    assert "10.1148/ryai.2020190138" in told
    assert told.count("verse-data adopt phantom ") == 1
    assert "UserWarning" not in told


def test_a_locked_workbook_that_is_not_here_is_named_with_its_file(tree: Path) -> None:
    """Where the lock lists it, the line that adopts names the very file."""
    tree.parent.joinpath("phantom_grading.xlsx").rename(tree / "phantom_grading.xlsx")
    release = lock_tree("phantom", tree)
    stored = release.files.object_path(release.index.grading[0])
    stored.parent.chmod(0o755)
    stored.unlink()

    with pytest.raises(ContentMissing, match=r"verse-data adopt phantom phantom_grading\.xlsx$"):
        release.select("grade >= 2")
    with pytest.warns(IncompleteTable, match=r"verse-data adopt phantom phantom_grading\.xlsx$"):
        found = release.findings.set_index("rule")
    assert set(found.loc[["no-workbook"], "severity"]) == {"warning"}


def test_a_lock_without_grades_says_so(tree: Path) -> None:
    """With what to type; another table in the tree is told not to be it, and grades are no empty column."""
    openpyxl.Workbook().save(tree / "inventory.xlsx")
    (tree / "grading.ods").write_bytes(b"PK mimetypeapplication/vnd.oasis.opendocument.spreadsheet")

    told = CliRunner().invoke(app, ["lock", "mylab", "--from-tree", str(tree)])

    assert told.exit_code == 0
    lines = told.stderr.splitlines()
    absence = next(line for line in lines if "lists no grading workbook" in line)
    assert absence.endswith("then: verse-data adopt mylab WORKBOOK.xlsx")
    assert any("grading.ods: an OpenDocument file" in line for line in lines)
    assert any("inventory.xlsx: no sheets have the headings" in line for line in lines)
    with pytest.raises(ContentMissing, match="lists no grading workbook"):
        vd.open_release("mylab").select("grade >= 2")

    tree.parent.joinpath("phantom_grading.xlsx").rename(tree / "lab.xlsx")
    again = CliRunner().invoke(app, ["lock", "mylab", "--from-tree", str(tree)])
    assert "grading workbook" not in again.stderr
    assert len(vd.open_release("mylab").select("grade >= 2"))


@pytest.mark.usefixtures("phantom_without_contents")
@pytest.mark.parametrize(
    ("options", "other"),
    [
        ({"unit": "vertebra"}, {"include": ("graded", "not_assessed")}),
        ({"unit": "vertebra", "include": "foreign_material"}, {"include": "not_assessed"}),
        ({"unit": "patch", "sampling": "grade"}, {"sampling": "level"}),
    ],
)
def test_what_only_grades_serve_is_refused_before_anything_is_fetched(
    options: dict[str, object], other: dict[str, object], tree: Path
) -> None:
    """It names the workbook and the option that needs none; that one serves, once files are here."""
    more = {"patch_size": 16} if options["unit"] == "patch" else {}
    release = vd.open_release("phantom")
    for ask in (
        lambda: vd.load_split("training", release="phantom", **options, **more),
        lambda: release.dataset(list(release.series), **options, **more),
    ):
        with pytest.raises(ContentMissing, match=rf"(include|sampling)=.*without them.*{NAMED}"):
            ask()

    release.files.adopt([tree])
    assert len(vd.load_split("training", release="phantom", **{**options, **other}, **more)) > 0


def test_nothing_to_serve_names_the_options_that_serve(tree: Path) -> None:
    """Of a workbook that grades other scans: the options in the text do serve."""
    write_xlsx(tree / "grading.xlsx", [row(4)])
    lock_tree("phantom", tree)
    include = ("graded", "not_assessed")
    with pytest.raises(UsageError, match=r"\d+ not_assessed") as raised:
        vd.load_split("training", release="phantom", unit="vertebra")
    assert f"include={include!r}" in str(raised.value)
    assert "grading workbook" in str(raised.value)
    assert vd.load_split("training", release="phantom", unit="vertebra", include=include)

    how = {"release": "phantom", "unit": "patch", "patch_size": 16}
    with pytest.raises(UsageError, match=r"sampling='level' \(no vertebra has both"):
        vd.load_split("training", sampling="grade", **how)
    assert vd.load_split("training", sampling="level", **how)


def test_nothing_to_serve_without_centroids_or_masks(tree: Path) -> None:
    """Without centroids it is around='mask' or sampling='uniform', without masks label=False."""
    for path in [*tree.rglob("*_ctd.json")]:
        path.unlink()
    lock_tree("bare", tree)

    with pytest.raises(UsageError, match=r"\d+ no_centroid.*around='mask'"):
        vd.load_split("training", release="bare", unit="vertebra", include=("not_assessed",))
    with pytest.raises(UsageError, match=r"'uniform' \(no vertebra has a centroid\)"):
        vd.load_split("training", release="bare", unit="patch", sampling="level", patch_size=16)
    for path in [*tree.rglob("*_msk.nii.gz")]:
        path.unlink()
    lock_tree("naked", tree)
    with pytest.raises(UsageError, match=r"\d+ no_mask.*label=False"):
        vd.load_split("training", release="naked")
