"""Tables as files: Parquet, which keeps types and meaning, and CSV, which spreadsheets open."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import pandas as pd

from verse_data.errors import UsageError
from verse_data.files import staging, storage_errors, sync_file, write_file
from verse_data.tables.columns import MODELS, columns

DECIMALS: Final = 6  # of a number that is written as text
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


def csv_text(table: pd.DataFrame) -> str:
    """Return `table` as CSV with a heading; missing cells are empty.

    A text that a spreadsheet would take for a formula gets an apostrophe in front, which is how
    spreadsheets write "this is text". Numbers have six decimals at most, nanometres: ``-1.7``, where
    arithmetic left ``-1.7000000000000028``. Parquet keeps them to the last bit.
    """
    safe = table.round(DECIMALS)
    quoting: Literal[0, 2] = csv.QUOTE_MINIMAL
    for name in safe.columns:
        cells = safe[name].astype(object)
        texts = [value for value in cells if isinstance(value, str)]
        if any(text.startswith(_FORMULA_STARTS) for text in texts):
            safe[name] = [_as_text(value) for value in cells]
        # Before Python 3.13, csv leaves a lone carriage return unquoted, and readers end the row.
        if any("\r" in text for text in texts):
            quoting = csv.QUOTE_NONNUMERIC
    text: str = safe.to_csv(index=False, lineterminator="\n", quoting=quoting)
    return text


def _as_text(value: Any) -> Any:
    is_formula = isinstance(value, str) and value.startswith(_FORMULA_STARTS)
    return f"'{value}" if is_formula else value


def write_table(
    table: pd.DataFrame, path: Path, *, name: str, attributes: Mapping[str, Any] | None = None
) -> Path:
    """Write `table` to `path`, whole or not at all; the ending says how.

    Into Parquet go the meaning, unit and source of the columns of the table called `name`, and the
    `attributes`, such as release, version, lock digest and licence.
    """
    ending = path.suffix.lower()
    if ending == ".csv":
        with storage_errors(path):
            write_file(path, csv_text(table).encode())
    elif ending == ".parquet":
        _write_parquet(table, path, name, attributes or {})
    else:
        raise UsageError(f"{path}: a table is written as .parquet or .csv, told by the ending.")
    return path


def _write_parquet(
    table: pd.DataFrame, path: Path, name: str, attributes: Mapping[str, Any]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = pa.Table.from_pandas(table, preserve_index=False)
    known = {column.name: column for column in columns(name)} if name in MODELS else {}
    fields = []
    for field in arrow.schema:
        column = known.get(field.name)
        about = {"description": column.description, "source": column.source} if column else {}
        if column and column.unit:
            about["unit"] = column.unit
        fields.append(field.with_metadata(about))
    own = {b"verse_data": json.dumps({"table": name, **attributes}, default=str).encode()}
    metadata = {**(arrow.schema.metadata or {}), **own}
    with staging(path) as staged:
        with staged.open("wb") as stream:
            pq.write_table(arrow.cast(pa.schema(fields, metadata=metadata)), stream)
            sync_file(stream)
        staged.replace(path)
