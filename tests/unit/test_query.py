"""The ``where=`` language: what it selects, and what it refuses with which words."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from verse_data.errors import QueryRefused, UsageError
from verse_data.spine.levels import LEVELS
from verse_data.tables.columns import columns
from verse_data.tables.definitions import DEFINITIONS
from verse_data.tables.query import columns_used, matches, select

SPLITS = ["training", "validation", "test"]


def vertebrae(rows: list[tuple]) -> pd.DataFrame:
    """Return a table with the documented types from rows of id, level, grade, material, BMD, split."""
    names = ["scan_id", "level", "grade", "foreign_material", "bmd_mg_cm3", "split"]
    table = pd.DataFrame(rows, columns=names).astype(
        {"grade": "Int8", "foreign_material": "boolean", "bmd_mg_cm3": "Float64"}
    )
    table["level"] = pd.Categorical(table["level"], LEVELS, ordered=True)
    table["split"] = pd.Categorical(table["split"], SPLITS)
    return table


@pytest.fixture
def table() -> pd.DataFrame:
    """Six vertebrae: graded, not assessed, and with foreign material."""
    return vertebrae(
        [
            ("verse004", "T11", 0, False, 80.5, "training"),
            ("verse004", "T12", 2, False, 80.5, "training"),
            ("verse004", "L1", 3, False, 80.5, "training"),
            ("verse004", "L2", None, None, 80.5, "training"),
            ("verse588", "T13", 1, False, None, "validation"),
            ("verse032", "L5", None, True, 0.0, "test"),
        ]
    )


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("grade >= 2 and level in ['T12', 'L1']", [1, 2]),
        ("grade >= 2", [1, 2]),
        ("not (grade >= 2)", [0, 4]),
        ("not grade >= 2", [0, 4]),
        ("grade != 0", [1, 2, 4]),
        ("missing(grade)", [3, 5]),
        ("not missing(grade)", [0, 1, 2, 4]),
        ("missing(grade) and not foreign_material", []),
        ("grade >= 2 or missing(grade)", [1, 2, 3, 5]),
        ("foreign_material", [5]),
        ("not foreign_material", [0, 1, 2, 4]),
        ("foreign_material == False", [0, 1, 2, 4]),
        ("level > 'T12'", [2, 3, 4, 5]),
        ("'T12' < level < 'L1'", [4]),
        ("level >= 'L1'", [2, 3, 5]),
        ("1 <= grade < 3", [1, 4]),
        ("level not in ('T11', 'L5')", [1, 2, 3, 4]),
        ("grade not in [0, 1]", [1, 2]),
        ("grade == 2.0", [1]),
        ("grade > -1", [0, 1, 2, 4]),
        ("grade < 4", [0, 1, 2, 4]),
        ("1.5 <= grade", [1, 2]),
        ("bmd_mg_cm3 > 5000", []),
        ("scan_id == 'verse999'", []),
        ("bmd_mg_cm3 < 80.6", [0, 1, 2, 3, 5]),
        ("bmd_mg_cm3 > grade", [0, 1, 2]),
        ("split == 'training' and scan_id != 'verse588'", [0, 1, 2, 3]),
        ('scan_id in ["verse588", "verse032"]', [4, 5]),
        ("fracture.any", [1, 2, 4]),
        ("fracture.moderate", [1, 2]),
        ("fracture.any and not fracture.moderate", [4]),
        ("not fracture.any", [0]),
        ("  grade\n >=\t2\n", [1, 2]),
        ("(((grade >= 2)))", [1, 2]),
    ],
)
def test_selects(table: pd.DataFrame, where: str, found: list[int]) -> None:
    """Each form of condition selects the rows for which it is true, and no others."""
    assert select(table, where).index.tolist() == found


def test_selection_is_a_copy_with_the_index_kept(table: pd.DataFrame) -> None:
    """Rows keep their order, index and types, and changing them leaves the table alone."""
    table.index = pd.Index(list("fedcba"))
    rows = select(table, "grade >= 2")
    rows["grade"] = 0

    assert rows.index.tolist() == ["e", "d"]
    assert table["grade"].tolist()[1:3] == [2, 3]
    assert rows.dtypes.drop("grade").equals(table.dtypes.drop("grade"))


def test_no_condition_selects_everything(table: pd.DataFrame) -> None:
    """None stands for no condition."""
    pd.testing.assert_frame_equal(select(table, None), table)


def test_levels_stored_as_text_compare_in_spine_order() -> None:
    """A table that was read from CSV, with levels as plain text, gives the same answers."""
    table = pd.DataFrame({"level": ["T9", "T12", "T13", None, "L1", "nonsense"]})

    assert select(table, "level >= 'T12'")["level"].tolist() == ["T12", "T13", "L1"]


@pytest.mark.parametrize("dtype", [object, "string", "category"])
def test_words_of_a_table_of_ones_own_are_words(dtype) -> None:
    """A column with a documented name may hold other words; what neither has is refused."""
    table = pd.DataFrame({"split": pd.Series(["train", "val", None], dtype=dtype)})

    assert matches(table, "split == 'train'").tolist() == [True, False, False]
    assert matches(table, "split in ['train', 'training']").tolist() == [True, False, False]
    assert matches(table, "split != 'training'").tolist() == [True, True, False]
    with pytest.raises(QueryRefused, match="'tarin' is no value of split"):
        matches(table, "split == 'tarin'")


def test_labels_are_those_of_the_map_and_of_the_table() -> None:
    """A label that neither the map nor the table has is refused; one of the table's own is not."""
    table = pd.DataFrame({"label": pd.array([19, 28, 40, None], dtype="Int16")})

    assert matches(table, "label == 28").tolist() == [False, True, False, False]
    assert matches(table, "label == 20").tolist() == [False] * 4
    assert matches(table, "label in [19, 40]").tolist() == [True, False, True, False]
    assert matches(table, "label > 28").tolist() == [False, False, True, False]
    with pytest.raises(QueryRefused, match=r"26 is no value of label. Known: 1, 2, .* 25, 28, 40"):
        matches(table, "label == 26")


