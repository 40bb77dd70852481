"""Conditions: against DuckDB on random tables, and what is said of texts that are none."""

from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.ops.screening.conditions import WhereError, holds, values_in_words
from curate.ops.screening.where import parse_where

NUMBERS, TEXTS = ["width", "score", "half"], ["license", "the uri"]
TYPES = {
    "width": pa.int32(),
    "score": pa.float64(),
    "half": pa.float64(),
    "license": pa.string(),
    "the uri": pa.string(),
    "animated": pa.bool_(),
}
SOME = {
    "width": st.integers(-3, 3),
    "score": st.sampled_from([-1.5, 0.0, 0.25, 1.0, 2.0]),
    "half": st.sampled_from([0.25, 0.5, 1.0]),
    "license": st.sampled_from(["cc0", "by", "by-nc", "it's", "100%", "a_b", "", "\\"]),
    "the uri": st.sampled_from(["cc0", "x/cc0", "by\\nc", "%"]),
    "animated": st.booleans(),
}


def sql(name: str) -> str:
    return name if name.isidentifier() else f'"{name}"'


def number() -> st.SearchStrategy[str]:
    return st.sampled_from(["-2", "0", "1", "3", "0.25", "-1.5", "1e0", ".5", "+2"])


def text() -> st.SearchStrategy[str]:
    return SOME["license"].map(lambda value: "'" + value.replace("'", "''") + "'")


def comparisons() -> st.SearchStrategy[str]:
    sign = st.sampled_from(["=", "<>", "!=", "<", "<=", ">", ">="])
    numeric, textual = st.sampled_from(NUMBERS).map(sql), st.sampled_from(TEXTS).map(sql)
    negated = st.sampled_from(["", " not", " NOT"])
    forms = st.sampled_from(["'%'", "'c_0'", "'%c%'", "'100%'", "'%\\%'", "''", "'by\\nc'"])
    return st.one_of(
        st.tuples(numeric, sign, st.one_of(number(), numeric)).map(" ".join),
        st.tuples(number(), sign, numeric).map(" ".join),
        st.tuples(textual, sign, st.one_of(text(), textual)).map(" ".join),
        st.builds(
            lambda name, no, values: f"{name}{no} in ({', '.join(values)})",
            numeric,
            negated,
            st.lists(number(), min_size=1, max_size=3),
        ),
        st.builds(
            lambda name, no, values: f"{name}{no} IN ({', '.join(values)})",
            textual,
            negated,
            st.lists(text(), min_size=1, max_size=3),
        ),
        st.builds(lambda name, no, form: f"{name}{no} like {form}", textual, negated, forms),
        st.builds(lambda name, no: f"{name} is{no} null", st.sampled_from(list(TYPES)).map(sql), negated),
        st.sampled_from(["animated", "animated = true", "animated <> FALSE", "true = animated"]),
    )


def conditions() -> st.SearchStrategy[str]:
    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        word = st.sampled_from(["and", "or", "AND", "Or"])
        return st.one_of(
            st.tuples(inner, word, inner).map(" ".join),
            inner.map(lambda one: f"({one})"),
            inner.map(lambda one: f"not {one}"),
            inner.map(lambda one: f"NOT ({one})"),
        )

    return st.recursive(comparisons(), larger, max_leaves=6)


def tables() -> st.SearchStrategy[list[dict[str, Any]]]:
    row = st.fixed_dictionaries({name: st.one_of(st.none(), values) for name, values in SOME.items()})
    return st.lists(row, min_size=1, max_size=12)


@settings(deadline=None, max_examples=400)
@given(conditions(), tables())
def test_conditions_give_what_duckdb_gives(condition: str, rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows, schema=pa.schema(list(TYPES.items())))
    where = parse_where(condition)
    where.check(TYPES)
    columns = {name: table[name].combine_chunks() for name in where.names}
    found = holds(where.evaluate(columns)).to_pylist()
    with duckdb.connect() as connection:
        connection.register("rows_of", table)
        wanted = connection.execute(f"select ({condition}) from rows_of").fetchall()
    assert found == [value for (value,) in wanted], condition


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="abn _'\"()<>=!,.-+0124*/%[]{}:@lambdatrueorinlikeisnull\n", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        names = parse_where(text).names
    except WhereError:
        return
    assert all(name in text.replace('""', '"') for name in names)


