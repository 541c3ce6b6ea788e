"""Drill 21: hostile and random queries run nothing, open nothing and end at once."""

from __future__ import annotations

import gc
import random
import re
import string
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from verse_data.errors import QueryRefused
from verse_data.spine.levels import LEVELS
from verse_data.tables.query import select

# What the interpreter reports when something is opened, started, loaded or run. `compile` is left
# out: parsing text reports it as well.
WATCHED = ("open", "os.", "subprocess.", "socket.", "exec", "import", "shutil.", "ctypes.", "code.")
SECONDS = 0.1

QUERY_WORDS = """
grade level scan_id foreign_material bmd_mg_cm3 missing fracture.any fracture.moderate and or not in
( ) [ ] , == != < <= > >= - 0 1 2.5 'T12' 'L1' 'verse004' True False
""".split()  # noqa: SIM905 - readable
OTHER_WORDS = "None is lambda if . : = * ** @ # \\ { } __class__ __import__('os') open".split()  # noqa: SIM905 - readable

_seen: list[str] = []
_watching = False


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if _watching and event.startswith(WATCHED):
        _seen.append(f"{event} {arguments!r:.80}")


@contextmanager
def watched() -> Iterator[list[str]]:
    """Collect what the interpreter opens, starts, loads or runs meanwhile."""
    global _watching  # noqa: PLW0603 - an audit hook cannot be taken away, only switched off
    if not getattr(sys, "_verse_data_drill_21", False):
        sys.addaudithook(_watch)
        sys._verse_data_drill_21 = True  # type: ignore[attr-defined]
    _seen.clear()
    _watching = True
    try:
        yield _seen
    finally:
        _watching = False


@pytest.fixture
def table() -> pd.DataFrame:
    """Return a few vertebrae; one query is run, so that pandas has loaded what it loads late."""
    table = pd.DataFrame(
        {
            "scan_id": ["verse004", "verse004", "gl003"],
            "level": pd.Categorical(["T11", "L1", "C2"], LEVELS, ordered=True),
            "grade": pd.array([0, 2, None], dtype="Int8"),
            "foreign_material": pd.array([False, True, None], dtype="boolean"),
            "bmd_mg_cm3": pd.array([80.0, 0.0, None], dtype="Float64"),
        }
    )
    select(
        table, "level in ['T11'] and foreign_material and scan_id in ['gl003'] and missing(grade)"
    )
    with pytest.raises(QueryRefused):
        select(table, "gr\u0430de")
    return table


def hostile(marker: Path) -> list[str]:
    """Return more than 100 queries that try to run code, reach files, hang or confuse."""
    touch = f"open('{marker}', 'w')"
    system = f"__import__('os').system('touch {marker}')"
    columns = ["grade", "level", "scan_id", "foreign_material"]
    calls = [
        touch,
        system,
        f"exec({system!r})",
        f"eval({system!r})",
        f"compile({system!r}, 'x', 'eval')",
        f"@{system}",
        f"@pd.io.common.os.system('touch {marker}')",
        "().__class__.__base__.__subclasses__()",
        "''.__class__.__mro__[1].__subclasses__()",
        "[].__class__",
        "getattr(grade, 'to_csv')('x')",
        "breakpoint()",
        "exit()",
        "quit()",
        "input()",
        "help()",
        "globals()",
        "locals()",
        "vars()",
        "dir()",
        "print(grade)",
        "memoryview(b'x')",
        "type('X', (), {})",
        "object.__subclasses__()",
        "__builtins__",
        "__import__",
        "__name__ == '__main__'",
        "missing.__globals__",
        "missing.__call__(grade)",
        "missing(grade).__class__",
        "missing(*[grade])",
        "missing(**{'a': 1})",
        f"missing({touch})",
        "missing(missing(grade))",
        "missing(missing)",
        "missing()",
        "fracture.__class__",
        "fracture.any.__class__",
        "fracture.any()",
        "fracture",
        "(fracture).any",
    ]
    attributes = [
        "to_csv('{marker}')",
        "to_pickle('{marker}')",
        "apply(print)",
        "agg('to_csv', path_or_buf='{marker}')",
        "values",
        "__class__",
        "__array__()",
        "map(len)",
        "str.len()",
    ]
    methods = [
        f"{column}.{call}".replace("{marker}", str(marker))
        for column in columns
        for call in attributes
    ]
    shapes = [
        "lambda: 1",
        "(lambda: grade)()",
        "[x for x in grade]",
        "{x for x in grade}",
        "{'a': 1}",
        "(x for x in grade)",
        "grade if grade else level",
        "(grade := 2)",
        "grade[0]",
        "grade[0:1]",
        "level in [level]",
        "level in [[1]]",
        "level in [x for x in level]",
        "level in [*level]",
        "f'{grade}' == 'x'",
        "f'{" + system.replace("'", '"') + "}' == 'x'",
        "b'x' == scan_id",
        "r'x' == scan_id",
        "'a' 'b' == scan_id",
        "'''a''' == scan_id",
        "'\\x41' == scan_id",
        "scan_id == '\\N{LATIN SMALL LETTER A}'",
        "grade + 1 == 2",
        "9 ** 9 ** 9 ** 9 > grade",
        "bmd_mg_cm3 ** 9 ** 9 ** 9 > 1",
        "grade << 999999999 > 1",
        "'a' * 999999999 == scan_id",
        "1e999 > grade",
        "9" * 3000 + " > grade",
        "1j > grade",
        "0x7f > grade",
        "1_000 > grade",
        "nan > grade",
        "grade > ...",
        "grade is not None",
        "await grade",
        "yield grade",
        "import os",
        "del grade",
        "grade = 2",
        "grade >= 2; import os",
        f"grade >= 2\n{system}",
        f"grade >= 2 # \n and {system}",
        "grade >= 2 \\\n and level == 'T1'",
        "grade >= 2)",
        "(" * 3000,
        "[" * 3000,
        "(" * 1500 + "grade" + ")" * 1500,
        "level in " + "[" * 200 + "]" * 200,
        "not " * 900 + "missing(grade)",
        "-" * 3000 + "1 > grade",
        "grade < " * 450 + "1",
        "missing(grade) or " * 250 + "missing(grade)",
        f"grade in [{', '.join('1' * 900)}]",
        "x" * 4001,
        "x" * 100_000,
        "\x00",
        "grade >= 2\x00",
        "\ud800 > grade",
        "scan_id == '\ud800'",
        "\u202egrade >= 2",
        "gr\u00e0de >= 2",
        "gr\u0430de >= 2",
        "\uff47\uff52\uff41\uff44\uff45 >= 2",
        "grade \uff1e= 2",
        "\u01f0 > 2",
        "grade\u200b >= 2",
        "grade\u00a0>= 2",
        "grade >= \u0662",
        "\ufeffgrade >= 2",
        "scan_id == '\x1b[31m'",
        "'; DROP TABLE vertebrae; --",
        "1=1",
        "1 OR 1=1",
        "' or '1'='1",
        "grade >= (SELECT 2)",
        "read_csv('/etc/passwd')",
        "scan_id like '%'",
        "scan_id matches '(a+)+$'",
        "${HOME}",
        "`id`",
        "$(id)",
        "%s%s%s%n",
        "../../etc/passwd",
        "__class__",
        "None",
        "True",
        "2",
        "'text'",
        "[]",
        "...",
        "grade >=",
        ">= 2",
        "and",
        "not",
        "in",
    ]
    return [*calls, *methods, *shapes]