@pytest.mark.parametrize("name", [c.name for c in columns("vertebrae") if c.categories])
def test_every_column_with_a_list_of_words_refuses_others(name: str) -> None:
    """Words that are documented are asked in peace, also where no row has them."""
    (column,) = (c for c in columns("vertebrae") if c.name == name)
    table = pd.DataFrame({name: pd.Series(dtype="str")})

    for word in column.categories:
        assert not matches(table, f"{name} == {word!r}").any()
    with pytest.raises(QueryRefused, match="'something' is no"):
        matches(table, f"{name} == 'something'")


def test_two_categories_of_text_compare_by_their_words() -> None:
    """The codes of two categories mean different words."""
    table = pd.DataFrame(
        {
            "a": pd.Categorical(["x", "y", "z", None], ["x", "y", "z"]),
            "b": pd.Categorical(["x", "z", "z", None], ["z", "x"]),
            "c": ["x", "x", "z", "z"],
        }
    )

    assert matches(table, "a == b").tolist() == [True, False, True, False]
    assert matches(table, "a != b").tolist() == [False, True, False, False]
    assert matches(table, "c == a").tolist() == [True, False, True, False]
    assert matches(table, "not a in ['y', 'w']").tolist() == [True, False, True, False]


@pytest.mark.parametrize("where", ["grade >= 2 and", "grade in", "not", "grade >=", "  grade =="])
def test_query_that_stops_early_points_at_its_end(table: pd.DataFrame, where: str) -> None:
    """The place is behind the last character, not the first."""
    with pytest.raises(QueryRefused) as refusal:
        matches(table, where)

    first, shown, caret = str(refusal.value).split("\n")
    assert f"at character {len(where) + 1}:" in first
    assert "stops too early" in first
    assert caret.index("^") == len(shown)


def test_empty_table_gives_an_empty_selection(table: pd.DataFrame) -> None:
    """No rows in, no rows out, columns kept."""
    rows = select(table.iloc[:0], "grade >= 2 and level in ['T12']")

    assert rows.empty
    assert list(rows.columns) == list(table.columns)


def test_columns_used_names_each_once_and_opens_definitions() -> None:
    """Names come in order of first use; a definition counts with the columns behind it."""
    where = "level > 'T4' and (missing(voxels) or fracture.any) and not foreign_material and level < 'L1'"

    assert columns_used(where) == ("level", "voxels", "grade", "foreign_material")


def test_definitions_name_their_sources(table: pd.DataFrame) -> None:
    """Each definition is itself a query, and says who draws the line there."""
    for definition in DEFINITIONS.values():
        assert definition.used_by
        assert (matches(table, definition.name) == matches(table, definition.expression)).all()


