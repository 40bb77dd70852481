"""The benchmark of conditions agrees with DuckDB, which it checks, and tells what both took."""

from benchmarks.where import ROWS_PER_PART, bench_where


def test_conditions_are_asked_of_whole_tables() -> None:
    reading, asking, images = bench_where(num_images=1)
    assert images.value == ROWS_PER_PART
    assert reading.peer_value == asking.peer_value
    assert "within the rule" in images.note
