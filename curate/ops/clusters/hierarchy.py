"""Hierarchical k-means with resampling: centroids spread over the support of the data, not over its modes.

k-means puts centroids where vectors are many: a concept with a hundred times the images gets many clusters, and several
rare ones share one. Sampling evenly over such clusters is still far from even over concepts. Two things mend that.

A hierarchy clusters the centroids of one level anew, as if each were a single vector, and so on upwards. A frequent
concept counts by its number of clusters there, no longer by its number of images, and at the top hardly at all.

Resampling evens out each level. Once it is fitted, only the r points closest to each centroid are kept, which are as
many for a large cluster as for a small one, and k-means is fitted to these alone; after some such rounds the centroids
follow the support of the points instead of their density. The points themselves are assigned to the last centroids.

Two departures from the paper. Clusters that no point is assigned to (after resampling, or where vectors repeat) are
dropped before the next level, which would otherwise cluster centroids that stand for nothing. And the default distance
is the cosine: by squared L2 centroids of large clusters, which are averages and hence short, lie apart from those
of single images, and the levels above tell them apart by that length. On the mixture of `python -m benchmarks kmeans`
the normalized entropy of the concepts sampled is 0.95 by cosine and 0.73 by L2.

Source: Vo et al. 2024, arXiv:2405.15613, section 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from curate.errors import ConfigError
from curate.ops.clusters.faiss_seam import Device
from curate.ops.clusters.guide import NearestSearch
from curate.ops.clusters.kmeans import fit_kmeans
from curate.ops.clusters.seeding import Seeding
from curate.ops.clusters.split import fit_split
from curate.ops.edges import rank_in_group

IMAGES_PER_LEAF = 20
"""`auto_levels`: images per cluster of the lowest level, up to `LINEAR_UP_TO` of them."""
LINEAR_UP_TO = 1_000_000
"""`auto_levels`: images beyond which leaves grow with their square root: a leaf of four times the images holds twice as
many, so that leaves stay few enough for one machine to hold, and can be sampled."""
BRANCHING = 10
"""`auto_levels`: clusters below one of the next level."""
MAX_LEVELS = 4
"""`auto_levels`: as many as in the paper."""


class Nodes(NamedTuple):
    """The clusters of one level, none of them empty."""

    centroids: np.ndarray
    """(K, D) float32"""
    num_images: np.ndarray
    """(K,) int64, fitted vectors below each, all >= 1"""
    inertia: np.ndarray
    """(K,) float64, sum of squared L2 distances of what was clustered: images, or the centroids below"""


class TreeLevel(NamedTuple):
    """One level of the tree: its clusters, and the cluster of the level above that each belongs to."""

    centroids: np.ndarray
    """(K, D) float32"""
    parent: np.ndarray
    """(K,) int32, cluster of the level above; -1 at the top"""
    num_images: np.ndarray
    """(K,) int64, fitted vectors below each, all >= 1"""
    inertia: np.ndarray
    """(K,) float64, see `Nodes`"""


@dataclass(frozen=True, kw_only=True)
class LevelFit:
    """How each level is fitted."""

    seed: int
    """Seed of every k-means."""
    num_resamplings: int = 10
    """Rounds of resampling per level; in each, the r points closest to each centroid are clustered anew."""
    num_iterations: int = 50
    """Lloyd iterations of each k-means at most."""
    tolerance: float = 1e-4
    """Lloyd stops when an iteration lowers the inertia by no more than this fraction."""
    spherical: bool = True
    """Cluster by cosine, with centroids of unit norm; False: by squared L2, as in the paper."""
    seeding: Seeding = "auto"
    """Greedy k-means++, k-means||, or whichever suits the size."""
    device: Device = "cpu"
    """Where the nearest centroids are searched."""


def fit_leaves(x: np.ndarray, num_clusters: int, *, r: int, how: LevelFit) -> Nodes:
    """The lowest level of a tree.

    Args:
        x: (N, D) float32; unit L2 when spherical.
        r: vectors kept around each centroid while resampling; 0: no resampling. The paper has 0 here.

    Raises:
        ConfigError: more clusters than vectors.
    """
    if num_clusters > len(x):
        raise ConfigError(
            f"levels=[{num_clusters}, ...]: there are {len(x)} vectors; the first level can have at most {len(x)} "
            "clusters: lower it, or set auto"
        )
    leaves, _ = _fit_level(x, np.ones(len(x), np.int64), num_clusters, r=r, level=0, how=how)
    return leaves


def grow_tree(
    leaves: Nodes, levels: Sequence[int], *, points_per_centroid: Sequence[int], how: LevelFit
) -> list[TreeLevel]:
    """Cluster the centroids of the leaves, then the centroids of these, and so on upwards.

    Args:
        levels: clusters wanted per level above the leaves, each smaller than the one before; empty for flat clusters.
        points_per_centroid: r per level, lower centroids kept around each centroid while resampling; 0: no
            resampling on that level. The paper has (10, 5, 3).

    Returns:
        All levels, the leaves first; a level may have fewer clusters than wanted, see the module.
    """
    nodes, parents = [leaves], []
    for number, (num_clusters, r) in enumerate(zip(levels, points_per_centroid, strict=True), start=1):
        below = nodes[-1]
        above, parent = _fit_level(below.centroids, below.num_images, num_clusters, r=r, level=number, how=how)
        nodes.append(above)
        parents.append(parent)
    parents.append(np.full(len(nodes[-1].centroids), -1, np.int32))
    return [TreeLevel(n.centroids, p, n.num_images, n.inertia) for n, p in zip(nodes, parents, strict=True)]


def cluster_paths(leaf_ids: np.ndarray, parents: Sequence[np.ndarray]) -> np.ndarray:
    """(N, L) int32: the clusters that hold each image, that of the top level first, its leaf last.

    Args:
        leaf_ids: (N,) int, leaf of each image.
        parents: L-1 arrays from the leaves up: `parents[l]`, (K_l,) int32, is the cluster of level l+1 that holds each
            cluster of level l; empty for flat clusters.
    """
    path = [np.asarray(leaf_ids)]
    for parent in parents:
        path.append(parent[path[-1]])
    return np.stack(path[::-1], axis=1).astype(np.int32)


def auto_levels(num_images: int) -> list[int]:
    """How many clusters each level should have, leaves first, for a pool of `num_images` >= 1.

    One leaf per 20 images up to a million, then 50,000 for the square root of each million; each level above has a
    tenth of the clusters, as long as that is 10 or more, up to 4 levels. So 40 images give [2], 2,000 give [100, 10],
    a million give [50000, 5000, 500, 50], 743 million give 1,362,902 leaves of 545 images.

    Raises:
        ConfigError: there is no image.
    """
    if num_images < 1:
        raise ConfigError(f"{num_images} images: clustering needs at least 1; do the sources hold any?")
    as_if = num_images if num_images <= LINEAR_UP_TO else int((num_images * LINEAR_UP_TO) ** 0.5)
    levels = [max(1, as_if // IMAGES_PER_LEAF)]
    while len(levels) < MAX_LEVELS and levels[-1] // BRANCHING >= BRANCHING:
        levels.append(levels[-1] // BRANCHING)
    return levels


def check_levels(levels: Sequence[int], points_per_centroid: Sequence[int]) -> None:
    """Refuse levels that no tree can have, as far as that can be told without the data.

    Args:
        levels: clusters wanted per level, leaves first.
        points_per_centroid: r per level, leaves first.

    Raises:
        ConfigError: levels that do not descend, lengths that differ.
    """
    shown = list(levels)
    if not shown or any(low <= high for low, high in pairwise(shown)) or shown[-1] < 1:
        raise ConfigError(f"levels={shown}: needed is at least one level, leaves first, each smaller, >= 1")
    if len(points_per_centroid) != len(shown) or min(points_per_centroid) < 0:
        raise ConfigError(
            f"points_per_centroid={list(points_per_centroid)}: one number >= 0 for each of {len(shown)} levels "
            "is needed; 0 means no resampling"
        )


def _fit_level(
    points: np.ndarray, num_images: np.ndarray, num_clusters: int, *, r: int, level: int, how: LevelFit
) -> tuple[Nodes, np.ndarray]:
    """The clusters of `points` (N, D), and (N,) int32, which of them each point lies in."""
    # A stream of random numbers for each level: one more level leaves those below as they are.
    seed = np.random.SeedSequence(how.seed, spawn_key=(level,))
    wanted = min(num_clusters, len(points))  # fewer only where clusters below came out empty
    centroids = _fit_resampled(points, wanted, r=r, seed=seed, how=how)
    cluster_id, squared = _find(points, centroids, how)
    # All points are assigned, those too that resampling left out; clusters without any are dropped here.
    present, parent = np.unique(cluster_id, return_inverse=True)
    nodes = Nodes(
        centroids[present],
        np.bincount(parent, weights=num_images).astype(np.int64),
        np.bincount(parent, weights=squared),
    )
    return nodes, parent.astype(np.int32)


def _fit_resampled(
    points: np.ndarray, num_clusters: int, *, r: int, seed: np.random.SeedSequence, how: LevelFit
) -> np.ndarray:
    """(K, D) float32 centroids of one level; with r > 0 they follow the support of `points`, not their density."""
    first, *rounds = seed.spawn(1 + (how.num_resamplings if r else 0))
    fit = partial(fit_split, fit=partial(_fit_plain, how=how))
    centroids = fit(points, num_clusters, seed=first)  # (K, D)
    for round_seed in rounds:
        # r x K points at most, however many each centroid stands for: density no longer counts.
        sample = points[_closest_rows(points, centroids, r, how)]
        centroids = fit(sample, min(num_clusters, len(sample)), seed=round_seed)
    return centroids


def _fit_plain(x: np.ndarray, num_clusters: int, seed: np.random.SeedSequence, *, how: LevelFit) -> np.ndarray:
    return fit_kmeans(
        x,
        num_clusters,
        seed=seed,
        num_iterations=how.num_iterations,
        tolerance=how.tolerance,
        spherical=how.spherical,
        seeding=how.seeding,
        device=how.device,
    ).centroids


def _find(points: np.ndarray, centroids: np.ndarray, how: LevelFit) -> tuple[np.ndarray, np.ndarray]:
    """(N,) int32 nearest centroid of each point, and (N,) float32 squared L2 distance to it."""
    return NearestSearch.over(centroids, spherical=how.spherical, device=how.device).with_distance(points)


def _closest_rows(points: np.ndarray, centroids: np.ndarray, r: int, how: LevelFit) -> np.ndarray:
    """Ascending rows of the `r` points closest to each centroid among those assigned to it."""
    cluster_id, squared = _find(points, centroids, how)
    order = np.lexsort((squared, cluster_id))  # by cluster, the closest first
    return np.sort(order[rank_in_group(cluster_id[order]) < r])