def test_the_parts_of_a_condition_keep_their_texts() -> None:
    where = parse_where("width >= 256 and (license = 'cc0' or license is null) AND not (animated)")
    assert [clause.text for clause in where.clauses] == [
        "width >= 256",
        "license = 'cc0' or license is null",
        "not (animated)",
    ]
    assert [clause.names for clause in where.clauses] == [("width",), ("license",), ("animated",)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("width <", "cannot be read at its end, after <"),
        ("width 3", "at character 7, near 3"),
        ("width >= 3)", r"at character 11, near \)"),
        ("(width >= 3", r"at character 1, near \("),
        ("width >= #3", "at character 10, near #3"),
        ("width in ()", r"\(\) stands after in, where constants in parentheses must"),
        ("license = null", "null is never equal to anything; write is null"),
        ("license in ('a', null)", "null is never equal"),
        ("1 < width < 3", "compares more than two; join two comparisons by and"),
        ("1 < 2", "is compared with another constant"),
        ("width + 1 > 2", r"width \+ 1 is neither a column nor a constant"),
        ("open('x')", r"open\('x'\) is no condition"),
        ("license like 3", "where a text in single quotes must"),
        ("width is 3", "3 stands after is, where null or not null must"),
        ("3 in (3)", "3 is no column"),
        ("'x'", "'x' is no condition"),
        ("", "holds no condition"),
        ("width < 1e999", "too large for a number"),
        ("width < 99999999999999999999", "too large for a whole number"),
        ("(" * 300 + "width" + ")" * 300, "cannot be read"),
        ("not " * 6000 + "animated", "cannot be read|characters"),
        ("not " * 1100 + "animated", "cannot be read|lies within more than 100 other conditions"),
        ("not " * 150 + "animated", "lies within more than 100 other conditions"),
        ("width > " + "-" * 1100 + "3", "is neither a column nor a constant|cannot be read"),
        ("a" * 30_000, "30,000 characters, 20,000 are possible"),
    ],
)
def test_what_is_no_condition_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(WhereError, match=told):
        parse_where(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("licence = 'by'", "no column is called licence; did you mean license"),
        ("width > 3 and license >= 3", "license >= 3: license is text; 3 is a number"),
        ("width in (1, 'a')", "width is a number; 'a' is text"),
        ("width", "width alone is no condition, since it is not true or false"),
        ("animated > 0", "animated is true or false; 0 is a number"),
        ("width like 'a%'", "width is a number; 'a%' is text"),
        ("boxes = 3", "boxes holds list<item: int32>, which no condition takes"),
    ],
)
def test_names_and_types_are_checked_before_anything_is_evaluated(text: str, told: str) -> None:
    with pytest.raises(WhereError, match=told):
        parse_where(text).check(TYPES | {"boxes": pa.list_(pa.int32())})


def test_columns_beside_numbers_are_found_in_every_clause() -> None:
    where = parse_where(
        'score < 0.2 and (not license in (1, 2) or width = "the uri") and animated = true and half is null'
    )
    assert where.beside_numbers(TYPES) == {"score", "license", "width", "the uri"}
    assert where.beside_numbers({}) == {"score", "license"}


def test_a_number_is_compared_in_the_precision_of_the_column() -> None:
    score = pa.array(np.array([0.2, 0.7], np.float32))
    assert parse_where("score <= 0.2").evaluate({"score": score})[0].to_pylist() == [True, False]
    assert parse_where("score in (0.7)").evaluate({"score": score})[0].to_pylist() == [False, True]


def test_a_column_without_values_is_null_whatever_it_is_compared_with() -> None:
    nothing = {"license": pa.nulls(2)}
    for text in ("license = 'a'", "license < 3", "license in ('a')", "license like 'a%'", "not license"):
        where = parse_where(text)
        where.check({"license": pa.null()})
        assert where.evaluate(nothing)[0].to_pylist() == [None, None]
    assert parse_where("license is null").evaluate(nothing)[0].to_pylist() == [True, True]


def test_values_are_told_in_words() -> None:
    columns = {"width": pa.array([200, None]), "license": pa.array(["x" * 200, "by"])}
    told = values_in_words(["width", "license"], columns).to_pylist()
    assert told == [f"width is 200, license is {'x' * 80}", "width is null, license is by"]
