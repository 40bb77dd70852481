"""Blocks as HTML: how each kind of `engine.show` block looks on a page."""

from collections.abc import Callable, Iterable
from typing import Any

from curate.engine import show
from curate.report.charts import curves, histogram, sorted_bars
from curate.report.markup import Content, Markup, el
from curate.report.pictures import Pictures, inline, short_name

MAX_LINES = 6
"""Images without a picture that are told in words; more would be a list, not examples."""


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
    """Columns of numbers are aligned to the right, their heads with them."""
    columns = list(zip(*block.rows, strict=True)) or [()] * len(block.head)
    numeric = [any(isinstance(cell, int | float) for cell in column) for column in columns]
    head = [el("th", name, class_="number" if right else None) for name, right in zip(block.head, numeric, strict=True)]
    rows = [el("tr", [_cell(cell) for cell in row]) for row in block.rows]
    table = el("table", el("thead", el("tr", head)), el("tbody", rows))
    return el("div", table, class_="scroll")


def _cell(cell: show.Cell) -> Markup:
    if isinstance(cell, show.Share):
        bar = el("i", class_="bar a", style=f"width:{100 * cell.value:.2f}%")
        return el("td", el("div", bar, class_="track"), class_="time")
    if isinstance(cell, int | float):
        return el("td", f"{cell:,}" if isinstance(cell, int) else f"{cell:,.4g}", class_="number")
    return el("td", cell or "")


def _figure(picture: show.Picture, pictures: Pictures) -> Markup:
    name = short_name(pictures[picture.image_id].key) if picture.named else ""
    captions: list[Content] = [
        el("b", line) if i == 0 and picture.mark else line for i, line in enumerate(picture.captions)
    ]
    return pictures.figure(picture.image_id, *captions, name, mark=picture.mark)


def _gallery(block: show.Gallery, pictures: Pictures) -> Markup:
    pictures.load([picture.image_id for picture in block.pictures])
    more = el("span", f"+ {block.more:,} more", class_="more") if block.more else None
    figures = [_figure(picture, pictures) for picture in block.pictures]
    return el("div", figures, more, class_="grid group evidence" if block.group else "grid")


def _examples(block: show.Examples, pictures: Pictures) -> Markup:
    pictures.load([picture.image_id for picture in block.pictures])
    seen = [picture for picture in block.pictures if pictures.is_shown(picture.image_id)]
    unseen = [picture for picture in block.pictures if picture not in seen][:MAX_LINES]
    lines = [el("li", el("b", short_name(pictures[p.image_id].key, 40)), " ", _why(p, pictures)) for p in unseen]
    return el(
        "div",
        el("div", [_figure(picture, pictures) for picture in seen], class_="grid detailed") if seen else None,
        el("ul", lines, class_="details") if lines else None,
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
    show.Examples: _examples,
    show.Drawings: _drawings,
    show.Beside: _beside,
}
"""By kind of block."""
