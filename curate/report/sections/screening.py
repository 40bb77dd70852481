"""Screening: how alike images are to their neighbours, and what was kept out of the balanced draw for it."""

import numpy as np

from curate.report.charts import Marker, Series, histogram
from curate.report.markup import Markup, el
from curate.report.numbers import plural
from curate.report.pictures import Pictures
from curate.report.run import Run, pick

NUM_BINS = 60
SHOWN = 12
"""Pictures of each kind."""


def section(run: Run, pictures: Pictures) -> Markup | None:
    if not run.has("screened") or run.parts is None:
        return None
    sample, metrics = run.sample("screened", ["image_id", "density", "coherence", "junk"]), run.metrics("screened")
    junk, ids = (sample.rows[name].to_numpy() for name in ("junk", "image_id"))
    density, coherence = (sample.rows[name].fill_null(np.nan).to_numpy() for name in ("density", "coherence"))
    measured = np.isfinite(density)
    if not measured.any():
        return None
    edges = np.linspace(min(0.0, float(density[measured].min())), 1.0, NUM_BINS + 1)
    series = [
        Series(name, np.histogram(density[mask & measured], edges)[0], style)
        for name, mask, style in (("stays", ~junk, "a"), ("kept out", junk, "d"))
    ]
    bounds = [Marker(f"{name} {metrics[name]:.3f}", metrics[name], "b") for name in ("low", "high")]
    chart = histogram(
        edges, series, [m for m in bounds if edges[0] < m.at < 1], x_label="mean cosine to neighbours", counted="images"
    )
    alike = (density > metrics["high"]) | (coherence > metrics["high"])
    grids = [
        _grid(run, pictures, title, ids[junk & mask])
        for title, mask in (("too alike", alike), ("like nothing else", ~alike))
    ]
    text = (
        f"{plural(metrics['junk'], 'image')} kept out of the balanced draw, {metrics['too_alike']} of them as more "
        "alike than pictures of this pool are once copies are gone, the others as like nothing else. Retrieval and "
        "curated sets take no notice. If you want them: a larger screening.screen.z, or screening=null. " + sample.note
    )
    return el("div", chart, el("p", text, class_="quiet"), [grid for grid in grids if grid is not None])


def _grid(run: Run, pictures: Pictures, title: str, ids: np.ndarray) -> Markup | None:
    if len(ids) == 0:
        return None
    shown = pictures.grid(pick(ids, SHOWN, run.rng(f"screening {title}")))
    return el("div", el("h4", f"Kept out: {title}"), shown)
