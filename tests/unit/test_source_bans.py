"""No module hands a text or a file to something that would run it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bans import banned, banned_in

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("folder", ["verse_data", "examples", "benchmarks"])
def test_source_runs_nothing_out_of_texts_and_files(folder: str) -> None:
    """No DataFrame.query, no eval, no SQL and no unpickling, in any module."""
    assert list((ROOT / folder).rglob("*.py"))
    assert banned_in(ROOT / folder) == []


@pytest.mark.parametrize(
    "source",
    [
        "table.query('grade > 1')",
        "release.vertebrae.query(where)",
        "table.query(expr=where)",
        "table.eval('a = 1')",
        "pd.eval(where)",
        "eval(where)",
        "exec(where)",
        "cursor.execute(where)",
        "cursor.executescript(where)",
        "pd.read_sql(where, engine)",
        "import sqlite3",
        "import sqlalchemy.orm",
        "from duckdb import sql",
        "pickle.load(stream)",
        "pickle.loads(data)",
        "pickle.Unpickler(stream).load()",
        "from pickle import loads",
        "pd.read_pickle(path)",
        "from pandas import read_pickle",
        "joblib.load(path)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path, weights_only=False)",
        "load(path, weights_only=False)",
        "yaml.load(text)",
        "shelve.open(path)",
        "reader = pickle.load",
    ],
)
def test_control_each_banned_call_is_seen(source: str) -> None:
    """Each of the calls is found, with its line."""
    assert [found.split(":")[0] for found in banned(f"x = 1\n{source}\n")] == ["2"]


@pytest.mark.parametrize(
    "source",
    [
        "network.eval()",
        "app.command('query')(query)",
        "query.select(table, where)",
        "np.load(path, allow_pickle=False)",
        "torch.load(path, weights_only=True)",
        "yaml.safe_load(text)",
        "ast.parse(where, mode='eval')",
    ],
)
def test_what_runs_nothing_is_free(source: str) -> None:
    """Calls that only look alike are not found."""
    assert banned(source) == []
