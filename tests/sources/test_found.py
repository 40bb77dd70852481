import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.sources.found import Found, cut_parts


def archives(sizes: list[int]) -> list[Found]:
    return [Found(uri=f"/{c}", key=f"{c}/{i}", container=c) for c, size in enumerate(sizes) for i in range(size)]


@given(st.lists(st.integers(1, 12), max_size=12), st.integers(1, 10))
def test_parts_hold_every_image_once_in_order_and_are_never_too_long(sizes: list[int], rows: int) -> None:
    found = archives(sizes)
    parts = list(cut_parts(found, rows_per_part=rows))
    assert [item for part in parts for item in part] == found
    assert all(1 <= len(part) <= rows for part in parts)


@given(st.lists(st.integers(1, 10), max_size=12))
def test_archives_that_fit_a_part_are_never_cut(sizes: list[int]) -> None:
    parts = list(cut_parts(archives(sizes), rows_per_part=10))
    for container in range(len(sizes)):
        assert sum(any(item.container == container for item in part) for part in parts) == 1


def test_loose_files_fill_parts() -> None:
    found = [Found(uri=f"/{i}", key=str(i)) for i in range(7)]
    assert [len(part) for part in cut_parts(found, rows_per_part=3)] == [3, 3, 1]


def test_part_of_no_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        list(cut_parts([], rows_per_part=0))
