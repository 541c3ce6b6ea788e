"""The folds in the catalog, of each edition and of both: clean, balanced, and made anew as they are."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import verse_data as vd
from tests.house.catalog_folds import series_of
from tests.house.catalog_folds import tables as catalog_tables
from verse_data.cli.main import app
from verse_data.errors import UsageError
from verse_data.files import locate
from verse_data.releases.catalog import load_catalog
from verse_data.tables.assemble import Tables, tables_of_workbook
from verse_data.tables.folds import Folds, make_folds, parse_folds
from verse_data.tables.leaks import assert_no_leak

OF = {"verse19": 141, "verse20": 214, "verse19+verse20": 355}
"""Patients of each release, and of both as one."""
NAMES = {f"{of}-k{k}-seed{seed}": (k, seed) for of in OF for k in (3, 5) for seed in range(5)}
DOCS = Path(__file__).parents[2] / "docs" / "folds.md"
WORKBOOK = "data/verse19/ryai190138_AppendixE1.xlsx"


@pytest.fixture(scope="module")
def expected() -> pd.DataFrame:
    """The 160 series that the catalog expects of VerSe'19."""
    return series_of("verse19")


def series(name: str) -> pd.DataFrame:
    """Return the series that the catalog expects of a release, or of several."""
    return pd.concat([series_of(one) for one in name.split("+")], ignore_index=True)


@pytest.fixture
def graded(shared: Path) -> Tables:
    """The tables of the real workbook."""
    return tables_of_workbook(shared / WORKBOOK)


def test_the_catalog_has_these_folds_and_no_others() -> None:
    """For each edition and for both, three and five folds, and seeds 0 to 4."""
    assert {path.stem for path in locate("catalog").glob("folds/*")} == {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_folds_of_the_catalog_divide_all_patients_once(name: str) -> None:
    """Read by name: digest, release and numbers are right, and nobody is on two sides."""
    release = name.split("-", maxsplit=1)[0]
    folds = Folds.read(name, series(release), release=release, lock="sha256:any")

    assert (folds.k, folds.seed) == NAMES[name]
    assert (folds.release, folds.lock) == (release, None)
    for number in range(folds.k):
        assert_no_leak(folds.split(number))
    sizes = [len(part.subjects) for part in folds.parts]
    assert sum(sizes) == OF[release]
    assert max(sizes) - min(sizes) <= (3 if "+" in name else 1)


def test_the_docs_name_the_digest_of_each() -> None:
    """The table of docs/folds.md is that of the files."""
    listed = re.findall(
        r"^\| `(verse[\d+a-z]*-k\d-seed\d)` \| `(\w+)` \|$", DOCS.read_text("utf-8"), re.MULTILINE
    )

    assert dict(listed) == {name: parse_folds(Path(name)).digest[:12] for name in NAMES}


def test_folds_of_the_catalog_are_made_of_the_published_workbook(graded: Tables, tmp_path) -> None:
    """Every file has the bytes that are made anew; counts of a value differ by 2 at most."""
    tables = graded.scans, graded.vertebrae
    for name, (k, seed) in [one for one in NAMES.items() if one[0].startswith("verse19-")]:
        made = make_folds(*tables, k=k, seed=seed, release="verse19")
        made.write(tmp_path / name)

        assert (tmp_path / name).read_bytes() == (
            locate("catalog") / f"folds/{name}.json"
        ).read_bytes()
        assert made.balance(*tables)["spread"].drop("joint", level="axis").max() <= 2


@pytest.mark.parametrize(("name", "most"), [("verse20", 1), ("verse19+verse20", 4)])
def test_folds_with_the_second_edition_are_made_of_what_is_published(
    shared: Path, tmp_path: Path, name: str, most: int
) -> None:
    """Of the list of series, and of the workbook for VerSe'19; the file has the bytes made anew."""
    scans, rows, columns = catalog_tables(name, shared / WORKBOOK)
    made = make_folds(scans, rows, k=5, seed=0, stratify=columns, release=name)
    made.write(tmp_path / "folds.json")

    written = locate("catalog") / f"folds/{name}-k5-seed0.json"
    assert (tmp_path / "folds.json").read_bytes() == written.read_bytes()
    spread = made.balance(scans, rows)["spread"]
    assert spread.drop("joint", level="axis").max() <= most


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
