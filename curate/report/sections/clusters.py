"""Clusters: their sizes before and after rebalancing, and what is in some of them."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.ops.entropy import effective_number
from curate.report.charts import Series, sorted_bars
from curate.report.markup import Markup, el
from curate.report.numbers import count, plural, share
from curate.report.pictures import Pictures
from curate.report.run import Run, pick

MAX_BARS = 400
"""Clusters drawn; of more, evenly spread ranks."""
NUM_BIGGEST, NUM_RANDOM = 3, 5
SHOWN = 6
"""Pictures nearest to the centroid, and as many random ones."""


class Sizes(NamedTuple):
    """Pool images per leaf cluster."""

    before: np.ndarray
    """(K,) kept by deduplication"""
    after: np.ndarray | None
    """(K,) selected; None: nothing was selected yet"""
    note: str


def sizes_section(run: Run) -> Markup | None:
    found = cluster_sizes(run)
    if found is None:
        return None
    before = Series("pool after deduplication", _sorted_share(found.before), "a")
    rows = [_row("pool after deduplication", found.before)]
    after = Series("", np.zeros(len(before.values)), "b")
    if found.after is not None and found.after.sum():
        after = Series("selected from the pool", _sorted_share(found.after), "b")
        rows.append(_row("selected from the pool", found.after))
    plot = sorted_bars(before, after, x_label="clusters, each set sorted by size", y_label="share of its images, %")
    names = ("", "images", "clusters with images", "effective clusters", "largest")
    table = el("table", el("thead", el("tr", [el("th", n) for n in names])), el("tbody", rows), class_="figures")
    text = (
        "Effective clusters: exp(entropy), the number of equally large clusters that would be as diverse. "
        f"The flatter the line, the more evenly concepts are covered. {found.note}"
    )
    return el("div", plot, el("div", table, class_="scroll"), el("p", text, class_="quiet"))


def cluster_sizes(run: Run) -> Sizes | None:
    """Sizes of the leaf clusters before and after the selection, of the pool's images."""
    if not run.has("assignments") or run.parts is None:
        return None
    before = run.sample("assignments", ["cluster_id"], role="pool")
    leaves = before.rows["cluster_id"].to_numpy()
    after, notes = None, [before.note]
    if run.has("selection"):
        chosen = run.sample("selection", ["clusters"], role="pool")
        after = _last(chosen.rows["clusters"].combine_chunks())
        notes.append(chosen.note)
    number = 1 + max(int(leaves.max(initial=-1)), -1 if after is None else int(after.max(initial=-1)))
    counted = None if after is None else np.bincount(after, minlength=number)
    return Sizes(np.bincount(leaves, minlength=number), counted, " ".join(notes).strip()) if number else None


def _last(paths: pa.ListArray) -> np.ndarray:
    """The leaf of each cluster path: its last step; paths without a step are left out."""
    offsets = paths.offsets.to_numpy()
    last: np.ndarray = paths.values.to_numpy()[offsets[1:][np.diff(offsets) > 0] - 1]
    return last


def _sorted_share(sizes: np.ndarray) -> np.ndarray:
    percent: np.ndarray = -np.sort(-sizes) * (100 / max(1, sizes.sum()))
    return percent if len(percent) <= MAX_BARS else percent[np.linspace(0, len(percent) - 1, MAX_BARS).astype(int)]


def _row(name: str, sizes: np.ndarray) -> Markup:
    effective = effective_number(sizes) if sizes.sum() else 0.0
    figures = [
        count(int(sizes.sum())),
        f"{count(int((sizes > 0).sum()))} of {count(len(sizes))}",
        f"{effective:.1f}",
        f"{count(int(sizes.max()))} ({share(sizes.max(), sizes.sum())})",
    ]
    return el("tr", el("td", name), [el("td", figure, class_="number") for figure in figures])


def examples_section(run: Run, pictures: Pictures) -> Markup | None:
    found = cluster_sizes(run)
    if found is None:
        return None
    sample = run.sample("assignments", ["image_id", "cluster_id", "similarity"], role="pool")
    rows = sample.rows.sort_by([("cluster_id", "ascending"), ("similarity", "descending"), ("image_id", "ascending")])
    order = np.argsort(-found.before, kind="stable")
    others = np.sort(order[NUM_BIGGEST:][found.before[order[NUM_BIGGEST:]] > 0])
    chosen = np.concatenate([order[:NUM_BIGGEST], pick(others, NUM_RANDOM, run.rng("clusters"))])
    text = f"The {min(NUM_BIGGEST, len(order))} largest clusters, then random ones. {sample.note}"
    return el("div", el("p", text, class_="quiet"), [_cluster(run, pictures, rows, found, int(c)) for c in chosen])


def _cluster(run: Run, pictures: Pictures, rows: pa.Table, sizes: Sizes, cluster: int) -> Markup:
    mine = rows.filter(pc.equal(rows["cluster_id"], cluster))["image_id"].to_numpy()
    near = mine[:SHOWN]
    random = pick(mine[SHOWN:], SHOWN, run.rng(f"cluster {cluster}"))
    chosen = "" if sizes.after is None else f", {count(int(sizes.after[cluster]))} selected"
    title = f"Cluster {cluster}: {plural(int(sizes.before[cluster]), 'image')}{chosen}"
    halves = [el("div", el("p", "nearest to the centroid", class_="label"), pictures.grid(near))]
    if len(random):
        halves.append(el("div", el("p", "random others", class_="label"), pictures.grid(random)))
    return el("div", el("h4", title), el("div", halves, class_="halves"))
