"""Blocks as HTML: how each kind of `engine.show` block looks on a page."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from curate.engine import show
from curate.engine.numbers import plural
from curate.report.charts import curves, histogram, sorted_bars
from curate.report.markup import Content, Markup, el, join
from curate.report.pictures import Pictures, inline, short_name
from curate.report.point_map import render_map

MAX_LINES = 6
"""Images without a picture that are told in words; more would be a list, not examples."""
IN_GALLERY, IN_GROUP, GROUPS = 24, 12, 4
"""Pictures on a page of a gallery and of a framed group; groups on a page."""


def render_section(section: show.Section, pictures: Pictures) -> Markup:
    """The blocks of a section."""
    return render_blocks(section.blocks, pictures)


def render_blocks(blocks: Iterable[show.Block], pictures: Pictures) -> Markup:
    """Blocks one below the other."""
    return el("div", [render_block(block, pictures) for block in blocks])


def render_block(block: show.Block, pictures: Pictures) -> Markup:
    """One block."""
    return RENDER[type(block)](block, pictures)


def anchor_of(title: str) -> str:
    """The name of a section in links."""
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())


def _numbers(block: show.Numbers, _: Pictures) -> Markup:
    """Columns of numbers are aligned to the right, their heads with them; narrow pages fold a row to a card."""
    columns = list(zip(*block.rows, strict=True)) or [()] * len(block.head)
    numeric = [any(isinstance(cell, int | float) for cell in column) for column in columns]
    head = [el("th", name, class_="number" if right else None) for name, right in zip(block.head, numeric, strict=True)]
    rows = [el("tr", [_cell(*named) for named in zip(block.head, row, strict=True)]) for row in block.rows]
    table = el("table", el("thead", el("tr", head)), el("tbody", rows), class_="folds")
    return el("div", table, class_="scroll")


def _cell(name: str, cell: show.Cell) -> Markup:
    if isinstance(cell, show.Share):
        bar = el("i", class_="bar a", style=f"width:{100 * cell.value:.2f}%")
        return el("td", el("div", bar, class_="track"), class_="time")
    if isinstance(cell, int | float):
        return el("td", f"{cell:,}" if isinstance(cell, int) else f"{cell:,.4g}", class_="number", data_label=name)
    return el("td", cell or "", data_label=name if cell else None)


def _figure(picture: show.Picture, pictures: Pictures, *, later: bool, blurred: bool) -> Markup:
    captions: list[Content] = [
        el("b", line) if i == 0 and picture.mark else line for i, line in enumerate(picture.captions)
    ]
    return pictures.figure(picture.image_id, *captions, mark=picture.mark, later=later, blurred=blurred)


def _figures(
    found: Sequence[show.Picture], pictures: Pictures, size: int, *, later: bool = False, blurred: bool = False
) -> list[Markup]:
    """Figures of which `size` are seen at first."""
    places = enumerate(found)
    return [_figure(one, pictures, later=later or place >= size, blurred=blurred) for place, one in places]


def _gallery(block: show.Gallery, pictures: Pictures, *, later: bool = False) -> Markup:
    pictures.load((picture.image_id for picture in block.pictures), blurred=block.blurred)
    size = IN_GROUP if block.group else IN_GALLERY
    figures = _figures(block.pictures, pictures, size, later=later, blurred=block.blurred)
    shown = _pages(figures, size, "grid")
    more = _more(block.more, "image", block.rest)
    return el("div", shown, more, class_="group" if block.group else "gallery")


def _grouped(block: show.Pages, pictures: Pictures) -> Markup:
    pictures.load(show.images_of(block))
    groups = [_gallery(group, pictures, later=place >= GROUPS) for place, group in enumerate(block.groups)]
    return el("div", _pages(groups, GROUPS, "pairs"), _more(block.more, "group", block.rest))


def _pages(items: list[Markup], size: int, kind: str) -> Markup:
    """Items, some to a page; the script of the page turns them."""
    pages = [
        el("div", items[start : start + size], class_=f"page {kind}", hidden="" if start else None)
        for start in range(0, len(items), size)
    ]
    return el("div", pages, class_="pages", data_size=size, data_total=len(items)) if len(pages) > 1 else join(pages)


def _more(number: int, what: str, rest: str) -> Markup | None:
    """How many are not on the page, and the command that lists them."""
    if not number:
        return None
    listed = [" ", el("span", "listed by ", el("code", rest))] if rest else None
    return el("p", f"and {plural(number, what)} more", listed, class_="more")


def _examples(block: show.Examples, pictures: Pictures) -> Markup:
    pictures.load(show.images_of(block))
    seen = [picture for picture in block.pictures if pictures.is_shown(picture.image_id)]
    unseen = [picture for picture in block.pictures if picture not in seen]
    lines = [
        el("li", el("b", short_name(pictures[p.image_id].key, 40)), " ", _why(p, pictures)) for p in unseen[:MAX_LINES]
    ]
    figures = _figures(seen, pictures, IN_GROUP)
    return el(
        "div",
        _pages(figures, IN_GROUP, "grid detailed") if seen else None,
        el("ul", lines, class_="details") if lines else None,
        _more(block.more + len(unseen) - len(lines), "image", block.rest),
    )


def _why(picture: show.Picture, pictures: Pictures) -> str:
    return " ".join(picture.captions) or pictures[picture.image_id].missing


def _drawings(block: show.Drawings, _: Pictures) -> Markup:
    figures = [
        el("figure", inline(one.jpeg, alt=one.captions[0] if one.captions else ""), _caption(one.captions))
        for one in block.drawings
    ]
    return el("div", el("div", figures, class_="grid detailed"), class_="group seen")


def _caption(lines: tuple[str, ...]) -> Markup:
    return el("figcaption", [el("span", line) for line in lines])


def _beside(block: show.Beside, pictures: Pictures) -> Markup:
    columns = [render_blocks(column, pictures) for column in block.columns]
    return el("div", columns, class_="halves" if block.wide else "charts")


RENDER: dict[type, Callable[[Any, Pictures], Markup]] = {
    show.Text: lambda block, _: el("p", block.text, class_="quiet"),
    show.Heading: lambda block, _: el("h3", block.text),
    show.Numbers: _numbers,
    show.Curves: lambda block, _: curves(block),
    show.Histogram: lambda block, _: histogram(block),
    show.SortedBars: lambda block, _: sorted_bars(block),
    show.Gallery: _gallery,
    show.Pages: _grouped,
    show.Examples: _examples,
    show.Drawings: _drawings,
    show.PointMap: render_map,
    show.Beside: _beside,
}
"""By kind of block."""
