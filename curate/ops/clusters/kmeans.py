"""k-means: Lloyd's iterations as sums over blocks, the same for one array and for parts summed elsewhere.

An iteration needs of the vectors three sums by centroid and no more: the vectors, their number and their squared
distances (`Sums`). They add up over blocks and over parts, so an array in memory and a billion vectors in files go
through the same functions, and the caller decides where sums are made. Products are float32, sums float64: a float32
sum of a million vectors loses the digits by which its mean still moves.
"""

from functools import partial
from heapq import heapify, heapreplace
from typing import NamedTuple

import numpy as np

from curate.errors import ConfigError
from curate.ops.blocks import blocks
from curate.ops.clusters.faiss_seam import Device
from curate.ops.clusters.nearest import find_nearest, squared_norms
from curate.ops.clusters.seeding import Seeding, choose_seeds
from curate.ops.vectors import normalize

SPLIT = np.float32(1 / 1024)
"""Relative shift of the two halves of a split centroid, as in faiss."""
WORTH_SKIPPING = 0.8
"""Share of the products of an iteration above which all of them are made: those that are left need copies."""
BLOCK_BYTES = 32 << 20
"""Float64 copies of vectors that are held at once while they are summed."""


class KMeansFit(NamedTuple):
    """Centroids, and how well they fit the vectors that they were fitted on."""

    centroids: np.ndarray
    """(K, D) float32; unit L2 when spherical"""
    sizes: np.ndarray
    """(K,) int64, vectors assigned; 0 only where fewer than K vectors differ"""
    inertia: float
    """sum of squared L2 distances to the assigned centroid"""
    iterations: int
    """Lloyd iterations that were done"""


