"""The folds of VerSe'19 in the catalog: clean, balanced, and what their command makes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import verse_data as vd
from verse_data.cli.main import app
from verse_data.errors import UsageError
from verse_data.files import locate
from verse_data.releases.catalog import load_catalog
from verse_data.tables.assemble import Tables, tables_of_workbook
from verse_data.tables.folds import Folds, make_folds
from verse_data.tables.leaks import assert_no_leak

NAMES = {f"verse19-k{k}-seed{seed}": (k, seed) for k in (3, 5) for seed in range(5)}
DOCS = Path(__file__).parents[2] / "docs" / "folds.md"
WORKBOOK = "data/verse19/ryai190138_AppendixE1.xlsx"


@pytest.fixture(scope="module")
def expected() -> pd.DataFrame:
    """The 160 series that the catalog expects of VerSe'19."""
    series = load_catalog("verse19").expected
    return pd.DataFrame(
        [(one.scan_id, one.subject_id) for one in series], columns=["scan_id", "subject_id"]
    )


@pytest.fixture
def graded(shared: Path) -> Tables:
    """The tables of the real workbook."""
    return tables_of_workbook(shared / WORKBOOK)


def test_the_catalog_has_these_folds_and_no_others() -> None:
    """For three and five folds, and seeds 0 to 4."""
    assert {path.stem for path in locate("catalog").glob("folds/*")} == {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_folds_of_the_catalog_divide_all_patients_once(expected: pd.DataFrame, name: str) -> None:
    """Read by name: digest, release and numbers are right, and nobody is on two sides."""
    folds = Folds.read(name, expected, release="verse19", lock="sha256:any")

    assert (folds.k, folds.seed) == NAMES[name]
    assert (folds.release, folds.lock) == ("verse19", None)
    for number in range(folds.k):
        assert_no_leak(folds.split(number))
    sizes = [len(part.subjects) for part in folds.parts]
    assert sum(sizes) == 141
    assert max(sizes) - min(sizes) <= 1


def test_the_docs_name_the_digest_of_each(expected: pd.DataFrame) -> None:
    """The table of docs/folds.md is that of the files."""
    listed = re.findall(
        r"^\| `(verse19-k\d-seed\d)` \| `(\w+)` \|$", DOCS.read_text("utf-8"), re.MULTILINE
    )

    assert dict(listed) == {name: Folds.read(name, expected).digest[:12] for name in NAMES}


def test_folds_of_the_catalog_are_made_of_the_published_workbook(graded: Tables, tmp_path) -> None:
    """Every file has the bytes that are made anew; counts of a value differ by 2 at most."""
    tables = graded.scans, graded.vertebrae
    for name, (k, seed) in NAMES.items():
        made = make_folds(*tables, k=k, seed=seed, release="verse19")
        made.write(tmp_path / name)

        assert (tmp_path / name).read_bytes() == (
            locate("catalog") / f"folds/{name}.json"
        ).read_bytes()
        assert made.balance(*tables)["spread"].drop("joint", level="axis").max() <= 2


def test_the_command_writes_the_same_file(shared: Path, tmp_path: Path) -> None:
    """``folds --workbook`` opens no release and needs no data beside the workbook."""
    out = tmp_path / "folds.json"
    words = ["folds", "verse19", "--workbook", str(shared / WORKBOOK), "--k", "3", "--seed", "4"]
    answer = CliRunner().invoke(app, [*words, "--out", str(out)])

    assert answer.exit_code == 0, answer.output
    assert out.read_bytes() == (locate("catalog") / "folds/verse19-k3-seed4.json").read_bytes()


@pytest.mark.filterwarnings("ignore::verse_data.IncompleteTable")
def test_a_release_makes_and_reads_the_same_folds(shared: Path, tmp_path: Path) -> None:
    """Of lock and workbook alone, before a mask is here, ``release.folds`` makes those of the catalog."""
    for series in load_catalog("verse19").expected:
        name = f"sub-{series.scan_id}_seg-vert_snp.png"
        path = (
            tmp_path / f"tree/dataset-verse19{series.split}/rawdata/sub-{series.subject_id}/{name}"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    shutil.copy(shared / WORKBOOK, tmp_path / "tree")
    release = vd.lock_tree("verse19", tmp_path / "tree", check=False)

    for name in ("verse19-k3-seed1", "verse19-k5-seed0"):
        k, seed = NAMES[name]
        assert release.read_folds(name).parts == release.folds(k, seed=seed).parts
    answer = CliRunner().invoke(app, ["folds", "verse19", "--check", "verse19-k3-seed0"])
    assert answer.exit_code == 0, answer.output


def test_an_unknown_name_is_told_with_the_nearest(expected: pd.DataFrame) -> None:
    """Names of the catalog are suggested; a path is never one of them."""
    with pytest.raises(UsageError, match="Did you mean 'verse19-k5-seed0', 'verse19-k5-seed1'"):
        Folds.read("verse19-k5-seed", expected)
    with pytest.raises(UsageError, match=r"No file elsewhere/verse19-k5-seed0\. Write it"):
        Folds.read("elsewhere/verse19-k5-seed0", expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--workbook", "none.xlsx"], "There is no file none.xlsx"),
        (["--workbook", "none.xlsx", "--check", "verse19-k5-seed0"], "give one of the two"),
    ],
)
def test_a_workbook_that_is_not_there_is_told(options: list[str], words: str) -> None:
    """So is the one that is named beside folds to check."""
    answer = CliRunner().invoke(app, ["folds", "verse19", *options])

    assert isinstance(answer.exception, UsageError)
    assert words in str(answer.exception)
