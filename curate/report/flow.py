"""The way from the pool to the result as bars: images at each step, and why the others left."""

from collections.abc import Sequence

from curate.engine.numbers import count, share
from curate.engine.show import FlowStep
from curate.report.markup import Markup, el


def render_flow(steps: Sequence[FlowStep]) -> Markup:
    """A bar for each step."""
    widest = max(step.pool + (step.curated or 0) for step in steps) or 1
    legend = [el("span", el("i", class_="swatch a"), "pool")]
    if any(step.curated for step in steps):
        legend.append(el("span", el("i", class_="swatch b"), "curated, added as they are"))
    bars = el("ol", [_bar(step, steps[0].pool, widest) for step in steps], class_="funnel")
    return el("div", el("div", legend, class_="legend"), bars)


def _bar(step: FlowStep, first: int, widest: int) -> Markup:
    widths = [(step.pool, "a"), (step.curated or 0, "b")]
    bars = [el("i", class_=f"bar {color}", style=f"width:{100 * n / widest:.2f}%") for n, color in widths if n]
    value = [el("b", count(step.pool)), f" {share(step.pool, first)} of the pool"]
    curated = el("span", f" + {count(step.curated)} curated") if step.curated else None
    drops = [el("li", el("b", f"-{count(n)}"), f" {reason.replace('_', ' ')}") for reason, n in step.drops if n]
    return el(
        "li",
        el("div", el("span", step.name, class_="step"), el("span", value, curated, class_="value"), class_="head"),
        el("div", bars, class_="track"),
        el("ul", drops, el("li", step.note) if step.note else None, class_="drops") if drops or step.note else None,
    )
