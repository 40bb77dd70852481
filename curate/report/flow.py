"""The way from the pool to the result: the numbers at the top of the page, and a diagram whose numbers add up.

The diagram is a stream that runs down the page and gets narrower: at each step a branch leaves it to the right, as wide
as the share of the images that were kept out. Every branch says how many these are and why, so that a step, with its
branch, is the step before. Its parts are drawings without text beside plain HTML, which wraps at any width of the page.
"""

import itertools
from collections.abc import Iterator, Sequence

from curate.engine.numbers import count, share
from curate.engine.show import FlowStep
from curate.report.markup import Content, Markup, el

WIDTH, HEIGHT = 200, 60
"""Of the drawing of a branch; the style sheet stretches it."""
THINNEST = 1.5
"""Width of a stream of few images, which would not be seen otherwise."""


def render_numbers(steps: Sequence[FlowStep]) -> Markup:
    """The stations of the way as large numbers, each with what was kept out since the one before."""
    tiles, lost = [], 0
    for step in steps:
        lost += step.num_dropped
        if step.station:
            beside = f"+ {count(step.curated)} curated" if step.curated else ""
            told = [el("span", text) for text in (f"{count(lost)} kept out" if lost else "", beside) if text]
            tiles.append(el("div", el("dt", step.name), el("dd", el("b", count(step.pool)), told)))
            lost = 0
    return el("dl", tiles, class_="numbers")


def render_flow(steps: Sequence[FlowStep]) -> Markup:
    """The diagram."""
    widest = max(step.pool + (step.curated or 0) for step in steps) or 1
    legend = [el("span", el("i", class_="swatch a"), "pool")]
    if any(step.curated for step in steps):
        legend.append(el("span", el("i", class_="swatch b"), "curated, added as they are"))
    legend.append(el("span", el("i", class_="swatch out"), "kept out"))
    rows = [_node(steps[0], steps[0], widest)]
    for before, step in itertools.pairwise(steps):
        rows += [*_branch(before, step, widest), _node(step, steps[0], widest)]
    return el("div", el("div", legend, class_="legend"), el("ol", rows, class_="flow"))


def _node(step: FlowStep, first: FlowStep, widest: int) -> Markup:
    """The images that are left, as a bar and in words."""
    widths = [(_width(step.pool, widest), "a"), (_width(step.curated or 0, widest), "b")]
    bars = [el("i", class_=f"bar {color}", style=f"width:{100 * w / WIDTH:.2f}%") for w, color in widths if w]
    words: list[Content] = [
        el("b", step.name),
        el("b", count(step.pool), class_="value"),
        el("span", f"{share(step.pool, first.pool)} of the pool", class_="dim") if not step.merged else None,
        el("span", f"+ {count(step.curated)} curated", class_="dim") if step.curated else None,
        el("span", step.note, class_="dim") if step.note else None,
    ]
    return el("li", el("div", bars, class_="stream"), el("div", words, class_="words"), class_="node")


def _branch(before: FlowStep, step: FlowStep, widest: int) -> Iterator[Markup]:
    """What was kept out on the way to a step."""
    if not step.num_dropped:
        return
    reasons = [el("li", f"{reason}: ", el("b", count(number))) for reason, number in step.drops if number]
    total = f"kept out{' ' if step.kept_out else ''}{step.kept_out}: "
    words = [el("p", total, el("b", count(step.num_dropped))), el("ul", reasons)]
    drawing = _drawing(_width(step.before(before), widest), _width(step.pool, widest))
    yield el("li", el("div", drawing, class_="stream"), el("div", words, class_="words"), class_="branch")


def _width(images: int, widest: int) -> float:
    return round(max(THINNEST, WIDTH * images / widest), 2) if images else 0.0


def _drawing(before: float, after: float) -> Markup:
    """A stream of one width that goes on with another, and the branch between them that leaves it to the right."""
    low = HEIGHT / 2 + min(HEIGHT / 2 - 2, max(1.0, (before - after) / WIDTH * HEIGHT / 2))
    high = HEIGHT - low
    right = before + (WIDTH - before) / 2
    stays = f"M0 0H{after}V{HEIGHT}H0Z"
    leaves = f"M{after} 0H{before}C{before} {high} {before} {high} {right:.2f} {high}H{WIDTH}V{low}"
    leaves += f"H{right:.2f}C{after} {low} {after} {low} {after} 0Z"
    paths = [el("path", d=leaves, class_="out"), el("path", d=stays, class_="area a")]
    return el("svg", paths, viewBox=f"0 0 {WIDTH} {HEIGHT}", preserveAspectRatio="none", aria_hidden="true")