@pytest.mark.parametrize(
    ("where", "position", "words"),
    [
        ("grad >= 2", 1, ["no column grad", "Did you mean grade?", "scan_id, level, grade"]),
        ("level > 'T4' and Grade >= 2", 18, ["Did you mean grade?"]),
        ("grade = 2", 7, ["Write == to compare"]),
        ("grade >= 'two'", 10, ["grade is a number"]),
        ("grade == True", 10, ["grade is a number"]),
        ("foreign_material == 1", 21, ["true or false"]),
        ("level >= 'T14'", 10, ["'T14' is no value of level", "T12, T13, L1"]),
        ("level == 19", 10, ["vertebral level"]),
        ("split == 'train'", 10, ["Did you mean training?"]),
        ("grade == 7", 10, ["7 is no value of grade", "Known: 0, 1, 2, 3."]),
        ("grade != 1.5", 10, ["1.5 is no value of grade"]),
        ("grade in [2, 4]", 14, ["4 is no value of grade"]),
        ("not grade not in [-1]", 19, ["-1 is no value of grade"]),
        ("grade > 3", 1, ["nothing that grade can hold satisfies this", "Known: 0, 1, 2, 3."]),
        ("0 > grade", 1, ["nothing that grade can hold"]),
        ("1 <= grade <= -1", 6, ["nothing that grade can hold"]),
        ("level > 'L6'", 1, ["nothing that level can hold"]),
        ("'C1' > level", 1, ["nothing that level can hold"]),
        ("scan_id == 4", 12, ["a text"]),
        ("scan_id > 'verse004'", 1, ["has no order"]),
        ("foreign_material < True", 1, ["has no order"]),
        ("grade < level", 1, ["cannot be compared"]),
        ("grade", 1, ["compare it with something"]),
        ("not level", 5, ["compare it with something"]),
        ("fracture.severe", 1, ["no definition", "fracture.any"]),
        ("grade >= 2 AND level == 'T1'", 12, ["small letters"]),
        ("grade >= 2 && level == 'T1'", 12, ["'&&' is not", "Write and."]),
        ("grade >= 2 || level == 'T1'", 12, ["'||' is not", "Write or."]),
        ("grade => 2", 7, ["'=>' is not", "Write >=."]),
        ("grade =< 2", 7, ["'=<' is not", "Write <=."]),
        ("grade <> 2", 7, ["'<>' is not", "Write !=."]),
        ("grade === 2", 7, ["'===' is not", "Write == to compare."]),
        ("grade !== 2", 7, ["'!==' is not", "Write !=."]),
        ("grade \u2265 2", 7, ["Write >=."]),
        ("!foreign_material", 1, ["Write not, or != to compare"]),
        ("OR grade > 1", 1, ["write or in small letters"]),
        ("foreign_material == true", 21, ["Write True and False"]),
        ("grade != NULL", 10, ["Write missing(column)"]),
        ("level == T12", 10, ["no column T12", "Texts stand in quotes: 'T12'"]),
        ("fracture_any", 1, ["Did you mean fracture.any?"]),
        ("grade == None", 10, ["missing(column)"]),
        ("grade is None", 7, ["missing(column)"]),
        ("level in ['T12' 'L1']", 11, ["without a comma"]),
        ("level in []", 10, ["a list of values"]),
        ("level in 'T12'", 10, ["a list of values"]),
        ("level in (T12, L1)", 11, ["write texts in quotes: 'T12'"]),
        ("'T12' in level", 1, ["a column is expected before in"]),
        ("grade in [1, None]", 14, ["missing(column)"]),
        ("grade >= 2 level == 'T1'", 12, ["cannot go on"]),
        ("(grade >= 2", 1, ["stops too early"]),
        ("1 < 2", 1, ["a column is expected"]),
        ("grade == 1 in [1]", 10, ["a column is expected before in"]),
        ("missing(grade, level)", 1, ["takes one column"]),
        ("missing(2)", 1, ["takes one column"]),
        ("len(scan_id) > 4", 1, ["a column is expected"]),
        ("grade > len(scan_id)", 9, ["a column or a plain value"]),
        ("grade == [1]", 10, ["lists stand after in"]),
        ("grade == -True", 10, ["a plain value"]),
        ("len(scan_id)", 1, ["only function"]),
        ("grade + 1 > 2", 7, ["not part of the query language"]),
        ("gr\u0430de >= 2", 3, ["CYRILLIC SMALL LETTER A"]),
        ("\uff47rade >= 2", 1, ["FULLWIDTH"]),
        ("grade >= 2 # and more", 12, ["no comments"]),
        ("grade >= 1e400", 10, ["too large"]),
        ("grade >= 2x", 10, ["letters directly after it"]),
        ("level == b'T1'", 10, ["before a text"]),
        ("level == 'T1", 10, ["does not end"]),
        ("lambda: 1", 7, ["':' is not part"]),
        ("scan_id == 'a\tb'", 12, ["cannot be printed"]),
        ("grade\n>=\t'two'", 10, ["grade is a number"]),
    ],
)
def test_refusal_points_at_the_place(
    table: pd.DataFrame, where: str, position: int, words: list[str]
) -> None:
    """A refusal names the character, shows it with a caret, and says what would be right."""
    with pytest.raises(QueryRefused) as refusal:
        select(table, where)

    text = str(refusal.value)
    assert text.startswith(f"Query refused at character {position}:")
    *_, shown, caret = text.splitlines()
    assert shown.index(where[position - 1 :][:2]) == caret.index("^")
    assert all(word in text for word in words)
    assert refusal.value.exit_code == 2


