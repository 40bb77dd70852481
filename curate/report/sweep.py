"""`curate sweep`: what each threshold of a search would drop, and the pairs about it, to choose by eye.

From the stored pairs, so no table is made again, and thresholds begin where the search did. To look below, run in
another workdir with a looser threshold; a run that verifies copies has searched loosely already (`candidates/near`).
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from curate.engine.store import Store
from curate.ops.copies.components import DisjointSet
from curate.report.charts import Line, curves
from curate.report.markup import Markup, el
from curate.report.numbers import count
from curate.report.page import document
from curate.report.pictures import Pictures, short_name
from curate.report.run import Run
from curate.report.sections.similarity import bin_edges

FILE = "report/sweep.html"
NUM_SHOWN, NUM_PAIRS = 6, 4
"""Thresholds of a search that have pairs beside them; pairs of each."""


@dataclass(frozen=True)
class Swept:
    """What one threshold would do, on its own."""

    search: str
    threshold: float
    pairs: int
    """Pairs of pool images at or above it."""
    dropped: int
    """Pool images that would leave as copies of another."""
    largest: int
    """Images of the largest group."""
    heldout: int
    """Pool images with a held-out image at or above it."""


@dataclass(frozen=True)
class _Pairs:
    """The pairs of one search that concern the pool, each once, the most similar first."""

    ids: np.ndarray
    """(E, 2) int64; the pool image last where the other is held out"""
    similarity: np.ndarray
    """(E,) float32"""
    heldout: np.ndarray
    """(E,) bool: the first image is a held-out one"""
    thresholds: np.ndarray
    """(T,) ascending"""


def searches(run: Run) -> list[str]:
    """Tables of pairs that come of a search, the looser of two first."""
    names = [name for name in (*run.under("candidates"), *run.under("neighbors")) if name != "candidates/pairs"]
    loose = [n for n in names if not (n == "neighbors/copy" and "candidates/near" in names)]
    return [n for n in loose if (run.manifests[n].resolved.get("threshold") or -1) > -1]


def sweep(run: Run) -> list[Swept]:
    """Every threshold of every search. Memory: 30 bytes a stored pair of one search, and its images.

    Groups are those of one search alone; `duplicates` joins all of them, and equal bytes.
    """
    return [row for search in searches(run) for row in _sweep(search, _read(run, search))]


def write_sweep(store: Store) -> tuple[list[Swept], str]:
    """Write `report/sweep.html`; returns the figures and its path.

    Raises:
        TableError: the workdir holds no finished table.
    """
    run, pictures, blocks, rows = Run.open(store), Pictures(store), [], []
    for search in searches(run):
        pairs = _read(run, search)
        found = _sweep(search, pairs)
        rows += found
        blocks.append(_section(run, search, found, pairs, pictures))
    text = "Each search on its own, from the pairs it stored. Nothing of the run was changed."
    head = el("header", el("h1", f"Thresholds of {run.name}"), el("p", text, class_="lead"))
    store.write_bytes(FILE, document(f"{run.name}: thresholds", el("body", head, el("main", blocks))).encode())
    return rows, store.join(FILE)


def as_rows(found: list[Swept]) -> list[dict[str, object]]:
    """For JSON."""
    return [asdict(row) for row in found]


def _read(run: Run, search: str) -> _Pairs:
    sample = run.sample(search, ["query_id", "image_id", "similarity", "kind"], max_rows=1 << 27)
    query, image = (sample.rows[name].to_numpy() for name in ("query_id", "image_id"))
    similarity = sample.rows["similarity"].to_numpy()
    heldout = run.has_role(query, "heldout")
    ours = run.has_role(image, "pool") & (heldout | run.has_role(query, "pool"))
    first, second = (
        np.where(heldout, query, np.minimum(query, image)),
        np.where(heldout, image, np.maximum(query, image)),
    )
    ids = np.stack([first, second], axis=1)[ours]
    _, once = np.unique(ids, axis=0, return_index=True)
    order = once[np.argsort(-similarity[ours][once], kind="stable")]
    low = float(run.manifests[search].resolved["threshold"])
    kind = sample.rows["kind"][0].as_py() if len(sample.rows) else "embedding"
    steps = bin_edges(low, kind=kind, anchor=low)[1:-1] if kind == "hash" else np.arange(np.ceil(100 * low), 100) / 100
    steps = np.unique([low, *steps[(steps > low) & (steps < 1)]])
    return _Pairs(ids[order], similarity[ours][order], heldout[ours][order], steps)


def _sweep(search: str, pairs: _Pairs) -> list[Swept]:
    """From the strictest threshold down, each adding its pairs to the groups of the one before."""
    nodes, place = np.unique(pairs.ids[~pairs.heldout], return_inverse=True)
    rows, cols = place.reshape(-1, 2).T
    own, asked = pairs.similarity[~pairs.heldout], pairs.similarity[pairs.heldout]
    groups, done, found = DisjointSet(len(nodes)), 0, []
    for threshold in pairs.thresholds[::-1].tolist():
        stop = int((own >= np.float32(threshold)).sum())
        groups.union(rows[done:stop], cols[done:stop])
        done = stop
        sizes = np.unique(groups.labels(), return_counts=True)[1]
        touched = pairs.ids[pairs.heldout][asked >= np.float32(threshold), 1]
        largest = int(sizes.max(initial=1))
        found.append(Swept(search, threshold, stop, len(nodes) - len(sizes), largest, len(np.unique(touched))))
    return found[::-1]


def _section(run: Run, search: str, found: list[Swept], pairs: _Pairs, pictures: Pictures) -> Markup:
    resolved = run.manifests[search].resolved
    head = el("tr", [el("th", n) for n in ("threshold", "pairs", "images dropped", "largest group", "touch held-out")])
    rows = [
        el(
            "tr",
            el("td", f"{row.threshold:.4g}", class_="number"),
            [el("td", count(n), class_="number") for n in cells],
        )
        for row in found
        for cells in [(row.pairs, row.dropped, row.largest, row.heldout)]
    ]
    at = np.array([row.threshold for row in found])
    dropped = Line("images dropped", np.array([row.dropped for row in found], float), "a", at)
    return el(
        "section",
        el("h2", search),
        el("p", f"Searched from {resolved['threshold']:.4g} on.", class_="quiet"),
        curves([dropped], x_label="threshold", y_label="images dropped", from_zero=True) if len(found) > 1 else None,
        el("div", el("table", el("thead", head), el("tbody", rows), class_="figures"), class_="scroll"),
        [_examples(run, low, high, pairs, pictures) for low, high in _shown(pairs.thresholds)],
    )


def _shown(thresholds: np.ndarray) -> Iterator[tuple[float, float]]:
    """Some of the steps between thresholds, from the loosest on."""
    if len(thresholds) == 0:
        return
    ends = [*thresholds[1:].tolist(), 1.0001]
    for place in np.unique(np.linspace(0, len(thresholds) - 1, NUM_SHOWN).round().astype(int)).tolist():
        yield float(thresholds[place]), ends[place]


def _examples(run: Run, low: float, high: float, pairs: _Pairs, pictures: Pictures) -> Markup | None:
    within = np.flatnonzero((pairs.similarity >= low) & (pairs.similarity < high))
    if len(within) == 0:
        return None
    rows = run.rng(f"sweep {low}").permutation(within)[:NUM_PAIRS]
    pictures.load(pairs.ids[rows].ravel().tolist())
    shown = []
    for row in rows.tolist():
        one, other = pairs.ids[row].tolist()
        mark = "heldout" if pairs.heldout[row] else ""
        left = pictures.figure(one, f"{pairs.similarity[row]:.3f}", short_name(pictures[one].key), mark=mark)
        right = pictures.figure(other, short_name(pictures[other].key))
        shown.append(el("div", left, right, class_="grid group evidence"))
    title = f"Pairs of {low:.4g} to {min(high, 1):.4g}: {count(len(within))}"
    return el("div", el("h3", title), el("div", shown, class_="pairs"))
