"""Every kind of block is drawn, and what it says stays text."""

import base64
import dataclasses
import io
import json
import re
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from curate.engine.show import (
    Beside,
    Block,
    Coloring,
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
    Pages,
    Picture,
    PointMap,
    Section,
    Series,
    Share,
    SortedBars,
    Text,
    without_empty,
)
from curate.report.pictures import Pictures
from curate.report.render import GROUPS, IN_GALLERY, MAX_LINES, RENDER, anchor_of, render_block, render_section
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
    Pages((Gallery((Picture(1, (EVIL,)),)),)),
    Examples((Picture(1, (EVIL,)),)),
    PointMap(np.array([0, 1]), VALUES, VALUES, (Coloring(EVIL, (EVIL,), np.array([0, -1])),)),
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
    assert {a.get("type") for tag, a in found.tags if tag == "script"} <= {"application/json"}


def test_numbers_stand_to_the_right_with_separators_and_shares_as_bars(workdir: Workdir) -> None:
    page = render_block(
        Numbers(("name", "count", ""), (("a", 12345, Share(0.25)), (None, 0.123456, None))), Pictures(workdir.run)
    )
    assert re.findall(r'<th( class="number")?>', page) == ["", ' class="number"', ""]
    assert re.findall(r'<td class="number" data-label="count">(.*?)</td>', page) == ["12,345", "0.1235"]
    assert "width:25.00%" in page


def test_numbers_without_rows_are_their_head(workdir: Workdir) -> None:
    assert drawn(Numbers(("a", "b"), ()), workdir).text == "ab"


def test_a_gallery_shows_marks_captions_names_and_how_many_more_there_are(workdir: Workdir) -> None:
    i = workdir.ids
    pictures = (Picture(i["a.jpg"], ("first", "second"), "kept"), Picture(i["b.jpg"]))
    page = render_block(Gallery(pictures, more=1234, group=True), Pictures(workdir.run))
    assert '<figure class="kept"' in page
    assert "<b>first</b>" in page
    assert re.findall('<span class="name">(.*?)</span>', page) == ["a.jpg", "b.jpg"]
    assert "and 1,234 images more" in page
    assert "group" in render_block(Gallery(pictures, group=True), Pictures(workdir.run))
    assert "more" not in render_block(Gallery(pictures), Pictures(workdir.run))


def test_examples_that_do_not_decode_are_lines_of_text(workdir: Workdir) -> None:
    i = workdir.ids
    page = render_block(Examples((Picture(i["noise.png"]), Picture(i["empty.jpg"]))), Pictures(workdir.run))
    assert page.count("<figure") == 1
    assert re.findall(r"<li><b>(.*?)</b> (.*?)</li>", page) == [("empty.jpg", "empty: 0 bytes")]
    told = render_block(Examples((Picture(i["empty.jpg"], ("why",)),) * (MAX_LINES + 1)), Pictures(workdir.run))
    assert re.findall(r"</b> (.*?)</li>", told) == ["why"] * MAX_LINES


def test_a_gallery_has_pages_of_which_the_first_is_seen(workdir: Workdir) -> None:
    numbers = [workdir.ids["a.jpg"]] * (IN_GALLERY + 1)
    block = Gallery(tuple(map(Picture, numbers)), more=5, rest="curate list WORKDIR --kept")
    found = drawn(block, workdir)
    pages = [a for tag, a in found.tags if "page" in (a.get("class") or "").split()]
    assert ["hidden" in one for one in pages] == [False, True]
    (box,) = [a for tag, a in found.tags if a.get("class") == "pages"]
    assert (box["data-size"], box["data-total"]) == (str(IN_GALLERY), str(IN_GALLERY + 1))
    assert len([tag for tag, _ in found.tags if tag == "figure"]) == IN_GALLERY + 1
    assert "and 5 images more listed by curate list WORKDIR --kept" in found.text


def test_groups_have_pages_too(workdir: Workdir) -> None:
    group = Gallery((Picture(workdir.ids["a.jpg"]),), group=True)
    found = drawn(Pages((group,) * (2 * GROUPS + 1), more=1), workdir)
    pages = [a for _, a in found.tags if "page" in (a.get("class") or "").split() and "pairs" in str(a["class"])]
    assert ["hidden" in one for one in pages] == [False, True, True]
    assert "and 1 group more" in found.text


def test_a_map_has_a_point_for_each_image_and_lists_them(workdir: Workdir) -> None:
    ids = np.array([workdir.ids[name] for name in ("b.jpg", "a.jpg", "left.jpg")])
    colorings = (
        Coloring("cluster", ("7", "9"), np.array([1, 0, -1])),
        Coloring("verdict", ("kept",), np.array([0, 0, 0])),
    )
    page = render_block(PointMap(ids, np.array([0.0, 1, 2]), np.array([0.0, 5, 5]), colorings), Pictures(workdir.run))
    points = re.findall('<circle cx="(.*?)" cy="(.*?)" r="5" class="(.*?)">', page)
    assert [point[2] for point in points] == ["c1", "c0", "c"]
    assert float(points[0][0]) < float(points[1][0]) < float(points[2][0])
    assert float(points[0][1]) > float(points[1][1]) == float(points[2][1])  # y grows upwards
    values = json.loads(re.findall("<script.*?>(.*?)</script>", page)[0])
    assert [name.split(" (")[0] for name in values["names"]] == ["pool: b.jpg", "pool: a.jpg", "pool: left.jpg"]
    assert [one["codes"] for one in values["colorings"]] == [[1, 0, -1], [0, 0, 0]]
    (sheet,) = values["sheets"]
    with Image.open(io.BytesIO(base64.b64decode(sheet.partition(",")[2]))) as tiles:
        assert tiles.width == values["tile"] * values["columns"]
    rows = re.findall("<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", page)
    assert [row[1:] for row in rows] == [("9", "kept"), ("7", "kept"), ("others", "kept")]


def test_what_shows_nothing_is_left_out() -> None:
    nothing = [Gallery(()), Numbers(("a",), ()), Examples(()), Pages(()), Drawings(()), Text("")]
    empty = [Heading("of nothing"), *nothing, Beside(((Heading("x"), Gallery(())), ()))]
    shown = (Heading("h"), Text("t"))
    assert without_empty(empty) == ()
    assert without_empty([*empty, *shown, Heading("last")]) == shown
    assert without_empty([Beside(((Gallery(()),), shown))]) == (Beside((shown,)),)


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