def test_definition_says_which_column_a_table_lacks() -> None:
    """On a table without grades, a definition is refused by the name of the column."""
    with pytest.raises(QueryRefused, match="no column grade"):
        select(pd.DataFrame({"scan_id": ["verse004"]}), "fracture.any")


def test_definition_that_does_not_fit_is_pointed_at_by_its_name() -> None:
    """Grades that are texts are refused where the user wrote the definition, not within it."""
    with pytest.raises(
        QueryRefused, match="at character 7: grade is a text, and 2 is not"
    ) as refusal:
        select(pd.DataFrame({"grade": ["2"]}), "  not fracture.moderate")

    assert str(refusal.value).endswith("      not fracture.moderate\n          ^^^^^^^^^^^^^^^^^")


@pytest.mark.parametrize("where", ["", "   ", None, 3, ["grade >= 2"]])
def test_nothing_and_other_types_are_refused(table: pd.DataFrame, where: object) -> None:
    """An empty text and anything that is not a text is refused in words."""
    with pytest.raises(QueryRefused, match="query"):
        matches(table, where)  # type: ignore[arg-type]


def test_limits_are_told(table: pd.DataFrame) -> None:
    """Length, nesting and number of parts have limits, and the error says which."""
    with pytest.raises(QueryRefused, match="limit of 4,000"):
        select(table, "grade >= 2 or " * 400 + "grade >= 2")
    with pytest.raises(QueryRefused, match="levels of nesting"):
        select(table, "(" * 21 + "grade >= 2" + ")" * 21)
    with pytest.raises(QueryRefused, match="levels of nesting"):
        select(table, "not " * 21 + "grade >= 2")
    with pytest.raises(QueryRefused, match="more than 400"):
        select(table, f"grade in [{','.join('1' * 401)}]")


def test_all_series_of_the_release_fit_into_one_list(table: pd.DataFrame) -> None:
    """The limits leave room for a list of 160 ids and a few conditions more."""
    ids = ", ".join(f"'verse{number:03d}'" for number in range(160))

    assert len(select(table, f"scan_id in [{ids}] and grade >= 2 and not foreign_material")) == 2


def test_columns_of_unknown_kinds_are_listed_but_not_compared() -> None:
    """A column of dates or of mixed values is refused by name; missing() still works on it."""
    table = pd.DataFrame({"day": pd.to_datetime(["2020-01-01", None]), "mixed": [1, "a"]})

    with pytest.raises(QueryRefused, match="day is of a kind"):
        select(table, "day > 3")
    with pytest.raises(QueryRefused, match="mixed is of a kind"):
        select(table, "mixed == 'a'")
    assert select(table, "missing(day)").index.tolist() == [1]


def test_two_columns_of_one_name_are_a_usage_error(table: pd.DataFrame) -> None:
    """Which of two columns is meant is never guessed."""
    doubled = pd.concat([table, table[["grade"]]], axis=1)

    with pytest.raises(UsageError, match="several columns named grade"):
        select(doubled, "grade >= 2")
    assert select(doubled, "level == 'T12'").index.tolist() == [1]


def test_escape_sequences_do_not_reach_the_terminal(table: pd.DataFrame) -> None:
    """What a query smuggles in is not printed back raw."""
    with pytest.raises(QueryRefused) as refusal:
        select(table, "grade >= 2 \x1b[31m")

    assert all(character.isprintable() or character == "\n" for character in str(refusal.value))


def test_ten_thousand_rows_are_no_work() -> None:
    """A query of several conditions on 10,000 rows is fast enough to be typed at: 2 ms here.

    The limit leaves room for slower machines, and none for walking over the rows of a DataFrame;
    ``benchmarks/tables.py`` holds the promise of 20 ms.
    """
    draw = np.random.default_rng(0)
    columns = [
        [f"verse{number:03d}" for number in draw.integers(0, 160, 10_000)],
        draw.choice(LEVELS, 10_000),
        draw.choice([0, 1, 2, 3, None], 10_000),
        draw.choice([True, False, None], 10_000),
        draw.normal(80, 40, 10_000),
        draw.choice(SPLITS, 10_000),
    ]
    table = vertebrae(list(zip(*columns, strict=True)))
    where = "grade >= 2 and level >= 'T11' and not foreign_material and scan_id in ['verse004', 'verse005'] and split == 'training' and bmd_mg_cm3 < 80"

    def seconds() -> float:
        # Time that other processes take is not the query's.
        start = time.process_time()
        select(table, where)
        return time.process_time() - start

    assert min(seconds() for _ in range(7)) < 0.040
