"""Writes tables as Parquet, which keeps types and descriptions, or CSV, which spreadsheets open."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd

from verse_data.errors import UsageError
from verse_data.files import storage_errors, write_file
from verse_data.tables.columns import MODELS, columns

DECIMALS: Final = 6  # of a number that is written as text
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose numbers are as precise as text gives them."""
    return table.assign(**table.select_dtypes("float").round(DECIMALS) + 0.0)  # no -0.0


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as plain values; missing is None."""
    cells: Any = table.astype(object)
    rows: list[dict[str, Any]] = cells.where(cells.notna(), None).to_dict(orient="records")
    return rows


def csv_text(table: pd.DataFrame) -> str:
    """Return `table` as CSV with a heading; missing cells are empty.

    A text that a spreadsheet would take for a formula gets an apostrophe in front, which is how
    spreadsheets write "this is text". Numbers have six decimals at most, nanometres: ``-1.7``, where
    arithmetic left ``-1.7000000000000028``. Parquet keeps them to the last bit.
    """

    def as_text(value: Any) -> Any:
        is_formula = isinstance(value, str) and value.startswith(_FORMULA_STARTS)
        return f"'{value}" if is_formula else value

    safe = table.round(DECIMALS).astype(object).map(as_text)
    text: str = safe.to_csv(index=False, lineterminator="\n")
    # Before Python 3.13, csv leaves a lone carriage return unquoted, and readers end the row.
    if "\r" in text:
        text = safe.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    return text


def write_table(
    table: pd.DataFrame, path: Path, *, name: str, attributes: Mapping[str, Any] | None = None
) -> Path:
    """Write `table` atomically to `path`, in the format of its extension.

    Parquet also keeps the meaning, unit and source of the columns of the table called `name`, and
    the `attributes`, such as release, version, lock digest and licence.
    """
    ending = path.suffix.lower()
    if ending not in {".csv", ".parquet"}:
        raise UsageError(f"{path}: a table is written as .parquet or .csv; use such an extension.")
    is_csv = ending == ".csv"
    content = csv_text(table).encode() if is_csv else _parquet(table, name, attributes or {})
    with storage_errors(path):
        write_file(path, content)
    return path


def _parquet(table: pd.DataFrame, name: str, attributes: Mapping[str, Any]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    about: dict[str, dict[str, str]] = {}
    for column in columns(name) if name in MODELS else ():
        about[column.name] = {"description": column.description, "source": column.source}
        if column.unit:
            about[column.name]["unit"] = column.unit
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    fields = [field.with_metadata(about.get(field.name, {})) for field in arrow.schema]
    own = json.dumps({"table": name, **attributes}, default=str)
    metadata = {**(arrow.schema.metadata or {}), b"verse_data": own.encode()}
    stream = io.BytesIO()
    pq.write_table(arrow.cast(pa.schema(fields, metadata=metadata)), stream)
    return stream.getvalue()
