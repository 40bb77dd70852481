"""k-means: greedy k-means++ seeding by blocked matrix products, then Lloyd with faiss for the search."""

from math import log
from types import ModuleType
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from curate.errors import ConfigError, MissingExtra
from curate.ops.vectors import normalize

SPLIT = np.float32(1 / 1024)
"""Relative shift of the two halves of a split centroid, as in faiss."""
BLOCK_ROWS = 1 << 16
"""Rows whose float64 copies are held at once while centroids are summed."""


class KMeansFit(NamedTuple):
    """Centroids and how well they fit the vectors they were fitted on."""

    centroids: np.ndarray
    """(K, D) float32; unit L2 when spherical"""
    sizes: np.ndarray
    """(K,) int64, vectors assigned; 0 only where fewer than K vectors differ"""
    inertia: float
    """sum of squared L2 distances to the assigned centroid"""
    iterations: int
    """Lloyd iterations done"""


def fit_kmeans(
    x: np.ndarray,
    num_clusters: int,
    *,
    seed: int | np.random.SeedSequence,
    num_iterations: int = 20,
    spherical: bool = True,
    tolerance: float = 1e-4,
    block_bytes: int = 256 << 20,
) -> KMeansFit:
    """Cluster the rows of `x`; equal arguments and thread counts give equal results.

    Args:
        x: (N, D) float32; unit L2 when spherical.
        num_clusters: K, 1..N.
        seed: of the seeding and of the splits of empty clusters.
        num_iterations: Lloyd iterations at most, >= 0.
        spherical: assign by cosine and keep centroids at unit norm; False: by squared L2.
        tolerance: stop when an iteration lowers the inertia by less than this fraction.
        block_bytes: memory for distances while seeding.

    Raises:
        ConfigError: K is outside 1..N; the message names the largest valid number.
        ValueError: values that are not finite.

    Source: Arthur & Vassilvitskii 2007 (k-means++, greedy as in its section 7).
    """
    if not 1 <= num_clusters <= len(x):
        raise ConfigError(
            f"num_clusters={num_clusters}: there are {len(x)} vectors; at least 1 and at most {len(x)} "
            f"clusters are possible: set it to {len(x)} or less, or to auto"
        )
    if not np.isfinite(x).all():
        raise ValueError("k-means: NaN or infinite values; leave out the null rows before clustering")
    rng = np.random.default_rng(seed)
    x = np.ascontiguousarray(x, dtype=np.float32)
    centroids = x[seed_kmeans(x, num_clusters, rng=rng, block_bytes=block_bytes)]
    cluster_id, inertia = _nearest(x, centroids, spherical)
    iterations = 0
    for iterations in range(1, num_iterations + 1):  # noqa: B007  # the count is part of the result
        centroids = _update(x, centroids, cluster_id, spherical, rng)
        before = inertia
        cluster_id, inertia = _nearest(x, centroids, spherical)
        if before - inertia <= tolerance * before:
            break
    sizes = np.bincount(cluster_id, minlength=num_clusters).astype(np.int64)
    return KMeansFit(centroids, sizes, inertia, iterations)


