"""Tables as Parquet and CSV, and the JSON Schemas of the records."""

from __future__ import annotations

import csv
import errno
import importlib.metadata
import io
import json
import re
from pathlib import Path

import jsonschema
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.support import workbooks
from tests.support.releases import tables, write_scan
from tests.support.workbooks import row
from verse_data.errors import PermissionDenied, UsageError
from verse_data.files import locate, storage_errors
from verse_data.tables import schemas
from verse_data.tables.assemble import Tables
from verse_data.tables.columns import MODELS, columns
from verse_data.tables.export import csv_text, write_table

ROOT = Path(__file__).parents[2]


@pytest.fixture
def made(tmp_path: Path) -> Tables:
    """Tables of two scans, one of them with T13 and without a grade."""
    root = tmp_path / "tree"
    write_scan(root, "verse004", [17, 18, 19, 20, 21, 22, 23])
    write_scan(root, "verse005", [19, 28, 20])
    workbooks.write_csv(root / "grading.csv", [row(4)])
    return tables(root)


def test_parquet_keeps_every_value_and_type(made: Tables, tmp_path: Path) -> None:
    """Written and read back, each table is the same: missing values, categories and their order too."""
    for name in (*MODELS, "findings"):
        frame = getattr(made, name)
        path = write_table(frame, tmp_path / f"{name}.parquet", name=name)
        pd.testing.assert_frame_equal(pd.read_parquet(path), frame)


def test_empty_tables_keep_their_types(tmp_path: Path) -> None:
    """Tables of a release of which nothing is here have all columns, no rows, and round-trip."""
    root = tmp_path / "tree"
    write_scan(root, "verse004", [20])
    bare = tables(root, without=".")

    assert len(bare.vertebrae) == 0
    for name in (*MODELS, "findings"):
        frame = getattr(bare, name)
        path = write_table(frame, tmp_path / f"{name}.parquet", name=name)
        # Parquet stores no words of a category column that has no rows.
        pd.testing.assert_frame_equal(
            pd.read_parquet(path), frame, check_categorical=len(frame) > 0
        )
        assert csv_text(frame).startswith(",".join(frame.columns))


def test_parquet_says_what_its_columns_mean(made: Tables, tmp_path: Path) -> None:
    """Description, unit and source of each column, and where the table comes from, are in the file."""
    about = {"release": "verse19", "version": "v1", "licence": "CC-BY-SA-4.0"}
    path = write_table(made.vertebrae, tmp_path / "v.parquet", name="vertebrae", attributes=about)
    schema = pq.read_schema(path)

    for column in columns("vertebrae"):
        said = schema.field(column.name).metadata
        assert said[b"description"].decode() == column.description
        assert said.get(b"unit", b"").decode() == (column.unit or "")
    assert json.loads(schema.metadata[b"verse_data"]) == {"table": "vertebrae", **about}


def test_csv_has_a_heading_and_empty_fields_for_missing(made: Tables) -> None:
    """Read back as text, each cell is what the table says."""
    lines = list(csv.DictReader(io.StringIO(csv_text(made.vertebrae))))

    assert list(lines[0]) == list(made.vertebrae.columns)
    assert len(lines) == len(made.vertebrae)
    ungraded = [line for line in lines if line["scan_id"] == "verse005"]
    assert {(line["grade"], line["fracture_type"]) for line in ungraded} == {("", "")}
    assert [line["level"] for line in ungraded] == ["T12", "T13", "L1"]


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("x")']
)
def test_no_text_becomes_a_formula(text: str) -> None:
    """A text that a spreadsheet would run gets an apostrophe; negative numbers stay numbers."""
    table = pd.DataFrame({"name": pd.Series([text, "plain"], dtype="string"), "x": [-1.5, 2.0]})
    lines = list(csv.DictReader(io.StringIO(csv_text(table), newline="")))

    assert [line["name"] for line in lines] == [f"'{text}", "plain"]
    assert [line["x"] for line in lines] == ["-1.5", "2.0"]


def test_control_plain_pandas_writes_the_formula() -> None:
    """Control: without the guard, the cell starts with the formula."""
    table = pd.DataFrame({"name": ["=1+1"]})

    assert "=1+1" in table.to_csv(index=False).splitlines()


def test_an_unknown_ending_writes_nothing(made: Tables, tmp_path: Path) -> None:
    """Only .parquet and .csv are written; nothing half-written is left."""
    with pytest.raises(UsageError, match=r"\.parquet or \.csv"):
        write_table(made.scans, tmp_path / "out" / "scans.xlsx", name="scans")
    assert not (tmp_path / "out").exists()


