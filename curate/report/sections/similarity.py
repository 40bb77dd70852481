"""How similar the found pairs are, beside the thresholds that made them copies."""

import numpy as np

from curate.report.charts import Marker, Series, histogram
from curate.report.markup import Markup, el
from curate.report.run import Run

NUM_BINS = 60
NAMES = {"embedding": "Embedding", "aligned": "Embedding, verified by alignment", "hash": "Perceptual hash (PDQ)"}


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
    edges = bin_edges(low, kind=kind, anchor=markers[0].at if markers else low)
    roles = (("pool", "asked by the pool", "a"), ("curated", "by curated", "b"), ("heldout", "by held-out", "d"))
    series = []
    for role, name, style in roles:
        mask = run.has_role(query, role)
        if mask.any():
            series.append(Series(name, np.histogram(similarity[mask], edges)[0], style))
    title = f"{NAMES.get(kind, kind)}: {table.removeprefix('neighbors/')}"
    plot = histogram(edges, series, markers, x_label="cosine similarity")
    return el("div", el("h3", title), plot, el("p", sample.note, class_="quiet") if sample.note else None)


def bin_edges(low: float, *, kind: str, anchor: float) -> np.ndarray:
    """Bins from `low` to 1, one bound on the threshold; those of hashes hold one distance each.

    The halves of a PDQ hash are above and below its median, so two hashes differ in an even number of bits.
    """
    if kind == "hash":
        step = 4 / 256
        return np.arange(np.floor(low / step), 1 / step + 2) * step - step / 2
    step = max(1 - low, 1e-3) / NUM_BINS
    first = anchor - np.ceil((anchor - low) / step) * step
    number = int(np.ceil((1 - first) / step + 1e-6))
    return np.asarray(first + np.arange(number + 1) * step)


def _markers(run: Run, table: str) -> list[Marker]:
    resolved = run.manifests[table].resolved
    own, heldout = resolved.get("threshold"), resolved.get("heldout_threshold")
    if own is None or own <= -1:
        return []
    if own == heldout or heldout is None:
        return [Marker(f"threshold {own:g}", own, "ink")]
    return [Marker(f"threshold {own:g}", own, "ink"), Marker(f"held-out threshold {heldout:g}", heldout, "d")]
