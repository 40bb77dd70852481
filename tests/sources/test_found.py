import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.sources.found import Found, Span, cut_parts
from tests.sources.helpers import cut_found

SIZES = st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=12)
"""(images, whether they are an archive)."""


def spans(sizes: list[tuple[int, bool]]) -> list[Span]:
    return [Span(size, number if is_archive else None) for number, (size, is_archive) in enumerate(sizes)]


def images(sizes: list[tuple[int, bool]]) -> list[Found]:
    return [
        Found(uri=f"/{span.archive}", key=f"{number}/{i}", container=span.archive)
        for number, span in enumerate(spans(sizes))
        for i in range(span.images)
    ]


@given(SIZES, st.integers(1, 10))
def test_counts_alone_cut_the_parts_that_images_one_by_one_do(sizes: list[tuple[int, bool]], rows: int) -> None:
    assert list(cut_parts(spans(sizes), rows_per_part=rows)) == [len(part) for part in cut_found(images(sizes), rows)]


@given(SIZES, st.integers(1, 10), st.integers(1, 5))
def test_an_archive_that_is_told_in_pieces_is_cut_as_a_whole(
    sizes: list[tuple[int, bool]], rows: int, piece: int
) -> None:
    told = [
        Span(min(piece, span.images - start), span.archive)
        for span in spans(sizes)
        for start in range(0, span.images, piece)
    ]
    assert list(cut_parts(told, rows_per_part=rows)) == list(cut_parts(spans(sizes), rows_per_part=rows))


@given(SIZES, st.integers(1, 10))
def test_parts_hold_every_image_once_and_are_never_too_long(sizes: list[tuple[int, bool]], rows: int) -> None:
    parts = list(cut_parts(spans(sizes), rows_per_part=rows))
    assert sum(parts) == sum(size for size, _ in sizes)
    assert all(1 <= part <= rows for part in parts)


@given(st.lists(st.integers(1, 10), max_size=12))
def test_archives_that_fit_a_part_are_never_cut(sizes: list[int]) -> None:
    ends = {sum(sizes[:number]) for number in range(len(sizes) + 1)}
    parts = list(cut_parts([Span(size, number) for number, size in enumerate(sizes)], rows_per_part=10))
    assert {sum(parts[:number]) for number in range(len(parts) + 1)} <= ends


def test_loose_files_fill_parts() -> None:
    assert list(cut_parts([Span(5, None), Span(2, None)], rows_per_part=3)) == [3, 3, 1]


def test_part_of_no_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        list(cut_parts([], rows_per_part=0))
