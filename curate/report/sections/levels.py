"""Levels of the cluster tree: how many clusters, how even, how much they leave unexplained."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from curate.report.charts import Line, curves
from curate.report.markup import Markup, el
from curate.report.numbers import count
from curate.report.run import Run

STYLES = "abcd"
COLUMNS = (
    "",
    "clusters",
    "empty",
    "imbalance",
    "effective clusters",
    "smallest",
    "median",
    "largest",
    "inertia",
)


def section(run: Run) -> Markup | None:
    """Of every table of centroids that knows its levels."""
    found = [(name, run.metrics(name)["levels"]) for name in run.manifests if run.metrics(name).get("levels")]
    return el("div", [_tree(run, name, levels) for name, levels in found]) if found else None


def _tree(run: Run, name: str, levels: list[Mapping[str, Any]]) -> Markup:
    rows = [_row(_name(number, len(levels)), level) for number, level in enumerate(levels)]
    rows += [
        _row(f"leaves in {table}, all images", run.metrics(table)["leaves"])
        for table, manifest in run.manifests.items()
        if [name] in manifest.inputs.values() and "leaves" in manifest.metrics
    ]
    head = el("thead", el("tr", [el("th", column) for column in COLUMNS]))
    table = el("table", head, el("tbody", rows), class_="figures")
    text = (
        "Sizes count the images that were fitted. Imbalance: 1 where all clusters are equal, 2 where a random image "
        "finds twice as many in its cluster as then. Inertia: sum of squared distances to the centroid, of images, "
        "and above the leaves of the centroids below."
    )
    return el("div", el("h3", name), _curves(levels), el("div", table, class_="scroll"), el("p", text, class_="quiet"))


def _name(number: int, num_levels: int) -> str:
    if num_levels == 1:
        return "clusters"
    return "leaves" if number == 0 else f"level {number}"


def _curves(levels: list[Mapping[str, Any]]) -> Markup | None:
    lines = [
        Line(
            _name(number, len(levels)), 100 * np.array(level["curve"]), style, np.linspace(0, 100, len(level["curve"]))
        )
        for (number, level), style in zip(enumerate(levels), STYLES, strict=False)
        if level["curve"]
    ]
    labels = {"x_label": "smallest clusters, %", "y_label": "images in them, %"}
    return curves(lines, **labels, from_zero=True) if lines else None


def _row(name: str, level: Mapping[str, Any]) -> Markup:
    imbalance = "" if level["imbalance"] is None else f"{level['imbalance']:.2f}"
    figures = [
        count(level["clusters"]),
        count(level["empty"]),
        imbalance,
        f"{level['effective']:,.1f}",
        *(count(level[key]) for key in ("smallest", "median", "largest")),
        f"{level['inertia']:,.4g}" if "inertia" in level else "",
    ]
    return el("tr", el("td", name), [el("td", figure, class_="number") for figure in figures])
