"""Pretraining: the curves of its log, and how the backbone reads images beside its initialisation."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.report.charts import Line, curves
from curate.report.markup import Markup, el
from curate.report.numbers import count
from curate.report.run import Run
from curate.tables import TRAINING_LOG

STYLES = ("a", "b", "c", "d", "e", "f")


class Figures(NamedTuple):
    """A chart of the log: the rows whose names begin like this."""

    title: str
    y_label: str
    prefixes: tuple[str, ...]
    from_zero: bool = False
    by_scale: bool = False
    """Figures up to 1 in a chart of their own: beside larger ones they would lie flat."""


CHARTS = (
    Figures("Losses", "loss", ("loss",)),
    Figures("Measured while training", "value", ("eval_",), by_scale=True),
    Figures("Entropy of the teacher: a collapse shows as a fall to 0", "nats", ("teacher_entropy",), True),
    Figures("Prototypes in use: a collapse shows as a fall to 1", "prototypes", ("prototypes_used",), True),
    Figures("Spread of the features: 1 is isotropic, 0 collapsed", "spread", ("feature_std",), True),
    Figures("Norm of the gradients before clipping", "norm", ("gradient_norm_",), True),
    Figures("Speed", "images/s", ("images_per_second",), True),
    Figures("Learning rate", "rate", ("learning_rate",), True),
)
"""What is shown of a log where it is there; other names of the log stay in its table."""


def section(run: Run) -> Markup | None:
    blocks = [_curves(run) if run.has("pretrain") else None, _evaluation(run) if run.has("evaluation") else None]
    return el("div", blocks) if any(blocks) else None


def _curves(run: Run) -> Markup:
    rows = run.sample("pretrain", TRAINING_LOG.names).rows.sort_by("step")
    charts = [chart for figures in CHARTS for chart in _charts(rows, figures)]
    steps = int(rows["step"].to_numpy().max(initial=0))
    text = f"{count(steps)} steps. A falling loss says that training works, not that the features are good."
    return el("div", el("p", text, class_="quiet"), el("div", charts, class_="charts"))


def _charts(rows: pa.Table, figures: Figures) -> Iterator[Markup]:
    """A chart of the names that begin so, or more than one where there are more names than colours."""
    names = sorted(name for name in rows["name"].unique().to_pylist() if name.startswith(figures.prefixes))
    lines = [_line(rows, name, figures) for name in names]
    for group in _by_scale(lines) if figures.by_scale else [lines]:
        for start in range(0, len(group), len(STYLES)):
            colored = zip(group[start : start + len(STYLES)], STYLES, strict=False)
            drawn = [replace(line, style=style) for line, style in colored]
            chart = curves(drawn, x_label="step", y_label=figures.y_label, from_zero=figures.from_zero)
            yield el("div", el("h3", figures.title), chart)


def _line(rows: pa.Table, name: str, figures: Figures) -> Line:
    """Named without what all of the chart share: `loss_dino` -> `dino`."""
    mine = rows.filter(pc.equal(rows["name"], name))
    short = name
    for prefix in figures.prefixes:
        short = short.removeprefix(f"{prefix.removesuffix('_')}_")
    return Line(short.replace("_", " "), mine["value"].to_numpy(), "", mine["step"].to_numpy().astype(np.float64))


def _by_scale(lines: list[Line]) -> list[list[Line]]:
    """Lines that stay within -1..1, then the others."""
    within = [np.abs(line.values[np.isfinite(line.values)]).max(initial=0) <= 1 for line in lines]
    return [[line for line, fits in zip(lines, within, strict=True) if fits == wanted] for wanted in (True, False)]


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
