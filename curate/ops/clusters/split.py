"""Very many clusters by splitting few: k-means into cells, then k-means within each cell.

k-means of N vectors into K clusters takes N x K products an iteration, which for K in proportion to N is the square of
N. Here vectors are first divided among cells, each of which gives about 128 clusters; those of a cell meet the
clusters of the cell alone. That is how the 10 million clusters of Vo et al. 2024 were fitted, 100 in each of 100,000.
Here a cell gets clusters by its share of the inertia, since one that holds a single concept many times gains little by
more of them.

What it costs: a vector near the border of its cell may find a nearer centroid beyond it. Of 60,000 vectors and 3,000
clusters the inertia was 3 % above that of plain k-means where vectors form no groups, and 5 % where 1,500 concepts of
Zipf sizes met 24 cells, at a quarter of the time. Lloyd's iterations over all images (`fit: all`) cross the borders.

Cells are fitted on a sample and the vectors of one are a bounded number, so the parts of this fit into tasks of bounded
memory (`FitCells`, `FitLeaves`); `fit_split` is the same for an array.
"""

from collections.abc import Callable

import numpy as np

from curate.ops.clusters.guide import NearestSearch, products_guided

SPLIT_FROM = 1024
"""Clusters from which on they are fitted by splitting."""
LEAVES_PER_CELL = 128
"""Clusters into which a cell is split, on average."""
SAMPLE_PER_CELL = 256
"""Vectors on which cells are fitted, for each."""
LEAST_SAMPLE = 32
"""Vectors for each cluster without which k-means is not worth its name; fewer only where all are taken."""

Fit = Callable[[np.ndarray, int, np.random.SeedSequence], np.ndarray]
"""(N, D) vectors, number of clusters and seed to (K, D) centroids."""


def fit_split(x: np.ndarray, num_clusters: int, *, seed: np.random.SeedSequence, fit: Fit) -> np.ndarray:
    """(K, D) float32 centroids of `x` (N, D): by `fit` where they are few, else within cells.

    Args:
        num_clusters: 1..N.
    """
    if num_clusters < SPLIT_FROM:
        return fit(x, num_clusters, seed)
    num_cells = -(-num_clusters // LEAVES_PER_CELL)
    drawing, of_cells, *inside = seed.spawn(2 + num_cells)
    size = min(len(x), num_cells * SAMPLE_PER_CELL)
    rows = np.sort(np.random.default_rng(drawing).choice(len(x), size, replace=False))
    cells = fit_split(x[rows], num_cells, seed=of_cells, fit=fit)
    member, squared = NearestSearch.over(cells, spherical=False).nearest(x)
    sizes, inertias = (np.bincount(member, weights=w, minlength=len(cells)) for w in (None, squared))
    counts = share_leaves(sizes, num_clusters, weights=inertias)
    order, ends = np.argsort(member, kind="stable"), np.cumsum(sizes)
    found = [
        fit(x[order[end - size : end]], count, one)
        for size, end, count, one in zip(sizes, ends, counts.tolist(), inside, strict=False)
        if count
    ]
    return np.concatenate(found)


def share_leaves(sizes: np.ndarray, total: int, *, weights: np.ndarray | None = None) -> np.ndarray:
    """(C,) int64 clusters of each cell: by its weight, at most its size, 1 at least where it has any; sums to `total`.

    Args:
        sizes: (C,) int64 vectors of each cell; their sum is `total` at least.
        weights: (C,) float >= 0; None: the sizes.
    """
    by = sizes if weights is None or not weights.any() else weights
    exact = by * (total / by.sum())
    counts = np.clip(np.floor(exact).astype(np.int64), np.minimum(sizes, 1), sizes)
    order = np.argsort(-(exact - counts), kind="stable")
    while (left := total - counts.sum()) != 0:
        room = order[(counts[order] < sizes[order]) if left > 0 else (counts[order] > 1)]
        if left < 0:
            room = room[::-1]
        if len(room) == 0:  # more cells with vectors than clusters
            break
        counts[room[: abs(left)]] += np.sign(left)
    return counts


def split_products(num_vectors: float, num_clusters: float) -> float:
    """Products of vectors and centroids in one iteration of `fit_split`."""
    if num_clusters < SPLIT_FROM:
        return num_vectors * num_clusters
    return num_vectors * LEAVES_PER_CELL


def dividing_products(num_vectors: float, num_clusters: float) -> float:
    """Products by which vectors are divided among the cells of so many clusters, once."""
    if num_clusters < SPLIT_FROM:
        return 0
    return num_vectors * products_guided(num_clusters / LEAVES_PER_CELL)