def random_queries(number: int) -> Iterator[str]:
    """Yield random texts: of query words, of broken queries, and of any characters."""
    draw = random.Random(21)
    words = [*QUERY_WORDS, *OTHER_WORDS]
    good = "grade >= 2 and level in ['T12', 'L1'] or not (foreign_material and missing(bmd_mg_cm3))"
    strange = string.printable + "\u0430\uff47\u202e\u0662\ud800\x00"
    for turn in range(number):
        if turn % 3 == 0:
            yield " ".join(draw.choices(words, k=draw.randint(1, 40)))
        elif turn % 3 == 1:
            letters = list(good)
            for _ in range(draw.randint(1, 4)):
                letters[draw.randrange(len(letters))] = draw.choice(["", *strange])
            yield "".join(letters)
        else:
            yield "".join(draw.choices(strange, k=draw.randint(1, 200)))


def ask(
    table: pd.DataFrame, where: str, *, by: Callable[[pd.DataFrame, str], object] = select
) -> bool:
    """Run one query within the time limit; return whether it was accepted.

    What counts is the processor's time of this thread, so that a busy machine cannot be told from
    an idle one, and one query beyond the limit decides. The collector is off meanwhile: how long
    it takes depends on everything that the tests before this one have left.
    """
    gc.disable()
    start = time.thread_time()
    try:
        by(table, where)
    except QueryRefused:
        accepted = False
    else:
        accepted = True
    finally:
        seconds = time.thread_time() - start
        gc.enable()
    assert seconds < SECONDS, f"{where[:80]!r} took {seconds:.3f} s"
    return accepted


def test_hostile_queries_are_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    """More than 100 hostile texts are refused, each at once; nothing is run or opened."""
    marker = tmp_path / "marker"
    texts = hostile(marker)
    assert len(set(texts)) >= 100

    with watched() as seen:
        accepted = [text for text in texts if ask(table, text)]

    assert accepted == []
    assert seen == []
    assert not marker.exists()


def test_random_queries_do_nothing_but_answer(table: pd.DataFrame) -> None:
    """5,000 random texts are answered or refused, each at once; nothing is run or opened."""
    texts = list(random_queries(5000))

    with watched() as seen:
        accepted = sum(ask(table, text) for text in texts)

    assert seen == []
    assert 0 < accepted < 2000, "the texts are too tame or too wild to say anything"


def test_watch_sees_what_it_should(tmp_path: Path) -> None:
    """The watch of this drill notices an opened file."""
    with watched() as seen:
        (tmp_path / "file").write_text("x")

    assert any(event.startswith("open") for event in seen)


def test_control_pandas_runs_what_it_is_given(table: pd.DataFrame, tmp_path: Path) -> None:
    """The usual way, the query method of pandas, writes the file that a hostile text names."""
    marker = tmp_path / "marker"

    table.query(f"grade.to_csv('{marker}') != grade", engine="python")

    assert marker.exists()


def test_control_a_language_with_patterns_hangs(table: pd.DataFrame) -> None:
    """The time limit of this drill is overrun, at the first try, by a language with patterns."""

    def with_patterns(_: pd.DataFrame, where: str) -> object:
        return re.match(where, "a" * 24 + "!")

    with pytest.raises(AssertionError, match="took"):
        ask(table, "(a+)+$", by=with_patterns)
