"""Tables and texts as wide as the terminal: nothing is lost, numbers stay whole, columns stay readable."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.cli.consoles import LEAST, fold, layout, show_facts, show_table

HEAD = ("table", "parts", "rows out", "note")
ROWS = [
    ("internal/embeddings/within_border", "10/10", "2,120", "its rows were removed, and are needed again by a search"),
    ("catalog", "1/1", "12", ""),
]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200, 1 << 20])
def test_a_table_fits_and_says_all(width: int) -> None:
    lines = [line for line, _ in layout(HEAD, ROWS, width)]
    assert max(map(len, lines)) <= width
    for number in (cell for row in ROWS for cell in row[1:3]):
        assert any(number in line for line in lines)  # never folded
    letters = Counter("".join(lines))
    assert not Counter("".join(cell for row in ROWS for cell in row).replace(" ", "")) - letters


def test_a_row_is_one_line_where_there_is_room() -> None:
    lines = [line for line, _ in layout(HEAD, ROWS, 1 << 20)]
    assert len(lines) == 3
    assert lines[0].split() == ["table", "parts", "rows", "out", "note"]


def test_columns_of_text_keep_a_readable_width() -> None:
    lines = [line for line, _ in layout(HEAD, ROWS, 60)]
    assert lines[0].startswith("table")
    assert all(len(line.split("  ")[0]) >= min(LEAST, 7) for line in lines[1:2])


def test_rows_become_blocks_where_columns_do_not_fit() -> None:
    lines = layout(HEAD, ROWS, 30)
    assert ("catalog", True) in lines
    assert ("  parts 1/1; rows out 12", False) in lines


@given(st.text(alphabet="ab/_-. ", max_size=80), st.integers(4, 30))
def test_folding_keeps_every_letter_and_the_width(text: str, width: int) -> None:
    lines = fold(text, width)
    assert max(map(len, lines)) <= width
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_paths_are_folded_after_a_step() -> None:
    assert fold("internal/embeddings/within_border", 20) == ["internal/embeddings/", "within_border"]
    assert fold("copies of what is there", 12) == ["copies of", "what is", "there"]


def test_a_pipe_gets_a_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(HEAD, ROWS)
    show_facts([("report", "a very long " * 30)])
    assert len(capsys.readouterr().out.splitlines()) == 4
