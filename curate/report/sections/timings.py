"""Where the time went."""

from curate.report.markup import Markup, el
from curate.report.numbers import count, rate, seconds
from curate.report.run import Run
from curate.report.status import StageStatus, in_order, rows_read

NAMES = ("table", "stage", "parts", "rows in", "rows out", "rows in / s", "time")

PASS = ("Inspect", "Embed")
"""Stages that one reading of the images runs together: equal times among them are one time."""


def section(run: Run) -> Markup | None:
    rows = [
        StageStatus(name, m.stage, True, len(m.parts), len(m.parts), rows_read(m, run.manifests), m.rows, m.seconds)
        for name, m in ((name, run.manifests[name]) for name in in_order(run.manifests))
    ]
    total = sum({row.seconds if row.stage in PASS else row.table: row.seconds for row in rows}.values())
    longest = max(row.seconds for row in rows) or 1.0
    head = el("tr", [el("th", name) for name in NAMES])
    body = [_row(row, longest) for row in rows]
    foot = el("tr", el("td", "all", colspan=6), el("td", seconds(total), class_="number"))
    table = el("table", el("thead", head), el("tbody", body), el("tfoot", foot), class_="timings")
    text = (
        "Time is summed over tasks, so workers side by side finish sooner than it says. Tables that one pass over the "
        "images fills show the time of that pass, which counts once in the sum."
    )
    return el("div", el("div", table, class_="scroll"), el("p", text, class_="quiet"))


def _row(row: StageStatus, longest: float) -> Markup:
    speed = row.images_per_second
    bar = el("i", class_="bar a", style=f"width:{100 * row.seconds / longest:.1f}%")
    cells = [
        str(row.parts_done),
        "" if row.rows_in is None else count(row.rows_in),
        count(row.rows_out),
        "" if speed is None else rate(speed),
    ]
    return el(
        "tr",
        el("td", row.table),
        el("td", row.stage, class_="dim"),
        [el("td", cell, class_="number") for cell in cells],
        el("td", el("span", seconds(row.seconds)), el("span", bar, class_="track"), class_="number time"),
    )
