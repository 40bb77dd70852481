"""Own columns out of JSON: Arrow's way and Python's give the same texts and kinds."""

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.engine.tallies import ADDED
from curate.stages.screening import read_columns as module
from curate.stages.screening.read_columns import ColumnsTally, ReadColumns, name_in_source, read_columns, typed

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
NAMES = {"a": "a", "b": "b", "source_width": "width"}


def rows() -> st.SearchStrategy[list[dict[str, Any] | None]]:
    values = st.one_of(SCALARS, st.lists(st.integers(0, 9), max_size=2))
    one = st.dictionaries(st.sampled_from(["a", "b", "width", "other"]), values, max_size=4)
    alike = st.sampled_from([st.integers(-5, 5), st.text(max_size=4), st.booleans(), st.floats(-1, 1)]).flatmap(
        lambda kind: st.lists(st.one_of(st.none(), st.dictionaries(st.sampled_from(["a", "b"]), kind)), max_size=12)
    )
    return st.one_of(st.lists(st.one_of(st.none(), one), max_size=12), alike)


def shown(value: Any) -> Any:
    """A value as its text reads again."""
    return value if value is None or isinstance(value, str) else json.loads(json.dumps(value))


@settings(deadline=None, max_examples=300)
@given(rows(), st.integers(1, 3))
def test_every_value_is_read_whatever_the_first_ones_are(given_rows: list[dict[str, Any] | None], asked: int) -> None:
    texts = pa.array([None if row is None else json.dumps(row) for row in given_rows], pa.string())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ASKED", asked)
        found, tally = read_columns(texts, NAMES)
    for name, of in NAMES.items():
        values = [None if row is None else row.get(of) for row in given_rows]
        read = found[name].to_pylist()
        for value, text in zip(values, read, strict=True):
            assert (text is None) == (value is None)
            if isinstance(value, str):
                assert text == value
            elif value is not None:
                assert json.loads(text) == pytest.approx(shown(value))
        there = any(row is not None and of in row for row in given_rows[:asked]) or any(v is not None for v in values)
        assert (name in tally.kinds) >= there or all(v is None for v in values)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2, None], pa.int64()),
        ([1, 2.5, None], pa.float64()),
        ([True, None], pa.bool_()),
        (["by", 3], pa.string()),
        ([True, 1], pa.string()),
        ([None, None], pa.null()),
        ([1, 2**60], pa.int64()),
        ([[1], {"x": 2}], pa.string()),
    ],
)
def test_the_type_of_a_column_holds_all_of_its_values(values: list[Any], dtype: pa.DataType) -> None:
    texts = pa.array([json.dumps({"a": value}) for value in values])
    pieces = [read_columns(texts.slice(at, 1), {"a": "a"}) for at in range(len(values))]
    tally = ColumnsTally.sum(tally for _, tally in pieces)
    assert ColumnsTally.types_of(tally)["a"] == dtype
    column = typed(pa.chunked_array([found["a"] for found, _ in pieces]), dtype)
    if pa.types.is_string(dtype):
        pairs = zip(column.to_pylist(), values, strict=True)
        assert [text if isinstance(value, str) else json.loads(text) for text, value in pairs] == values
    else:
        assert column.to_pylist() == values


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (["0.25", "-3", None, "1e-3", ".5", "7."], True),
        (["0.25", ""], False),
        (["1", "one"], False),
        (["1", 2, 2.5], True),
        (["nan", "1e999", "+1", " 1", "1_0"], False),
        ([True], False),
        ([None], False),
    ],
)
def test_it_is_told_whether_every_value_reads_as_a_number(values: list[Any], numbers: bool) -> None:
    images = pa.table({"image_id": range(len(values)), "extra": [json.dumps({"a": value}) for value in values]})
    rows, counts = ReadColumns(names=("a",)).run(0, catalog=pa.table({"role": ["pool"]}), images=images)
    tally = ColumnsTally.model_validate_json(counts.schema.metadata[ADDED])
    assert tally.numbers == ({"a"} if numbers else set())
    if numbers:
        expected = [None if value is None else float(value) for value in values]
        assert typed(pa.chunked_array([rows["a"]]), pa.float64()).to_pylist() == expected


def test_a_column_that_hides_none_of_ours_is_called_as_in_its_source() -> None:
    assert name_in_source("license") == "license"
    assert name_in_source("source_width") == "width"
    assert name_in_source("source_source_width") == "source_width"
    assert name_in_source("source_license") == "source_license"
    assert name_in_source("source_format") == "format"