class Sums(NamedTuple):
    """What a Lloyd iteration needs of some vectors, however many they are; sums of parts add up."""

    sums: np.ndarray
    """(K, D) float64, of the vectors assigned to each centroid; float32 would lose digits in large clusters"""
    sizes: np.ndarray
    """(K,) int64, vectors assigned"""
    inertias: np.ndarray
    """(K,) float64, sum of squared L2 distances to the centroid"""

    @property
    def inertia(self) -> float:
        """Sum of squared L2 distances over all centroids."""
        return float(self.inertias.sum())

    def add(self, sums: np.ndarray, sizes: np.ndarray, inertias: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Add the sums of further vectors, in place.

        Args:
            sums, sizes, inertias: (R, D), (R,) and (R,), of some centroids.
            rows: (R,) int, which centroids, without repeats; None: all in order.
        """
        where = slice(None) if rows is None else rows
        self.sums[where] += sums
        self.sizes[where] += sizes
        self.inertias[where] += inertias

    @classmethod
    def zero(cls, num_clusters: int, dim: int) -> "Sums":
        """The sums of no vectors."""
        return cls(np.zeros((num_clusters, dim)), np.zeros(num_clusters, np.int64), np.zeros(num_clusters))


def fit_kmeans(
    x: np.ndarray,
    num_clusters: int,
    *,
    seed: int | np.random.SeedSequence,
    num_iterations: int = 20,
    spherical: bool = True,
    tolerance: float = 1e-4,
    seeding: Seeding = "auto",
    block_bytes: int = 256 << 20,
    device: Device = "cpu",
) -> KMeansFit:
    """Cluster the rows of `x`; equal arguments and thread counts give equal results.

    Time: 2 N K D flops an iteration, less where centroids stay. Greedy k-means++ takes as many as 5 iterations,
    k-means|| as 5.
    Memory beside x: N x 36 bytes, K x D x 36 bytes, 128 MiB of products and `block_bytes` while seeding. So 25.6
    million vectors of 1,024 dims and 100,000 clusters take 105 GB for x, 5 GB beside it, and 5e15 flops an iteration.

    Args:
        x: (N, D) float32; unit L2 when spherical. Squared L2 loses digits where vectors lie far off the origin.
        num_clusters: K, 1..N.
        seed: seed of the random numbers that choose the first centroids.
        num_iterations: Lloyd iterations at most, >= 0.
        spherical: assign by cosine and keep centroids at unit norm; False: by squared L2.
        tolerance: stop when an iteration lowers the inertia by no more than this fraction.
        seeding: greedy k-means++, k-means||, or whichever suits the size.
        block_bytes: memory for distances while seeding.
        device: where the nearest centroids are searched.

    Raises:
        ConfigError: K is outside 1..N; the message names the largest valid number.
        ValueError: values that are not finite.
    """
    if not 1 <= num_clusters <= len(x):
        raise ConfigError(
            f"num_clusters={num_clusters}: there are {len(x)} vectors; at least 1 and at most {len(x)} "
            f"clusters are possible: set it to {len(x)} or less, or to auto"
        )
    if not all(np.isfinite(x[rows]).all() for rows in blocks(len(x), 1 << 16)):
        raise ValueError("k-means: NaN or infinite values; leave out the null rows before clustering")
    x = np.ascontiguousarray(x, dtype=np.float32)
    rng = np.random.default_rng(seed)
    seeds = choose_seeds(x, num_clusters, rng=rng, seeding=seeding, block_bytes=block_bytes, device=device)
    return run_lloyd(
        x, x[seeds], num_iterations=num_iterations, spherical=spherical, tolerance=tolerance, device=device
    )


def run_lloyd(
    x: np.ndarray,
    centroids: np.ndarray,
    *,
    num_iterations: int,
    spherical: bool = True,
    tolerance: float = 1e-4,
    device: Device = "cpu",
) -> KMeansFit:
    """Lloyd's iterations from given centroids.

    Most centroids stay where they are after some iterations, since no vector joins or leaves them. A vector whose own
    centroid stayed is compared with those that moved alone, which finds the same nearest one at a part of the work.

    Args:
        x: (N, D) float32.
        centroids: (K, D) float32, where to begin.
        num_iterations, spherical, tolerance, device: as for `fit_kmeans`.
    """
    near = find_with_distance(x, centroids, spherical=spherical, device=device)
    found = sum_up(x, *near, len(centroids))
    iterations = 0
    for iterations in range(1, num_iterations + 1):  # noqa: B007  # the count is part of the result
        before, last = found.inertia, centroids
        centroids = move_centroids(centroids, found, spherical=spherical)
        near = _find_again(x, centroids, (last != centroids).any(axis=1), *near, spherical=spherical, device=device)
        found = sum_up(x, *near, len(centroids))
        if has_converged(before, found.inertia, tolerance):
            break
    return KMeansFit(centroids, found.sizes, found.inertia, iterations)


def has_converged(before: float, after: float, tolerance: float) -> bool:
    """Whether an iteration lowered the inertia by no more than this fraction."""
    return before - after <= tolerance * before


def sum_by_nearest(x: np.ndarray, centroids: np.ndarray, *, spherical: bool, device: Device = "cpu") -> Sums:
    """Assign each row of `x` (N, D) to its nearest of the centroids (K, D), and sum up by centroid.

    Args:
        spherical: nearest by cosine, for which both must be of unit norm; False: by squared L2.
        device: where the nearest centroids are searched.
    """
    return sum_up(x, *find_with_distance(x, centroids, spherical=spherical, device=device), len(centroids))


def sum_up(x: np.ndarray, cluster_id: np.ndarray, squared: np.ndarray, num_clusters: int) -> Sums:
    """The sums of (N, D) vectors by the cluster that each is assigned to, at these (N,) squared distances."""
    sizes = np.bincount(cluster_id, minlength=num_clusters).astype(np.int64)
    inertias = np.bincount(cluster_id, weights=squared, minlength=num_clusters)  # float64
    return Sums(_sum_by_cluster(x, cluster_id, num_clusters), sizes, inertias)


def _find_again(
    x: np.ndarray,
    centroids: np.ndarray,
    moved: np.ndarray,
    cluster_id: np.ndarray,
    squared: np.ndarray,
    *,
    spherical: bool,
    device: Device,
) -> tuple[np.ndarray, np.ndarray]:
    """What `find_with_distance` finds, given what it found before some centroids moved, (K,) bool."""
    lost = moved[cluster_id]
    if lost.mean() + (1 - lost.mean()) * moved.mean() > WORTH_SKIPPING:
        return find_with_distance(x, centroids, spherical=spherical, device=device)
    cluster_id, squared = cluster_id.copy(), squared.copy()
    find = partial(find_with_distance, spherical=spherical, device=device)
    if lost.any():
        cluster_id[lost], squared[lost] = find(x[lost], centroids)
    (others,), (which,) = np.nonzero(~lost), np.nonzero(moved)
    if len(others) and len(which):
        own, distance = find(x[others], centroids[which])
        closer = distance < squared[others]
        cluster_id[others[closer]], squared[others[closer]] = which[own[closer]], distance[closer]
    return cluster_id, squared


def find_with_distance(
    x: np.ndarray, centroids: np.ndarray, *, spherical: bool, device: Device = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) int32 nearest centroid of each row, by cosine or L2, and (N,) float32 squared L2 distance to it."""
    cluster_id, score = find_nearest(x, centroids, spherical=spherical, device=device)
    return cluster_id, squared_distance(x, centroids, cluster_id, score) if spherical else score


def squared_distance(x: np.ndarray, centroids: np.ndarray, cluster_id: np.ndarray, product: np.ndarray) -> np.ndarray:
    """(N,) float32 squared L2 distances of vectors to their centroids, from their inner products."""
    distance: np.ndarray = np.maximum(squared_norms(x) + squared_norms(centroids)[cluster_id] - 2 * product, 0)
    return distance


def _sum_by_cluster(x: np.ndarray, cluster_id: np.ndarray, num_clusters: int) -> np.ndarray:
    """(K, D) float64: a product with a sparse 0/1 matrix, several times as fast as `np.add.at`."""
    from scipy.sparse import csr_matrix

    sums = np.zeros((num_clusters, x.shape[1]), np.float64)
    for block in blocks(len(x), max(1, BLOCK_BYTES // (8 * x.shape[1]))):
        rows = x[block].astype(np.float64)
        present, local = np.unique(cluster_id[block], return_inverse=True)
        member = csr_matrix((np.ones(len(rows)), (local, np.arange(len(rows)))), (len(present), len(rows)))
        sums[present] += member @ rows
    return sums


def move_centroids(centroids: np.ndarray, found: Sums, *, spherical: bool) -> np.ndarray:
    """(K, D) float32: the means of the vectors assigned; empty clusters become halves of others.

    Args:
        centroids: (K, D) float32, to which `found` was assigned; those without a mean stay where they are.
        spherical: bring the means to unit norm.
    """
    means = np.empty_like(centroids)
    np.divide(found.sums, np.maximum(found.sizes, 1)[:, None], out=means, casting="same_kind")  # no float64 copy
    usable = found.sizes > 0
    if spherical:
        usable &= np.linalg.norm(means, axis=1) > 0  # opposite vectors cancel: the mean has no direction
    means[~usable] = centroids[~usable]
    means = split_for_empty(normalize(means) if spherical else means, found.sizes, found.inertias)
    return normalize(means) if spherical else means


def split_for_empty(centroids: np.ndarray, sizes: np.ndarray, inertias: np.ndarray) -> np.ndarray:
    """Give each empty cluster half of another: of the one with the largest inertia, which then counts as halved.

    faiss draws the cluster to split by its size. The inertia needs no random numbers, so that parts summed anywhere
    give equal splits, and it never splits copies of one vector.

    Args:
        centroids: (K, D) float32; two halves are moved apart by a fraction of 1/1024, as in faiss.
        sizes: (K,) int64, vectors assigned.
        inertias: (K,) float64, sum of their squared distances.

    Returns:
        (K, D) float32, a copy.
    """
    centroids = centroids.copy()
    sign = np.where(np.arange(centroids.shape[1]) % 2, -1, 1).astype(np.float32)
    donors = [(-float(inertias[c]), int(c)) for c in np.flatnonzero((sizes > 1) & (inertias > 0))]
    heapify(donors)
    for empty in np.flatnonzero(sizes == 0):
        if not donors:
            break  # every cluster holds copies of one vector
        inertia, donor = donors[0]
        heapreplace(donors, (inertia / 2, donor))
        centroids[empty] = centroids[donor] * (1 + SPLIT * sign)
        centroids[donor] *= 1 - SPLIT * sign
    return centroids
