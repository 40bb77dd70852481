"""SemDeDup: what each threshold would keep."""

from typing import Any

import numpy as np

from curate.report.charts import Line, curves
from curate.report.markup import Markup, el
from curate.report.numbers import count
from curate.report.run import Run


def section(run: Run) -> Markup | None:
    found = [(name, run.metrics(name)["sweep"]) for name in run.manifests if run.metrics(name).get("sweep")]
    return el("div", [_sweep(run, name, sweep) for name, sweep in found]) if found else None


def _sweep(run: Run, name: str, sweep: list[dict[str, Any]]) -> Markup:
    total = max(1, run.manifests[name].rows)
    eps = np.array([point["eps"] for point in sweep])
    kept = np.array([100 * point["kept"] / total for point in sweep])
    chosen = [m.resolved.get("eps") for m in run.manifests.values() if [name] in m.inputs.values()]
    text = (
        "An image goes if its cosine to a preferred one of its cluster exceeds 1 - eps. This run: "
        f"{', '.join(f'eps {value:g}' for value in chosen if value is not None)}. The similarities are stored: another "
        "eps remakes the verdicts and what follows, not the search."
    )
    head = el("tr", [el("th", name) for name in ("eps", "kept", "share")])
    rows = [
        el("tr", [el("td", cell, class_="number") for cell in (f"{e:g}", count(point["kept"]), f"{share:.1f} %")])
        for e, point, share in zip(eps, sweep, kept, strict=True)
    ]
    chart = curves([Line("kept", kept, "a", eps)], x_label="eps", y_label="images kept, %", from_zero=True)
    return el("div", chart, el("table", head, rows, class_="figures"), el("p", text, class_="quiet"))
