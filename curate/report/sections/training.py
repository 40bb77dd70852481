"""Pretraining: the curves of its log, and how the backbone reads images beside its initialisation."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.report.charts import Line, curves
from curate.report.markup import Markup, el
from curate.report.numbers import count
from curate.report.run import Run
from curate.tables import TRAINING_LOG

STYLES = ("a", "b", "c", "d", "e", "f")


def section(run: Run) -> Markup | None:
    blocks = [_curves(run) if run.has("pretrain") else None, _evaluation(run) if run.has("evaluation") else None]
    return el("div", blocks) if any(blocks) else None


def _curves(run: Run) -> Markup:
    rows = run.sample("pretrain", TRAINING_LOG.names).rows.sort_by("step")
    names = rows["name"].unique().to_pylist()
    losses = [name for name in names if name == "loss" or name.startswith("loss_")]
    scores = [name for name in names if name.startswith("knn")]
    spread = [name for name in names if name.endswith("entropy")]
    charts = [
        _chart(rows, losses, title="Losses", y_label="loss"),
        _chart(rows, scores, title="k-NN accuracy while training", y_label="accuracy"),
        _chart(
            rows,
            spread,
            title="Entropy of the teacher: a collapse shows as a fall to 0",
            y_label="entropy",
            from_zero=True,
        ),
    ]
    steps = int(rows["step"].to_numpy().max(initial=0))
    text = f"{count(steps)} steps. A falling loss says that training works, not that the features are good."
    return el("div", el("p", text, class_="quiet"), el("div", charts, class_="charts"))


def _chart(rows: pa.Table, names: list[str], *, title: str, y_label: str, from_zero: bool = False) -> Markup | None:
    lines = []
    for name, style in zip(names, STYLES, strict=False):
        mine = rows.filter(pc.equal(rows["name"], name))
        x = mine["step"].to_numpy().astype(np.float64)
        lines.append(Line(name.removeprefix("loss_").replace("_", " "), mine["value"].to_numpy(), style, x))
    if not lines:
        return None
    return el("div", el("h3", title), curves(lines, x_label="step", y_label=y_label, from_zero=from_zero))


def _evaluation(run: Run) -> Markup:
    rows = run.sample("evaluation", run.table("evaluation").schema().names).rows
    head = el("tr", [el("th", name.replace("_", " ")) for name in rows.column_names])
    body = [el("tr", [_cell(row[name]) for name in rows.column_names]) for row in rows.slice(0, 100).to_pylist()]
    table = el("div", el("table", el("thead", head), el("tbody", body), class_="scores"), class_="scroll")
    text = "Frozen features. The gain is compared image by image; one within two standard errors of 0 is no evidence."
    return el("div", el("h3", "Evaluation"), table, el("p", text, class_="quiet"))


def _cell(value: object) -> Markup:
    if isinstance(value, float):
        return el("td", f"{value:.4f}", class_="number")
    if isinstance(value, int):
        return el("td", count(value), class_="number")
    return el("td", "" if value is None else str(value))
