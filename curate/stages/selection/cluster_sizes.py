"""Images per leaf cluster before and after the selection, and how the report shows them."""

from typing import NamedTuple

import numpy as np

from curate.engine.finished import Finished
from curate.engine.numbers import count, share
from curate.engine.show import Cell, Numbers, Section, Series, SortedBars, Text
from curate.engine.table import Table
from curate.ops.entropy import effective_number
from curate.stages.clusters.leaves import leaf_sizes, selected_leaf_sizes

MAX_BARS = 400
"""Clusters that are drawn; of more, evenly spread ranks."""


class ClusterSizes(NamedTuple):
    """Pool images per leaf cluster."""

    before: np.ndarray
    """(K,) int64, images that deduplication kept"""
    after: np.ndarray
    """(K,) int64, images that were selected"""
    note: str
    """What to say where the sizes are those of samples; empty where they are not."""


def cluster_sizes(run: Finished, assignments: Table, selection: Table) -> ClusterSizes:
    """Sizes of the leaf clusters before and after the selection, of the pool's images."""
    before, after = leaf_sizes(run, assignments), selected_leaf_sizes(run, selection)
    number = max(len(before.images), len(after.images))
    padded = [np.pad(sizes, (0, number - len(sizes))) for sizes in (before.images, after.images)]
    return ClusterSizes(padded[0], padded[1], " ".join(note for note in (before.note, after.note) if note))


def sizes_section(sizes: ClusterSizes) -> Section:
    """The sizes as bars and as numbers, each set sorted by itself."""
    before = Series("pool after deduplication", _sorted_share(sizes.before), "a")
    after = Series("selected from the pool", _sorted_share(sizes.after), "b")
    bars = SortedBars(before, after, "clusters, each set sorted by size", "share of its images, %")
    head = ("", "images", "clusters with images", "effective clusters", "largest")
    text = (
        "Effective clusters: exp(entropy), the number of equally large clusters that would be as diverse. "
        f"The flatter the line, the more evenly concepts are covered. {sizes.note}"
    )
    rows = (_row(before.name, sizes.before), _row(after.name, sizes.after))
    return Section("Cluster sizes before and after", (bars, Numbers(head, rows), Text(text.strip())), first=True)


def _sorted_share(sizes: np.ndarray) -> np.ndarray:
    percent: np.ndarray = -np.sort(-sizes) * (100 / max(1, sizes.sum()))
    return percent if len(percent) <= MAX_BARS else percent[np.linspace(0, len(percent) - 1, MAX_BARS).astype(int)]


def _row(name: str, sizes: np.ndarray) -> tuple[Cell, ...]:
    effective = effective_number(sizes) if sizes.sum() else 0.0
    filled = f"{count(int((sizes > 0).sum()))} of {count(len(sizes))}"
    largest = f"{count(int(sizes.max()))} ({share(sizes.max(), sizes.sum())})"
    return name, int(sizes.sum()), filled, round(effective, 1), largest
