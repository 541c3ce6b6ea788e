"""The tables from the command line, and the real workbook through it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from tests.support import workbooks
from tests.support.releases import write_scan
from tests.support.workbooks import row
from verse_data import api
from verse_data.cli.main import app
from verse_data.errors import UsageError, ValidationFailed
from verse_data.releases.catalog import load_catalog
from verse_data.tables.schemas import SCHEMA_VERSION

REAL = Path(__file__).parents[3] / "shared/data/verse19/ryai190138_AppendixE1.xlsx"


def run(*words: str) -> Result:
    """Run one command; an error of ours comes back as the result's exception."""
    return CliRunner().invoke(app, list(words))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache root with a release called lab: two scans with a workbook."""
    folder = tmp_path_factory.mktemp("lab")
    tree = folder / "tree"
    write_scan(tree, "verse004", [17, 18, 19, 20, 21, 22, 24])
    write_scan(tree, "verse005", [20], split="test")
    workbooks.write_csv(tree / "grading.csv", [row(4), row(5, dataset="test secret")])
    api.lock_tree("lab", tree, root=folder / "home")
    return folder / "home"


def test_a_table_is_exported(root: Path, tmp_path: Path) -> None:
    """--out writes Parquet or CSV; without it the table is CSV on stdout, and only that."""
    out = tmp_path / "v.parquet"
    assert run("table", "lab", "--out", str(out), "--root", str(root)).exit_code == 0
    frame = pd.read_parquet(out)
    printed = run("table", "lab", "scans", "--root", str(root))

    assert len(frame) == 15
    assert printed.stdout.splitlines()[0].startswith("scan_id,subject_id,")
    assert len(printed.stdout.splitlines()) == 3
    some = run("table", "lab", "--where", "grade == 2", "--root", str(root))
    assert [row["level"] for row in csv.DictReader(some.stdout.splitlines())] == ["L1", "L1"]


def test_findings_are_listed(root: Path) -> None:
    """As lines for people, and as JSON."""
    plain = run("findings", "lab", "--root", str(root))
    rows = json.loads(run("findings", "lab", "--json", "--root", str(root)).stdout)

    assert "grade-without-mask" in plain.stdout
    assert ("grade-without-mask", "verse004", "L4") in {
        (r["rule"], r["scan_id"], r["level"]) for r in rows
    }


def test_findings_are_a_table_like_the_others(root: Path, tmp_path: Path) -> None:
    """They are exported, chosen by a condition and by column, and a name that they lack is refused."""
    where = ["--where", "severity == 'warning'", "--root", str(root)]
    found = api.open_release("lab", root=root).findings
    chosen = found[found["severity"] == "warning"]

    for name in ("f.csv", "f.parquet"):
        run("table", "lab", "findings", "--out", str(tmp_path / name), *where)
    asked = ["query", "lab", "--table", "findings", "--columns"]
    said = run(*asked, "rule", "--root", str(root)).stdout.split()
    wrong = run(*asked, "rules", "--root", str(root)).exception

    assert pd.read_csv(tmp_path / "f.csv")["message"].tolist() == chosen["message"].tolist()
    assert pd.read_parquet(tmp_path / "f.parquet")["rule"].tolist() == chosen["rule"].tolist()
    assert said == ["rule", *found["rule"]]
    assert "The table findings has no column 'rules'. Did you mean 'rule'?" in str(wrong)


def test_columns_are_explained() -> None:
    """Every column of every table, with type, unit, meaning and source."""
    value = json.loads(run("columns", "--json").stdout)

    assert set(value) == {"scans", "vertebrae", "subjects"}
    assert all(c["description"] and c["source"] for rows in value.values() for c in rows)
    assert "bmd_mg_cm3" in run("columns", "subjects").stdout


def test_the_report_needs_only_the_workbook(tmp_path: Path) -> None:
    """Report verse19 --workbook FILE --json: 68 cells agree, without any release on the machine."""
    if not REAL.exists():
        pytest.skip(f"the real workbook is not at {REAL}: this test needs it")
    patients = tmp_path / "patients.csv"
    patients.write_text("subject_id,sex\nverse004,F\n")
    words = ("report", "verse19", "--workbook", str(REAL), "--patients", str(patients))
    value = json.loads(run(*words, "--json").stdout)
    shown = run(*words)

    assert value["counts"] == {"agrees": 68, "differs": 0, "needs": 28}
    assert shown.exit_code == 0
    assert "1725 = 1725" in shown.stdout
    assert "sex of 140 patients" in shown.stderr
    assert not (tmp_path / "verse-home").exists(), "nothing was written"


def test_a_report_that_differs_ends_with_code_3(tmp_path: Path) -> None:
    """Another workbook shows its numbers beside the published ones, and fails."""
    book = workbooks.write_csv(tmp_path / "grades.csv", [row(4)])
    result = run("report", "verse19", "--workbook", str(book))

    assert "160 ≠ 1" in result.stdout
    assert isinstance(result.exception, ValidationFailed)
    assert "published figures of verse19 differ" in str(result.exception)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("subject_id,sex\nverse004,X\n", "row 2, column sex"),
        ("subject_id,sex\nverse004\n", "row 2"),
        ("subject,sex\n4,F\n", "row 1"),
        ("subject_id,sex\n4,\xfc\n", "not a CSV file in UTF-8"),
    ],
)
def test_a_report_names_the_file_with_the_wrong_row(text: str, where: str, tmp_path: Path) -> None:
    """Also where the workbook and the patient table are files of the same name."""
    (tmp_path / "grades").mkdir()
    book = workbooks.write_csv(tmp_path / "grades" / "data.csv", [row(4)])
    patients = tmp_path / "data.csv"
    patients.write_bytes(text.encode("latin1"))
    result = run("report", "verse19", "--workbook", str(book), "--patients", str(patients))

    assert isinstance(result.exception, ValidationFailed)
    assert str(patients) in str(result.exception)
    assert where in str(result.exception)
    assert str(book) not in str(result.exception)

    book.write_text(book.read_text().replace("training", "nowhere"))
    wrong = run("report", "verse19", "--workbook", str(book), "--patients", str(patients))
    assert f"{book}, row 2" in str(wrong.exception)


def test_a_report_blames_the_file_that_a_figure_comes_from(tmp_path: Path) -> None:
    """Sex is checked in the patient table, and all else in the workbook that was given."""
    if not REAL.exists():
        pytest.skip(f"the real workbook is not at {REAL}: this test needs it")
    patients = tmp_path / "patients.csv"
    known = [known.subject_id for known in load_catalog("verse19").expected]
    patients.write_text("subject_id,sex\n" + "".join(f"{name},F\n" for name in set(known)))
    words = ("report", "verse19", "--patients", str(patients), "--workbook")
    real = run(*words, str(REAL))
    other = run(*words, str(workbooks.write_csv(tmp_path / "grades.csv", [row(4)])))

    assert str(real.exception).endswith(f"Check the sex in {patients}.")
    assert str(other.exception).endswith(f"the published one: {tmp_path / 'grades.csv'}")
    assert "verse-data get verse19 --role centroids" in real.stderr


def test_a_report_without_published_figures_describes_what_is_there(tmp_path: Path) -> None:
    """Numbers are found and not compared, and nothing is asked for, where nothing was published."""
    workbook = workbooks.write_csv(tmp_path / "grading.csv", [row(4)])
    for name, near in (("phantom", ""), ("vers19", " Did you mean 'verse19'?")):
        answer = run("report", name, "--workbook", str(workbook))
        assert answer.exit_code == 0
        assert "patients" in answer.stdout
        assert "published" not in answer.stdout
        assert answer.stderr == f"The catalog holds no published figures of {name}.{near}\n"


@pytest.mark.filterwarnings("ignore::verse_data.IncompleteTable")
def test_a_report_of_masks_alone_prints_no_empty_table(tmp_path: Path) -> None:
    """Without grades no number is found; the page still counts what is there."""
    write_scan(tmp_path / "tree", "verse900", [20])
    api.lock_tree("mylab", tmp_path / "tree", root=tmp_path)
    page = tmp_path / "report.html"
    answer = run("report", "mylab", "--root", str(tmp_path), "--html", str(page))
    assert (answer.exit_code, answer.stdout) == (0, "")
    assert "1 vertebra" in page.read_text(encoding="utf-8")


def test_only_the_published_workbook_has_its_licence(tmp_path: Path) -> None:
    """That of another one is not stated; the publication is cited where its numbers are compared."""
    pages = {}
    for name, book in (
        ("verse19", workbooks.write_csv(tmp_path / "grades.csv", [row(4)])),
        ("lab", tmp_path / "grades.csv"),
        *((("verse19", REAL),) if REAL.exists() else ()),
    ):
        page = tmp_path / "report.html"
        run("report", name, "--workbook", str(book), "--html", str(page))
        pages[name, book.name] = page.read_text(encoding="utf-8")

    others = [text for (_, book), text in pages.items() if book == "grades.csv"]
    assert ["licence</th>" in text and "not stated" in text for text in others] == [True, True]
    assert ["CC-BY-SA" in text or "CC BY" in text for text in others] == [False, False]
    assert ["doi:10.1148" in text for text in others] == [True, False]
    assert all("CC-BY-SA-4.0" in text for (_, book), text in pages.items() if book == REAL.name)


def test_schemas_are_listed_shown_checked_and_written(tmp_path: Path) -> None:
    """The four verbs of schemas."""
    names = run("schemas", "list").stdout.split()
    assert "vertebra" in names
    assert json.loads(run("schemas", "show", "vertebra").stdout)["title"] == "VertebraRecord"
    assert run("schemas", "write", "--folder", str(tmp_path)).exit_code == 0
    assert run("schemas", "check", "--folder", str(tmp_path)).exit_code == 0
    (tmp_path / SCHEMA_VERSION / "scan.schema.json").unlink()
    assert isinstance(
        run("schemas", "check", "--folder", str(tmp_path)).exception, ValidationFailed
    )


def test_a_report_is_written_as_a_page_for_any_release(root: Path, tmp_path: Path) -> None:
    """Also for a release that the catalog does not know; with its lock, and what it holds."""
    page = tmp_path / "report.html"
    answer = run("report", "lab", "--html", str(page), "--root", str(root))

    assert answer.exit_code == 0, answer.exception
    assert f"Wrote {page}" in answer.stderr
    text = page.read_text(encoding="utf-8")
    assert f"sha256:{api.open_release('lab', root=root).lock.digest}" in text
    assert "lab v1: 2 patients, 2 CT series" in text
    assert text.count("<svg") == 5


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("folder.html", "folder.html is no plain file"),
        ("report.xlsx", "ends in .html or .htm, such as name.html"),
        (".html", "ends in .html"),
        ("device.html", "device.html is no plain file"),
        ("file.html/report.html", "file.html is no folder"),
    ],
)
def test_a_page_is_written_where_a_page_can_be(tmp_path: Path, name: str, why: str) -> None:
    """Anything else is refused before a release is looked for, and stays as it is."""
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file.html").touch()
    (tmp_path / "device.html").symlink_to("/dev/null")
    before = sorted(tmp_path.iterdir())
    answer = run("report", "lab", "--html", str(tmp_path / name))

    assert isinstance(answer.exception, UsageError)
    assert why in str(answer.exception)
    assert sorted(tmp_path.iterdir()) == before
