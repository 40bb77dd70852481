"""Calibration: what each threshold for copies would give, as copies planted in this pool measured it."""

import numpy as np

from curate.report.charts import Line, curves
from curate.report.markup import Markup, el
from curate.report.numbers import count
from curate.report.run import Run

COLUMNS = ("pairs", "threshold", "precision", "at least", "recall")
KEYS = ("threshold", "precision", "precision_low", "recall")
"""Of the metrics, in the order of the columns."""
NAMES = {"pool": "within the pool", "heldout": "with held-out images"}
TABLE = "thresholds/copy"


def section(run: Run) -> Markup | None:
    if not run.has(TABLE):
        return None
    metrics, planted = run.metrics(TABLE), run.metrics("planted/copy")
    rows = run.table(TABLE).read_all().to_pylist()
    points = sorted((row for row in rows if row["use"] is None), key=lambda row: row["threshold"])
    at = np.array([row["threshold"] for row in points])
    lines = [
        Line(name, 100 * np.array([row[key] for row in points]), style, at)
        for name, key, style in (("precision", "precision", "a"), ("recall", "recall", "b"))
    ]
    body = [
        el("tr", el("td", NAMES[use]), [el("td", f"{metrics[use][key]:.3f}", class_="number") for key in KEYS])
        for use in NAMES
    ]
    head = el("thead", el("tr", [el("th", name) for name in COLUMNS]))
    table = el("table", head, el("tbody", body), class_="figures")
    text = (
        f"Measured with {count(planted['copies'])} copies of {count(planted['images'])} images of this pool: chains of "
        "web edits, half of which judge. A copy searches the pool; its original is right, another picture is wrong. "
        "Images that can be laid over the original may be copies that the pool already holds: they are left out of the "
        "precision, and wrong in the column after it."
    )
    chart = curves(lines, x_label="similarity", y_label="%")
    return el("div", chart, el("div", table, class_="scroll"), el("p", text, class_="quiet"))
