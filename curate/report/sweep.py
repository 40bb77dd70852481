"""`curate sweep`: what each threshold of a search would drop, and the pairs about it, to choose by eye.

From the stored pairs, so no table is made again, and thresholds begin where the search did. To look below, run in
another workdir with a looser threshold; a run that verifies copies has searched loosely already.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from curate.engine.finished import Finished
from curate.engine.show import Block, Curves, Gallery, Heading, Line, Numbers, Picture, Text
from curate.engine.table import Table
from curate.ops.copies.components import DisjointSet
from curate.report.markup import el
from curate.report.page import SWEEP_FILE, document
from curate.report.pictures import Pictures
from curate.report.render import render_blocks
from curate.report.sections import outdated
from curate.stages.copies.judge_pairs import JudgePairs
from curate.stages.search.neighbors import FindNeighbors, bin_edges

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


def searches(run: Finished) -> list[tuple[FindNeighbors | JudgePairs, Table]]:
    """Searches for copies with the pairs they stored; those for nearest neighbors have no threshold to choose."""
    found: list[tuple[FindNeighbors | JudgePairs, Table]] = [*run.made_by(FindNeighbors), *run.made_by(JudgePairs)]
    return [(stage, table) for stage, table in found if stage.threshold is not None and stage.threshold > -1]


def sweep(run: Finished) -> list[Swept]:
    """Every threshold of every search. Memory: 30 bytes a stored pair of one search, and its images.

    Groups are those of one search alone, chains not split; deduplication joins all searches, and equal bytes.
    """
    return [row for stage, table in searches(run) for row in _sweep(table.name, _read(run, stage, table))]


def write_sweep(run: Finished) -> tuple[list[Swept], str]:
    """Write `report/sweep.html`; returns the figures and its path."""
    pictures, blocks, rows = Pictures(run), [], []
    for stage, table in searches(run):
        pairs = _read(run, stage, table)
        found = _sweep(table.name, pairs)
        rows += found
        content = render_blocks(_section(run, stage, found, pairs), pictures)
        blocks.append(el("section", el("h2", table.name), content))
    text = "Each search on its own, from the pairs it stored, chains not split. Nothing of the run was changed."
    head = el(
        "header",
        el("h1", f"Thresholds of {run.name}"),
        el("p", text, class_="lead"),
        *(el("p", line) for line in outdated(run)),
    )
    page = document(f"{run.name}: thresholds", el("body", head, el("main", blocks)), pictures)
    run.store.write_bytes(SWEEP_FILE, page.encode())
    return rows, run.store.join(SWEEP_FILE)


def as_rows(found: list[Swept]) -> list[dict[str, object]]:
    """For JSON."""
    return [asdict(row) for row in found]


def _read(run: Finished, stage: FindNeighbors | JudgePairs, table: Table) -> _Pairs:
    sample = run.sample(table, ["query_id", "image_id", "similarity", "kind"], max_rows=1 << 27)
    query, image = (sample.rows[name].to_numpy() for name in ("query_id", "image_id"))
    similarity = sample.rows["similarity"].to_numpy()
    heldout = run.has_role(query, "heldout")
    ours = run.has_role(image, "pool") & (heldout | run.has_role(query, "pool"))
    first, second = (
        np.where(heldout, query, np.minimum(query, image)),
        np.where(heldout, image, np.maximum(query, image)),
    )
    ids, similarity = np.stack([first, second], axis=1)[ours], similarity[ours]
    strongest = np.argsort(-similarity, kind="stable")
    _, once = np.unique(ids[strongest], axis=0, return_index=True)  # of both directions the more similar one
    order = strongest[np.sort(once)]
    assert stage.threshold is not None
    low = stage.threshold
    kind = sample.rows["kind"][0].as_py() if len(sample.rows) else "embedding"
    steps = bin_edges(low, kind=kind, anchor=low)[1:-1] if kind == "hash" else np.arange(np.ceil(100 * low), 100) / 100
    steps = np.unique([low, *steps[(steps > low) & (steps < 1)]])
    return _Pairs(ids[order], similarity[order], heldout[ours][order], steps)


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


def _section(run: Finished, stage: FindNeighbors | JudgePairs, found: list[Swept], pairs: _Pairs) -> list[Block]:
    blocks: list[Block] = [Text(f"Searched from {stage.threshold:.4g} on.")]
    at = np.array([row.threshold for row in found])
    if len(found) > 1:
        dropped = Line("images dropped", np.array([row.dropped for row in found], float), "a", at)
        blocks.append(Curves([dropped], x_label="threshold", y_label="images dropped", from_zero=True))
    head = ("threshold", "pairs", "images dropped", "largest group", "touch held-out")
    rows = ((float(row.threshold), row.pairs, row.dropped, row.largest, row.heldout) for row in found)
    blocks.append(Numbers(head, tuple(rows)))
    return [*blocks, *(block for low, high in _shown(pairs.thresholds) for block in _examples(run, low, high, pairs))]


def _shown(thresholds: np.ndarray) -> Iterator[tuple[float, float]]:
    """Some of the steps between thresholds, from the loosest on."""
    if len(thresholds) == 0:
        return
    ends = [*thresholds[1:].tolist(), 1.0001]
    for place in np.unique(np.linspace(0, len(thresholds) - 1, NUM_SHOWN).round().astype(int)).tolist():
        yield float(thresholds[place]), ends[place]


def _examples(run: Finished, low: float, high: float, pairs: _Pairs) -> Iterator[Block]:
    within = np.flatnonzero((pairs.similarity >= low) & (pairs.similarity < high))
    if len(within) == 0:
        return
    yield Heading(f"Pairs of {low:.4g} to {min(high, 1):.4g}: {len(within):,}")
    for row in run.rng(f"sweep {low}").permutation(within)[:NUM_PAIRS].tolist():
        one, other = pairs.ids[row].tolist()
        left = Picture(one, (f"{pairs.similarity[row]:.3f}",), "heldout" if pairs.heldout[row] else "")
        yield Gallery((left, Picture(other)), group=True)
