"""Pretraining: the curves of its log, and how the backbone reads images beside its initialisation."""

import numpy as np
import pyarrow as pa

from curate.report.charts import Line, curves
from curate.report.markup import Markup, el
from curate.report.numbers import count
from curate.report.run import Run

STYLES = ("a", "b", "c", "d", "e", "f")


def section(run: Run) -> Markup | None:
    blocks = [_curves(run) if run.has("pretrain") else None, _evaluation(run) if run.has("evaluation") else None]
    return el("div", blocks) if any(blocks) else None


def _curves(run: Run) -> Markup:
    rows = run.sample("pretrain", run.table("pretrain").schema().names).rows.sort_by("step")
    losses = [name for name in rows.column_names if name == "loss" or name.startswith("loss_")]
    scores = [name for name in rows.column_names if name.startswith("knn")]
    charts = [
        _chart(rows, losses, title="Losses", y_label="loss"),
        _chart(rows, scores, title="k-NN accuracy while training", y_label="accuracy"),
    ]
    steps = int(rows["step"].to_numpy().max()) if len(rows) else 0
    text = f"{count(steps)} steps. A falling loss says that training works, not that the features are good."
    return el("div", el("p", text, class_="quiet"), el("div", charts, class_="charts"))


def _chart(rows: pa.Table, names: list[str], *, title: str, y_label: str) -> Markup | None:
    step = rows["step"].to_numpy().astype(np.float64)
    lines = []
    for name, style in zip(names, STYLES, strict=False):
        values = rows[name].cast(pa.float64()).to_numpy()
        known = np.isfinite(values)
        if known.any():  # a score is written now and then only
            lines.append(Line(name.removeprefix("loss_"), values[known], style, step[known]))
    if not lines:
        return None
    return el("div", el("h3", title), curves(lines, x_label="step", y_label=y_label))


def _evaluation(run: Run) -> Markup:
    rows = run.sample("evaluation", run.table("evaluation").schema().names).rows
    head = el("tr", [el("th", name.replace("_", " ")) for name in rows.column_names])
    body = [el("tr", [_cell(row[name]) for name in rows.column_names]) for row in rows.slice(0, 100).to_pylist()]
    table = el("div", el("table", el("thead", head), el("tbody", body)), class_="scroll")
    text = "Frozen features. Differences within two standard errors are no evidence."
    return el("div", el("h3", "Evaluation"), table, el("p", text, class_="quiet"))


def _cell(value: object) -> Markup:
    if isinstance(value, float):
        return el("td", f"{value:.4f}", class_="number")
    if isinstance(value, int):
        return el("td", count(value), class_="number")
    return el("td", "" if value is None else str(value))
