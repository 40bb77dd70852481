"""Hierarchical k-means with resampling: centroids spread over the support of the data, not over its modes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from curate.errors import ConfigError
from curate.ops.clusters.faiss_seam import Device
from curate.ops.clusters.kmeans import find_with_distance, fit_kmeans
from curate.ops.clusters.seeding import Seeding
from curate.ops.edges import rank_in_group

IMAGES_PER_LEAF = 20
"""`auto_levels`: images per cluster of the lowest level."""
BRANCHING = 10
"""`auto_levels`: clusters below one of the next level."""
MAX_LEVELS = 4
"""`auto_levels`: as many as in the paper."""


class Nodes(NamedTuple):
    """The clusters of one level, none of them empty."""

    centroids: np.ndarray
    """(K, D) float32"""
    num_images: np.ndarray
    """(K,) int64, fitted vectors in the subtree, all >= 1"""
    inertia: np.ndarray
    """(K,) float64, sum of squared L2 distances of what was clustered: images, then the centroids below"""


class Level(NamedTuple):
    """One level of the tree: its nodes, and where they hang."""

    centroids: np.ndarray
    """(K, D) float32"""
    parent: np.ndarray
    """(K,) int32, node of the level above; -1 at the top"""
    num_images: np.ndarray
    """(K,) int64, fitted vectors in the subtree, all >= 1"""
    inertia: np.ndarray
    """(K,) float64, see `Nodes`"""


@dataclass(frozen=True, kw_only=True)
class LevelFit:
    """How each level is fitted."""

    seed: int
    """Of every k-means."""
    num_resamplings: int = 10
    """Rounds per level; in each, the r points closest to each centroid are clustered anew."""
    num_iterations: int = 50
    """Of Lloyd in each k-means, at most."""
    tolerance: float = 1e-4
    """Lloyd stops when an iteration lowers the inertia by no more than this fraction."""
    spherical: bool = True
    """Cosine, centroids of unit norm; False: squared L2, as in the paper."""
    seeding: Seeding = "auto"
    """Greedy k-means++, k-means||, or whichever suits the size."""
    device: Device = "cpu"
    """Where the nearest centroids are searched."""


def fit_leaves(x: np.ndarray, num_clusters: int, *, r: int, how: LevelFit) -> Nodes:
    """The lowest level over `x` (N, D).

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
) -> list[Level]:
    """The levels above given leaves; `levels` and `points_per_centroid` are those above alone, none for flat."""
    nodes, parents = [leaves], []
    for number, (num_clusters, r) in enumerate(zip(levels, points_per_centroid, strict=True), start=1):
        below = nodes[-1]
        above, parent = _fit_level(below.centroids, below.num_images, num_clusters, r=r, level=number, how=how)
        nodes.append(above)
        parents.append(parent)
    parents.append(np.full(len(nodes[-1].centroids), -1, np.int32))
    return [Level(n.centroids, p, n.num_images, n.inertia) for n, p in zip(nodes, parents, strict=True)]


def cluster_paths(leaf_ids: np.ndarray, parents: Sequence[np.ndarray]) -> np.ndarray:
    """(N, L) int32: the nodes above each image, root first, its leaf last.

    Args:
        leaf_ids: (N,) int, leaf of each image.
        parents: L-1 arrays from the leaves up: `parents[l]`, (K_l,) int32, is the node of level l+1 above each node of
            level l; empty for flat clusters.
    """
    path = [np.asarray(leaf_ids)]
    for parent in parents:
        path.append(parent[path[-1]])
    return np.stack(path[::-1], axis=1).astype(np.int32)


def auto_levels(num_images: int) -> list[int]:
    """Clusters per level, leaves first, for a pool of `num_images` >= 1.

    One leaf per 20 images; each level above has a tenth of the clusters, as long as that is 10 or more,
    up to 4 levels. So 40 images give [2], 2,000 give [100, 10], 743 million give four levels.
    """
    if num_images < 1:
        raise ConfigError(f"{num_images} images: clustering needs at least 1; do the sources hold any?")
    levels = [max(1, num_images // IMAGES_PER_LEAF)]
    while len(levels) < MAX_LEVELS and levels[-1] // BRANCHING >= BRANCHING:
        levels.append(levels[-1] // BRANCHING)
    return levels


def check_levels(levels: Sequence[int], points_per_centroid: Sequence[int]) -> None:
    """Whether a tree can be grown of them, as far as that can be told without the data.

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
    """The clusters of `points`, and (N,) int32, which one each point lies in."""
    seed = np.random.SeedSequence(how.seed, spawn_key=(level,))
    wanted = min(num_clusters, len(points))  # fewer only where clusters below came out empty
    centroids = _resample(points, wanted, r=r, seed=seed, how=how)
    cluster_id, squared = find_with_distance(points, centroids, spherical=how.spherical, device=how.device)
    present, parent = np.unique(cluster_id, return_inverse=True)
    nodes = Nodes(
        centroids[present],
        np.bincount(parent, weights=num_images).astype(np.int64),
        np.bincount(parent, weights=squared),
    )
    return nodes, parent.astype(np.int32)


def _resample(
    points: np.ndarray, num_clusters: int, *, r: int, seed: np.random.SeedSequence, how: LevelFit
) -> np.ndarray:
    """(K, D) centroids of one level; with r > 0 they follow the support of `points`, not their density."""
    first, *rounds = seed.spawn(1 + (how.num_resamplings if r else 0))
    fit = partial(
        fit_kmeans,
        num_iterations=how.num_iterations,
        tolerance=how.tolerance,
        spherical=how.spherical,
        seeding=how.seeding,
        device=how.device,
    )
    centroids = fit(points, num_clusters, seed=first).centroids
    for round_seed in rounds:
        sample = points[_closest_rows(points, centroids, r, how)]
        centroids = fit(sample, min(num_clusters, len(sample)), seed=round_seed).centroids
    return centroids


def _closest_rows(points: np.ndarray, centroids: np.ndarray, r: int, how: LevelFit) -> np.ndarray:
    """Ascending rows of the `r` points closest to each centroid among those assigned to it."""
    cluster_id, squared = find_with_distance(points, centroids, spherical=how.spherical, device=how.device)
    order = np.lexsort((squared, cluster_id))
    return np.sort(order[rank_in_group(cluster_id[order]) < r])
