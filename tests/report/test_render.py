"""Every kind of block is drawn, and what it says stays text."""

import dataclasses
import re
from typing import get_args

import numpy as np
import pytest

from curate.engine.show import (
    Beside,
    Block,
    Curves,
    Drawing,
    Drawings,
    Examples,
    Gallery,
    Heading,
    Histogram,
    Line,
    Marker,
    Numbers,
    Picture,
    Section,
    Series,
    Share,
    SortedBars,
    Text,
)
from curate.report.pictures import Pictures
from curate.report.render import MAX_LINES, RENDER, anchor_of, render_block, render_section
from tests.report.test_markup import Reader, read
from tests.report.workdir import Workdir

EVIL = "</p><script>x</script>&amp;"
VALUES = np.array([1.0, 2.0])
BLOCKS: list[Block] = [
    Text(EVIL),
    Heading(EVIL),
    Numbers((EVIL, "n"), ((EVIL, 1),)),
    Curves([Line(EVIL, VALUES, "a", VALUES)], x_label=EVIL, y_label=EVIL),
    Histogram(np.arange(3.0), [Series(EVIL, VALUES, "a")], [Marker(EVIL, 1.0, "ink")], x_label=EVIL, counted=EVIL),
    SortedBars(Series(EVIL, VALUES, "a"), Series(EVIL, VALUES, "b"), x_label=EVIL, y_label=EVIL),
    Gallery((Picture(1, (EVIL,)),)),
    Examples((Picture(1, (EVIL,)),)),
    Drawings((Drawing(b"jpeg", (EVIL,)),)),
    Beside(((Text(EVIL),),)),
]


def drawn(block: Block, workdir: Workdir) -> Reader:
    return read(render_block(block, Pictures(workdir.run)))


def test_every_kind_of_block_is_known() -> None:
    assert RENDER.keys() == set(get_args(Block)) == {type(block) for block in BLOCKS}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: type(block).__name__)
def test_what_a_block_says_is_read_back_as_text(block: Block, workdir: Workdir) -> None:
    found = drawn(block, workdir)
    assert EVIL in found.text
    assert "script" not in [tag for tag, _ in found.tags]


def test_numbers_stand_to_the_right_with_separators_and_shares_as_bars(workdir: Workdir) -> None:
    page = render_block(
        Numbers(("name", "count", ""), (("a", 12345, Share(0.25)), (None, 0.123456, None))), Pictures(workdir.run)
    )
    assert re.findall(r'<th( class="number")?>', page) == ["", ' class="number"', ""]
    assert re.findall(r'<td class="number">(.*?)</td>', page) == ["12,345", "0.1235"]
    assert "width:25.00%" in page


def test_numbers_without_rows_are_their_head(workdir: Workdir) -> None:
    assert drawn(Numbers(("a", "b"), ()), workdir).text == "ab"


def test_a_gallery_shows_marks_captions_names_and_how_many_more_there_are(workdir: Workdir) -> None:
    i = workdir.ids
    pictures = (Picture(i["a.jpg"], ("first", "second"), "kept"), Picture(i["b.jpg"], named=False))
    page = render_block(Gallery(pictures, more=1234, group=True), Pictures(workdir.run))
    assert '<figure class="kept"' in page
    assert "<b>first</b>" in page
    assert "<span>a.jpg</span>" in page
    assert "<span>b.jpg</span>" not in page
    assert "+ 1,234 more" in page
    assert "group" in render_block(Gallery(pictures, group=True), Pictures(workdir.run))
    assert "more" not in render_block(Gallery(pictures), Pictures(workdir.run))


def test_examples_that_do_not_decode_are_lines_of_text(workdir: Workdir) -> None:
    i = workdir.ids
    page = render_block(Examples((Picture(i["noise.png"]), Picture(i["empty.jpg"]))), Pictures(workdir.run))
    assert page.count("<figure") == 1
    assert re.findall(r"<li><b>(.*?)</b> (.*?)</li>", page) == [("empty.jpg", "empty: 0 bytes")]
    told = render_block(Examples((Picture(i["empty.jpg"], ("why",)),) * (MAX_LINES + 1)), Pictures(workdir.run))
    assert re.findall(r"</b> (.*?)</li>", told) == ["why"] * MAX_LINES


def test_columns_stand_side_by_side(workdir: Workdir) -> None:
    two = Beside(((Text("left"),), (Heading("right"), Text("below"))))
    page = render_block(two, Pictures(workdir.run))
    assert read(page).text == "leftrightbelow"
    assert page.startswith('<div class="charts">')
    assert render_block(dataclasses.replace(two, wide=True), Pictures(workdir.run)).startswith('<div class="halves">')


def test_a_section_is_its_blocks_one_after_the_other(workdir: Workdir) -> None:
    page = render_section(Section("title", (Heading("a"), Text("b"))), Pictures(workdir.run))
    assert [tag for tag, _ in read(page).tags] == ["div", "h3", "p"]


@pytest.mark.parametrize(("title", "anchor"), [("Held-out images", "held-out-images"), ("A <b> & 2", "a-b-2")])
def test_anchors_are_words_of_the_title(title: str, anchor: str) -> None:
    assert anchor_of(title) == anchor
