"""Own columns of the shards: how many, which, and of which type."""

from typing import Any

import pytest

from curate.stages.selection import own_columns
from curate.stages.selection.own_columns import MAX_COLUMNS, ColumnKinds


def kinds_of(*rows: dict[str, Any], only: frozenset[str] | None = None) -> ColumnKinds:
    kinds = ColumnKinds(only)
    kinds.add(rows)
    return kinds


def test_the_most_frequent_columns_stay_and_of_equal_ones_the_first_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_columns, "MAX_COLUMNS", 3)
    kinds = kinds_of({"z": 1, "b": 1, "a": 1}, {"z": "text", "c": 1})
    assert kinds.columns() == {"a": "int64", "b": "int64", "z": "string"}
    assert (kinds.left_out(), kinds.dropped) == (["c"], False)


def test_every_column_stays_where_there_are_few() -> None:
    kinds = kinds_of({f"c{n}": n for n in range(MAX_COLUMNS)})
    assert len(kinds.columns()) == MAX_COLUMNS
    assert kinds.left_out() == []


def test_names_without_end_take_bounded_memory_and_hide_no_column_of_most_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(own_columns, "MAX_COUNTED", 100)
    monkeypatch.setattr(own_columns, "MAX_COLUMNS", 5)
    rows = [
        {f"junk{n}-{k}": 1 for k in range(20)} | {"caption": n if n % 2 else "text", "label": n} for n in range(200)
    ]
    first = ColumnKinds()
    for row in rows:
        first.add([row])
        assert len(first._counts) <= 100
    assert first.dropped
    assert {"caption", "label"} < first.frequent()
    second = kinds_of(*rows, only=first.frequent())
    assert not second.dropped
    assert len(second.columns()) == 5
    assert (second.columns()["caption"], second.columns()["label"]) == ("string", "int64")
