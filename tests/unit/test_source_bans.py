"""No module hands a text or a file to what would run it, or parses a content that is not hashed."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bans import banned, banned_in
from support.ways import unchecked, unchecked_in

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
        "cKDTree(points).query(others)",
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


UNCHECKED = {
    # Names, presence, sizes and digests of contents, and moving them: nothing is parsed.
    "records/source_file.py": {"object_path"},
    "releases/adopt.py": {"object_path"},
    "releases/repository.py": {"object_path"},
    "releases/annex.py": {"object_path"},
    "releases/siblings.py": {"object_path"},
    "releases/verify.py": {"object_path"},
    # Whether a broken file was replaced, by its times.
    "release.py": {"object_path"},
    # A user's predictions, which no lock lists.
    "predictions/imported.py": {"VolumeStream", "read_mask"},
    "metrics/predicted.py": {"VolumeStream"},
}
"""Modules that may go to contents, and how."""


def test_contents_are_parsed_only_after_their_digest() -> None:
    """No module but the listed ones reaches a content except through what hashes it."""
    found = unchecked_in(ROOT / "verse_data")
    assert found.keys() >= {"releases/repository.py", "releases/verify.py"}
    assert {m for m, ways in found.items() if ways - UNCHECKED.get(m, set())} == set()


@pytest.mark.parametrize(
    "source",
    [
        "store.object_path(file).open('rb')",
        "parse_centroids(file.path.read_bytes(), name='x')",
        "release.source(scan).image.path.open('rb')",
        "read_image(path, name='x')",
        "nifti.read_mask(file.path, name=file.name)",
        "VolumeStream(path, kind='mask', name='x')",
    ],
)
def test_control_each_way_around_the_digest_is_seen(source: str) -> None:
    """Each of the ways that were there is found, with its line."""
    assert [found.split(":")[0] for found in unchecked(f"x = 1\n{source}\n")][:1] == ["2"]


@pytest.mark.parametrize(
    "source",
    ["parse_centroids(file.read(), name='x')", "read_mask(path, name='x', sha256=file.sha256)"],
)
def test_what_is_hashed_is_free(source: str) -> None:
    """Reading through the digest is not found."""
    assert unchecked(source) == []