def test_generated_schemas_are_the_committed_ones() -> None:
    """Under the locked Pydantic, the models give exactly the files in schemas/."""
    locked = re.search(r"^pydantic==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert locked
    if importlib.metadata.version("pydantic") != locked[1]:
        pytest.skip(f"schemas are generated under pydantic {locked[1]}: this is another")
    assert schemas.check(locate("schemas")) == []


def test_every_field_says_what_it_is() -> None:
    """Each field of each schema has a description and a source; each schema has $schema and $id."""
    for name in schemas.MODELS:
        schema = json.loads(schemas.render(name))
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["$schema"] == schemas.DIALECT
        assert schema["$id"] == f"urn:verse-data:schema:{name}:{schemas.SCHEMA_VERSION}"
        for part in (schema, *schema.get("$defs", {}).values()):
            for field, said in part.get("properties", {}).items():
                assert said.get("description"), f"{name}: {field}"
                assert said.get("source"), f"{name}: {field}"
            assert part.get("additionalProperties", False) is False


@pytest.mark.parametrize(
    ("name", "part", "field", "unit"),
    [
        ("recipe", "", "spacing", "mm"),
        ("release_lock", "LockedFile", "size", "byte"),
        ("store_manifest", "StoredKey", "size", "byte"),
        ("store_manifest", "StoredArray", "shape", "voxel"),
        ("store_manifest", "StoredArray", "chunk", "voxel"),
        ("catalog_entry", "Supplement", "size", "byte"),
        ("scan", "", "age_years", "year"),
        ("centroid", "", "X", "voxel"),
    ],
)
def test_quantities_have_units_in_the_schemas(name: str, part: str, field: str, unit: str) -> None:
    """A size, a spacing, a shape, an age say what they are counted in, as data and not in prose."""
    schema = json.loads(schemas.render(name))
    owner = schema["$defs"][part] if part else schema

    assert owner["properties"][field]["unit"] == unit


def test_models_are_strict_and_frozen() -> None:
    """No model coerces, changes or takes unknown fields."""
    for name in schemas.MODELS:
        settings = schemas.model(name).model_config
        assert settings["strict"], name
        assert settings["frozen"], name
        assert settings["extra"] == "forbid", name
        assert settings["allow_inf_nan"] is False, name


def test_rows_of_the_tables_obey_the_schemas(made: Tables) -> None:
    """An independent validator accepts every row, and refuses a row with a wrong grade."""
    for name, table in (
        ("vertebra", made.vertebrae),
        ("scan", made.scans),
        ("subject", made.subjects),
    ):
        validator = jsonschema.Draft202012Validator(json.loads(schemas.render(name)))
        rows = json.loads(table.to_json(orient="records"))
        for values in rows:
            validator.validate(values)
    bad = {**json.loads(made.vertebrae.to_json(orient="records"))[0], "grade": 5}
    schema = json.loads(schemas.render("vertebra"))
    assert not jsonschema.Draft202012Validator(schema).is_valid(bad)


def test_a_published_schema_never_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After publishing, a changed file is found, and a changed model is refused until the version moves."""
    schemas.publish(tmp_path)
    assert schemas.check(tmp_path) == []
    path = tmp_path / schemas.SCHEMA_VERSION / "scan.schema.json"
    content = path.read_bytes()

    path.write_bytes(content.replace(b"CT series", b"scan", 1))
    assert [
        problem for problem in schemas.check(tmp_path) if "published and has changed" in problem
    ]
    path.write_bytes(content)

    monkeypatch.setitem(schemas.MODELS, "scan", schemas.MODELS["subject"])
    with pytest.raises(UsageError, match=r"scan\.schema\.json of version \S+ has been published"):
        schemas.write(tmp_path)
    assert path.read_bytes() == content
    monkeypatch.setattr(schemas, "SCHEMA_VERSION", "99.0.0")
    assert (tmp_path / "99.0.0" / "scan.schema.json") in schemas.write(tmp_path)


def test_a_place_that_may_not_be_written_is_a_matter_of_its_path() -> None:
    """Whoever named the file of a table can name another; the root is only that of releases."""
    told = r"out\.csv may not be .* or give a path of yours \(for releases: VERSE_DATA_HOME\)"
    with pytest.raises(PermissionDenied, match=told), storage_errors(Path("out.csv")):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_missing_and_stale_schemas_are_named(tmp_path: Path) -> None:
    """The check says for each file what to type."""
    assert len(schemas.check(tmp_path)) == len(schemas.MODELS)
    schemas.write(tmp_path)
    assert schemas.write(tmp_path) == []
    (tmp_path / schemas.SCHEMA_VERSION / "scan.schema.json").write_text("{}")

    assert [problem.split(" is ")[1] for problem in schemas.check(tmp_path)] == [
        "not up to date with the model: verse-data schemas write"
    ]