def assign(x: np.ndarray, centroids: np.ndarray, *, spherical: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centroid of each row.

    Args:
        x: (N, D) float32, unit L2.
        centroids: (K, D) float32; any norm.
        spherical: nearest by cosine; False: by squared L2, as k-means with `spherical=False` was fitted.

    Returns:
        cluster_id: (N,) int32.
        similarity: (N,) float32, cosine to that centroid either way.
    """
    if x.shape[1] != centroids.shape[1]:
        raise ValueError(f"vectors have {x.shape[1]} dims, centroids {centroids.shape[1]}; use one backbone")
    unit = normalize(centroids)
    cluster_id, _ = _search(x, unit if spherical else centroids, spherical)
    similarity = np.empty(len(x), np.float32)
    for start in range(0, len(x), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        similarity[rows] = np.einsum("nd,nd->n", x[rows], unit[cluster_id[rows]])
    return cluster_id, np.minimum(similarity, np.float32(1))


def seed_kmeans(
    x: np.ndarray, num_clusters: int, *, rng: np.random.Generator, block_bytes: int = 256 << 20
) -> np.ndarray:
    """(K,) int64, distinct rows of `x` chosen by greedy k-means++.

    Each step draws 2 + floor(ln K) candidates by D2 sampling and takes the one that lowers the potential
    most. Candidates come in blocks, whose distances are one matrix product: drawn by the D2 of the block's
    start and accepted with probability D2 now / D2 then, they follow the distribution of their step exactly.
    """
    num_candidates = 2 + int(log(num_clusters))
    norms = np.einsum("nd,nd->n", x, x)
    chosen = [int(rng.integers(len(x)))]
    nearest = _squared_distances(x, norms, np.array(chosen))[0]
    room = max(num_candidates, block_bytes // (8 * len(x)))
    while len(chosen) < num_clusters and nearest.sum(dtype=np.float64) > 0:
        num_proposals = min(room, num_candidates * max(1, len(chosen) // 2))
        proposals = _draw(nearest, num_proposals, rng)
        distances = _squared_distances(x, norms, proposals)  # (P, N)
        bar = rng.random(num_proposals) * nearest[proposals]
        start = 0
        while len(chosen) < num_clusters:
            accepted = start + np.flatnonzero(nearest[proposals[start:]] > bar[start:])[:num_candidates]
            if len(accepted) < num_candidates and (start > 0 or len(accepted) == 0):
                break  # too few left: draw by the D2 of now
            trials = np.minimum(nearest, distances[accepted])  # (C, N)
            best = int(trials.sum(axis=1, dtype=np.float64).argmin())
            nearest = trials[best]
            chosen.append(int(proposals[accepted[best]]))
            start = int(accepted[-1]) + 1
    return np.concatenate([chosen, _draw_rest(len(x), chosen, num_clusters, rng)]).astype(np.int64)


def _draw(weights: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
    cumulative = np.cumsum(weights, dtype=np.float64)
    rows = np.searchsorted(cumulative, rng.random(num) * cumulative[-1], side="right")
    return np.minimum(rows, len(weights) - 1)


def _draw_rest(num_rows: int, chosen: list[int], num_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Rows for the clusters that are left when every vector equals a chosen one."""
    others = np.setdiff1d(np.arange(num_rows), chosen)
    return rng.choice(others, num_clusters - len(chosen), replace=False)


def _squared_distances(x: np.ndarray, norms: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(P, N) float32 squared L2 distances of `x[rows]` to all of `x`; exactly 0 to itself."""
    distances = x[rows] @ x.T
    distances *= -2
    distances += norms
    distances += norms[rows][:, None]
    np.maximum(distances, 0, out=distances)
    distances[np.arange(len(rows)), rows] = 0  # rounding must not let a chosen row be drawn again
    return distances


def _nearest(x: np.ndarray, centroids: np.ndarray, spherical: bool) -> tuple[np.ndarray, float]:
    """(N,) int32 nearest centroid, and the inertia."""
    cluster_id, score = _search(x, centroids, spherical)
    if not spherical:
        return cluster_id, float(np.maximum(score, 0).sum(dtype=np.float64))
    squares = (
        np.einsum("nd,nd->", x, x, dtype=np.float64)
        + np.einsum("kd,kd->k", centroids, centroids, dtype=np.float64)[cluster_id].sum()
    )
    return cluster_id, max(0.0, float(squares - 2 * score.sum(dtype=np.float64)))


def _search(x: np.ndarray, centroids: np.ndarray, spherical: bool) -> tuple[np.ndarray, np.ndarray]:
    """Nearest centroid (N,) int32 with its inner product (spherical) or squared L2 distance (N,) float32."""
    faiss = _faiss()
    metric = faiss.METRIC_INNER_PRODUCT if spherical else faiss.METRIC_L2
    if len(x) == 0:
        return np.empty(0, np.int32), np.empty(0, np.float32)
    score, cluster_id = faiss.knn(
        np.ascontiguousarray(x, np.float32), np.ascontiguousarray(centroids, np.float32), 1, metric=metric
    )
    return cluster_id[:, 0].astype(np.int32), score[:, 0]


def _update(
    x: np.ndarray, centroids: np.ndarray, cluster_id: np.ndarray, spherical: bool, rng: np.random.Generator
) -> np.ndarray:
    """Means of the assigned rows; empty clusters become halves of others."""
    sums, sizes = _sum_by_cluster(x, cluster_id, len(centroids))
    means = (sums / np.maximum(sizes, 1)[:, None]).astype(np.float32)
    usable = sizes > 0
    if spherical:
        usable &= np.linalg.norm(means, axis=1) > 0  # opposite vectors cancel: the mean has no direction
    means = np.where(usable[:, None], means, centroids)
    means = _split_empty(normalize(means) if spherical else means, sizes, rng)
    return normalize(means) if spherical else means


def _sum_by_cluster(x: np.ndarray, cluster_id: np.ndarray, num_clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """(K, D) float64 sums and (K,) int64 sizes; float32 sums would lose digits in large clusters."""
    sums = np.zeros((num_clusters, x.shape[1]), np.float64)
    for start in range(0, len(x), BLOCK_ROWS):
        rows = x[start : start + BLOCK_ROWS].astype(np.float64)
        present, local = np.unique(cluster_id[start : start + BLOCK_ROWS], return_inverse=True)
        member = csr_matrix((np.ones(len(rows)), (local, np.arange(len(rows)))), (len(present), len(rows)))
        sums[present] += member @ rows
    return sums, np.bincount(cluster_id, minlength=num_clusters)


def _split_empty(centroids: np.ndarray, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give each empty cluster half of another, drawn with probability proportional to its size less 1."""
    centroids, sizes = centroids.copy(), sizes.copy()
    sign = np.where(np.arange(centroids.shape[1]) % 2, -1, 1).astype(np.float32)
    for empty in np.flatnonzero(sizes == 0):
        weights = np.maximum(sizes - 1, 0)
        if weights.sum() == 0:
            break  # every cluster holds one vector at most
        donor = int(_draw(weights, 1, rng)[0])
        centroids[empty] = centroids[donor] * (1 + SPLIT * sign)
        centroids[donor] *= 1 - SPLIT * sign
        sizes[empty] = sizes[donor] // 2
        sizes[donor] -= sizes[empty]
    return centroids


def _faiss() -> ModuleType:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtra("faiss", "cpu") from error
    return faiss
