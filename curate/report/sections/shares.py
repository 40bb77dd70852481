"""What the selection is made of: the share of each route, what was checked again on it, and what was left out."""

from collections.abc import Iterator
from typing import Any

from curate.report.markup import Markup, el
from curate.report.numbers import count, plural, share
from curate.report.run import Run

NAMES = {
    "retrieval": "resemble the curated sets",
    "balance": "even sample over the clusters",
    "curated": "curated sets",
    "kept": "kept by deduplication",
}


def section(run: Run) -> Markup | None:
    metrics = run.metrics("selection")
    shares = metrics.get("shares", {})
    if not shares:
        return None
    head = el("tr", [el("th", name) for name in ("route", "images", "shown an epoch", "share of what is shown", "")])
    shown = max(1, sum(found["shown"] for found in shares.values()))
    rows = [_row(name, found, shown) for name, found in shares.items()]
    table = el("table", el("thead", head), el("tbody", rows), class_="figures")
    text = "An image that several routes chose counts here for retrieval first. " if len(shares) > 1 else ""
    return el(
        "div",
        el("div", table, class_="scroll"),
        el("p", text, " ".join(checks(metrics)), class_="quiet"),
    )


def checks(metrics: dict[str, Any]) -> Iterator[str]:
    """What was counted on the result itself."""
    found = metrics.get("contaminated")
    if found is not None:
        yield (
            f"Compared with the held-out images again: {plural(found['pool'], 'selected pool image')} and "
            f"{plural(found['curated'], 'selected curated image')} resemble one."
        )
    junk = metrics.get("junk")
    if junk is not None:
        yield (
            f"{plural(junk['screened'], 'image')} screened out as junk before balancing, {count(junk['selected'])} of "
            "them selected by another route."
        )


def _row(name: str, found: dict[str, int], shown: int) -> Markup:
    bar = el("div", el("i", class_="bar a", style=f"width:{100 * found['shown'] / shown:.2f}%"), class_="track")
    return el(
        "tr",
        el("td", f"{name}: {NAMES[name]}"),
        el("td", count(found["images"]), class_="number"),
        el("td", count(found["shown"]), class_="number"),
        el("td", share(found["shown"], shown), class_="number"),
        el("td", bar, class_="time"),
    )
