"""The nearest of very many centroids, found through groups of centroids.

With K centroids every vector would meet all of them. Here centroids near each other form groups of about 64, these
groups form groups, and so on until few are left at the top. A vector is compared with all groups at the top, goes on
into the 32 nearest, is compared with what these hold, goes on into the 32 nearest of that, and so on down: about 2,000
products for each level instead of K in all, and levels grow with the logarithm of K.

Vectors are sorted by the group that they visit, so that each group takes one matrix product with all of its visitors;
there is no loop over vectors. Bounds that would prove an answer exclude next to nothing here: embeddings have so many
dimensions that the radius of a group is about as large as the distance to it. So the answer is not exact; how often it
is the nearest centroid is measured (`Assign`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from curate.ops.blocks import blocks
from curate.ops.clusters.faiss_seam import Device
from curate.ops.clusters.kmeans import fit_kmeans, squared_distance
from curate.ops.clusters.nearest import find_nearest, squared_norms
from curate.ops.parallel import in_threads

GUIDED_FROM = 4096
"""Centroids from which on they are grouped: with fewer, comparing with all is as quick."""
GUIDED_ON_GPU_FROM = 1 << 20
"""The same where a GPU compares: it does so with a million in the time in which a core goes by groups."""
GROUP_SIZE = 64
"""Centroids of a group, on average."""
GROUPS_VISITED = 32
"""Groups of each level into which a vector goes on; by 16 up to 2 % of nearest centroids are missed, by 32 0.4 %."""
BLOCK_ROWS = 4096
"""Vectors that go down together: one thread's block."""
ITERATIONS = 8
"""Lloyd iterations by which groups are found: they need not be the best ones."""
SEEDING = 5
"""Cost of seeding them, in such iterations."""


class Groups(NamedTuple):
    """One level of groups of centroids, or of groups."""

    centroids: np.ndarray
    """(G, D) float32, means of what each holds"""
    member: np.ndarray
    """(K,) int32, the group of each centroid below"""


Guide = tuple[Groups, ...]
"""The levels from those that hold centroids upwards; empty: every vector is compared with all centroids."""


def build_guide(centroids: np.ndarray, *, seed: int) -> Guide:
    """Group centroids (K, D), and the groups, until fewer than `GUIDED_FROM` are left to compare with.

    Time: about K x 2 sqrt(K / 64) products an iteration for the first level.
    """
    levels: list[Groups] = []
    points = centroids
    while len(points) >= GUIDED_FROM:
        member = _group(points, seed=[seed, len(levels)])
        levels.append(Groups(_means(points, member), member))
        points = levels[-1].centroids
    return tuple(levels)


def follow(guide: Guide, centroids: np.ndarray) -> Guide:
    """The same groups for centroids (K, D) that have moved: their means anew."""
    levels: list[Groups] = []
    points = centroids
    for groups in guide:
        levels.append(Groups(_means(points, groups.member), groups.member))
        points = levels[-1].centroids
    return tuple(levels)


def building_products(num_centroids: float) -> float:
    """Products by which a guide is built, for the laws of cost."""
    if num_centroids < GUIDED_FROM:
        return 0
    return num_centroids * 2 * (num_centroids / GROUP_SIZE) ** 0.5 * (ITERATIONS + SEEDING)


def products_guided(num_centroids: float, device: Device = "cpu") -> float:
    """Centroids and groups that a vector is compared with, for the laws of cost."""
    if device == "cuda" and num_centroids < GUIDED_ON_GPU_FROM:
        return num_centroids
    levels = 0
    while num_centroids >= GUIDED_FROM:
        num_centroids, levels = num_centroids / GROUP_SIZE, levels + 1
    return num_centroids + levels * GROUPS_VISITED * GROUP_SIZE


class NearestSearch:
    """The nearest of centroids, by the groups of a guide; sorted once, then asked for many vectors."""

    def __init__(
        self,
        centroids: np.ndarray,
        guide: Guide,
        *,
        spherical: bool = True,
        device: Device = "cpu",
        num_visited: int = GROUPS_VISITED,
    ) -> None:
        """Sort the centroids by group.

        Args:
            centroids: (K, D) float32, from which the guide was built.
            guide: empty: every vector is compared with all centroids.
            spherical: nearest by inner product; False: by squared L2.
            device: where all centroids are compared, if there is no guide or a GPU is as quick; a guide takes the CPU.
            num_visited: groups of each level into which a vector goes on; more find the nearest more often.
        """
        self.spherical, self.device, self.num_visited = spherical, device, num_visited
        self._centroids = centroids
        guided = guide and (device == "cpu" or len(centroids) >= GUIDED_ON_GPU_FROM)
        self._levels = _levels(centroids, guide, spherical=spherical) if guided else []

    @classmethod
    def over(cls, centroids: np.ndarray, *, spherical: bool = True, device: Device = "cpu") -> "NearestSearch":
        """A search that builds its own guide where there are many centroids."""
        return cls(centroids, build_guide(centroids, seed=0), spherical=spherical, device=device)

    def nearest(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What `find_nearest` finds for (N, D) vectors: (N,) int32 and (N,) float32, product or squared distance."""
        if not self._levels:
            return find_nearest(x, self._centroids, spherical=self.spherical, device=self.device)
        x = np.ascontiguousarray(x, np.float32)
        cluster_id, score = np.empty(len(x), np.int32), np.empty(len(x), np.float32)

        def search(rows: slice) -> None:
            cluster_id[rows], score[rows] = _descend(x[rows], self._levels, self.num_visited)
            if not self.spherical:  # |x - c|^2 = |x|^2 - 2 (x.c - |c|^2 / 2)
                score[rows] = np.maximum(squared_norms(x[rows]) - 2 * score[rows], 0)

        in_threads(search, blocks(len(x), BLOCK_ROWS))
        return cluster_id, score

    def with_distance(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N,) int32 nearest centroid of each row, and (N,) float32 squared L2 distance to it."""
        cluster_id, score = self.nearest(x)
        return cluster_id, squared_distance(x, self._centroids, cluster_id, score) if self.spherical else score


class _Level(NamedTuple):
    """What a vector is compared with on one level, sorted by group."""

    points: np.ndarray
    """(K, D) float32"""
    offsets: np.ndarray | None
    """(K,) float32, half the squared norms, by L2"""
    number: np.ndarray
    """(K,) int32, the number of each before it was sorted"""
    bounds: np.ndarray
    """(G + 1,) where each group begins"""


def _levels(centroids: np.ndarray, guide: Guide, *, spherical: bool) -> list[_Level]:
    """From the top down; all at the top are one group."""
    found = []
    points = centroids
    for groups in guide:
        found.append(_level(points, groups.member, len(groups.centroids), spherical=spherical))
        points = groups.centroids
    top = _level(points, np.zeros(len(points), np.int32), 1, spherical=spherical)
    return [top, *reversed(found)]


def _level(points: np.ndarray, member: np.ndarray, num_groups: int, *, spherical: bool) -> _Level:
    order = np.argsort(member, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(np.bincount(member, minlength=num_groups))])
    if (np.diff(member) < 0).any():  # centroids in the order of their groups need no copy
        points = points[order]
    points = np.ascontiguousarray(points, np.float32)
    return _Level(points, None if spherical else squared_norms(points) / 2, order.astype(np.int32), bounds)


