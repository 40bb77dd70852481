"""Figures of the selection itself, beside those of the pool it was chosen from."""

from curate.report.markup import Markup, el
from curate.report.numbers import count
from curate.report.run import Run

NOTES = {
    "Vendi score": "how many entirely different images would be as diverse; larger is more diverse",
    "images with a copy left": "selected images that resemble another selected one; curated sets enter as they are",
}


def section(run: Run) -> Markup | None:
    if not run.has("figures"):
        return None
    rows = run.table("figures").read_all().to_pylist()
    values = {(row["name"], row["set"]): row["value"] for row in rows}
    looked_at = {row["name"]: row["num_images"] for row in rows}
    head = el("tr", [el("th", name) for name in ("", "pool", "selection", "measured on", "")])
    body = [
        el(
            "tr",
            el("td", name),
            [el("td", _number(values.get((name, of))), class_="number") for of in ("pool", "selection")],
            el("td", f"{count(looked_at[name])} images", class_="number"),
            el("td", NOTES.get(name, "mean cosine of a curated image to the nearest pool image"), class_="quiet"),
        )
        for name in looked_at
    ]
    return el("div", el("table", el("thead", head), el("tbody", body), class_="figures"), class_="scroll")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return count(int(value)) if value == int(value) else f"{value:.3f}"
