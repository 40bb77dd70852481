"""How similar the found pairs are, beside the thresholds that made them copies."""

import numpy as np

from curate.report.charts import Marker, Series, histogram
from curate.report.markup import Markup, el
from curate.report.run import Run

NUM_BINS = 60
NAMES = {"embedding": "Embedding", "hash": "Perceptual hash (PDQ)"}


def section(run: Run) -> Markup | None:
    charts = [_chart(run, table) for table in run.under("neighbors")] if run.parts is not None else []
    shown = [chart for chart in charts if chart is not None]
    if not shown:
        return None
    text = (
        "Only pairs at or above the lower of the two thresholds are stored, so the plots of copies begin there. A pair "
        "counts once for each image that found it."
    )
    return el("div", el("p", text, class_="quiet"), el("div", shown, class_="charts"))


def _chart(run: Run, table: str) -> Markup | None:
    sample = run.sample(table, ["query_id", "similarity", "kind"])
    if len(sample.rows) == 0:
        return None
    similarity = sample.rows["similarity"].to_numpy()
    query = sample.rows["query_id"].to_numpy()
    kind = sample.rows["kind"][0].as_py()
    markers = _markers(run, table)
    low = min([float(similarity.min()), *(m.at for m in markers)])
    edges = np.linspace(np.floor(low * 50) / 50, max(1.0, float(similarity.max())), NUM_BINS + 1)
    roles = (("pool", "asked by pool images", "a"), ("curated", "by curated", "b"), ("heldout", "by held-out", "d"))
    series = []
    for role, name, style in roles:
        mask = run.has_role(query, role)
        if mask.any():
            series.append(Series(name, np.histogram(similarity[mask], edges)[0], style))
    title = f"{NAMES.get(kind, kind)}: {table.removeprefix('neighbors/')}"
    plot = histogram(edges, series, markers, x_label="cosine similarity")
    return el("div", el("h3", title), plot, el("p", sample.note, class_="quiet") if sample.note else None)


def _markers(run: Run, table: str) -> list[Marker]:
    resolved = run.manifests[table].resolved
    own, heldout = resolved.get("threshold"), resolved.get("heldout_threshold")
    if own is None or own <= -1:
        return []
    if own == heldout or heldout is None:
        return [Marker(f"threshold {own:g}", own, "ink")]
    return [Marker(f"threshold {own:g}", own, "ink"), Marker(f"held-out threshold {heldout:g}", heldout, "d")]