def _descend(x: np.ndarray, levels: Sequence[_Level], num_visited: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) int32 and (N,) float32: the best found of the lowest level, and its product less its offset."""
    visited = np.zeros((len(x), 1), np.int32)
    score = np.empty((len(x), 1), np.float32)
    for depth, level in enumerate(levels):
        wanted = 1 if depth == len(levels) - 1 else num_visited
        visited, score = _best_within(x, visited, level, wanted)
    return visited[:, 0], score[:, 0]


def _best_within(x: np.ndarray, visited: np.ndarray, level: _Level, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, W) numbers and scores of the best points in the groups (N, V) that each vector visits, best first.

    A group is not searched for more than `wanted` of its points, so that memory is N x V x W.
    """
    num_visits = visited.shape[1]
    number = np.zeros((*visited.shape, wanted), np.int32)
    score = np.full(number.shape, -np.inf, np.float32)
    flat_number, flat_score = number.reshape(-1, wanted), score.reshape(-1, wanted)
    order = np.argsort(visited, axis=None, kind="stable")  # visits: a row of x and a group
    ends = np.cumsum(np.bincount(visited.ravel(), minlength=len(level.bounds) - 1))
    for group, end in enumerate(ends):
        first, last = level.bounds[group], level.bounds[group + 1]
        visits = order[(ends[group - 1] if group else 0) : end]
        if len(visits) == 0 or first == last:
            continue
        products = x[visits // num_visits] @ level.points[first:last].T
        if level.offsets is not None:
            products -= level.offsets[first:last]
        best, value = _largest(products, wanted)
        flat_number[visits, : best.shape[1]] = level.number[first + best]
        flat_score[visits, : best.shape[1]] = value
    best, value = _largest(score.reshape(len(x), -1), wanted)
    return np.take_along_axis(number.reshape(len(x), -1), best, axis=1), value


def _largest(values: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, W) columns of the `wanted` largest of each row, or of all where there are fewer, and their values."""
    if wanted == 1:
        best = values.argmax(axis=1)[:, None]
    elif values.shape[1] <= wanted:
        best = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    else:
        best = np.argpartition(values, -wanted, axis=1)[:, -wanted:]
    return best, np.take_along_axis(values, best, axis=1)


def _group(points: np.ndarray, *, seed: Sequence[int]) -> np.ndarray:
    """(K,) int32: groups of about `GROUP_SIZE` points, numbered without gaps; by k-means of k-means."""
    seeds = np.random.SeedSequence(seed)
    num_groups = max(1, len(points) // GROUP_SIZE)
    coarse = max(1, round(num_groups**0.5))
    above = _kmeans(points, coarse, seeds.spawn(1)[0])
    member = np.zeros(len(points), np.int64)
    for number, inside in enumerate(seeds.spawn(coarse)):
        rows = np.flatnonzero(above == number)
        if len(rows):
            wanted = max(1, round(len(rows) / GROUP_SIZE))
            member[rows] = number * len(points) + _kmeans(points[rows], wanted, inside)
    return np.unique(member, return_inverse=True)[1].astype(np.int32)


def _kmeans(points: np.ndarray, num_clusters: int, seed: np.random.SeedSequence) -> np.ndarray:
    fit = fit_kmeans(
        points,
        num_clusters,
        seed=seed,
        num_iterations=ITERATIONS,
        spherical=False,
        seeding="auto",
        block_bytes=64 << 20,
    )
    return find_nearest(points, fit.centroids, spherical=False)[0]


def _means(points: np.ndarray, member: np.ndarray) -> np.ndarray:
    """(G, D) float32: of the points of each group."""
    order = np.argsort(member, kind="stable")
    sizes = np.bincount(member)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    sums: np.ndarray = np.add.reduceat(points[order], starts, axis=0, dtype=np.float64)
    return (sums / sizes[:, None]).astype(np.float32)
