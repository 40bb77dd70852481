"""Hierarchical k-means with resampling: centroids spread over the support of the data, not over its modes."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from curate.errors import ConfigError
from curate.ops.kmeans import assign, fit_kmeans
from curate.ops.knn import rank_in_group

IMAGES_PER_LEAF = 20
"""`auto_levels`: images per cluster of the lowest level."""
BRANCHING = 10
"""`auto_levels`: clusters below one of the next level."""
MAX_LEVELS = 4
"""`auto_levels`: as many as in the paper."""


class Level(NamedTuple):
    """One level of the tree."""

    centroids: np.ndarray
    """(K, D) float32"""
    parent: np.ndarray
    """(K,) int32, node of the level above; -1 at the top"""
    num_images: np.ndarray
    """(K,) int64, fitted vectors in the subtree, all >= 1"""


class Hierarchy(NamedTuple):
    """A cluster tree, level 0 the leaves."""

    levels: tuple[Level, ...]

    @property
    def parents(self) -> list[np.ndarray]:
        """`parents[l]`: (K_l,) int32, node of level l+1 above each node of level l; one less than levels."""
        return [level.parent for level in self.levels[:-1]]


def fit_hierarchy(
    x: np.ndarray,
    levels: Sequence[int],
    *,
    points_per_centroid: Sequence[int],
    seed: int,
    num_resamplings: int = 10,
    num_iterations: int = 50,
    spherical: bool = True,
) -> Hierarchy:
    """Cluster `x`, then its centroids, and so on upwards; clusters left empty are dropped on the way.

    Args:
        x: (N, D) float32; unit L2 when spherical.
        levels: clusters wanted per level, leaves first, each smaller than the one before.
        points_per_centroid: r per level, images or lower centroids kept around each centroid while
            resampling; 0: no resampling on that level. The paper has (0, 10, 5, 3).
        seed: of every k-means.
        num_resamplings: rounds per level; in each, the r points closest to each centroid are clustered anew.
        num_iterations: of Lloyd in each k-means, at most.
        spherical: cosine, centroids of unit norm; False: squared L2, as in the paper.

    Raises:
        ConfigError: levels that do not descend, more clusters than points, lengths that differ.

    Source: Vo et al. 2024, arXiv:2405.15613, section 4; empty clusters are dropped before the next level here.
    """
    check_levels(levels, points_per_centroid)
    if levels[0] > len(x):
        raise ConfigError(
            f"levels={list(levels)}: there are {len(x)} vectors; the first level can have at most {len(x)} "
            "clusters: lower it, or set auto"
        )
    seeds = np.random.SeedSequence(seed).spawn(len(levels))
    points, num_images = x, np.ones(len(x), np.int64)
    centroids: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    parents: list[np.ndarray] = []
    for num_clusters, r, level_seed in zip(levels, points_per_centroid, seeds, strict=True):
        fitted = _fit_level(
            points,
            min(num_clusters, len(points)),  # fewer only where clusters below came out empty
            r=r,
            seed=level_seed,
            num_resamplings=num_resamplings,
            num_iterations=num_iterations,
            spherical=spherical,
        )
        points, parent = _drop_empty(points, fitted, spherical)
        num_images = np.bincount(parent, weights=num_images, minlength=len(points)).astype(np.int64)
        centroids.append(points)
        sizes.append(num_images)
        parents.append(parent)
    above = [*parents[1:], np.full(len(points), -1, np.int32)]  # parents[0] belongs to the images
    return Hierarchy(tuple(map(Level, centroids, above, sizes)))


def cluster_paths(leaf_ids: np.ndarray, parents: Sequence[np.ndarray]) -> np.ndarray:
    """(N, L) int32: the nodes above each image, root first, its leaf last.

    Args:
        leaf_ids: (N,) int, leaf of each image.
        parents: L-1 arrays from the leaves up, see `Hierarchy.parents`; empty for flat clusters.
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
    """Whether `fit_hierarchy` can take them, as far as that can be told without the data.

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
    points: np.ndarray,
    num_clusters: int,
    *,
    r: int,
    seed: np.random.SeedSequence,
    num_resamplings: int,
    num_iterations: int,
    spherical: bool,
) -> np.ndarray:
    """(K, D) centroids of one level; with r > 0 they follow the support of `points`, not their density."""
    first, *rounds = seed.spawn(1 + (num_resamplings if r else 0))
    fit = partial(fit_kmeans, num_iterations=num_iterations, spherical=spherical)
    centroids = fit(points, num_clusters, seed=first).centroids
    for round_seed in rounds:
        sample = points[_closest_rows(points, centroids, r, spherical)]
        centroids = fit(sample, min(num_clusters, len(sample)), seed=round_seed).centroids
    return centroids


def _closest_rows(points: np.ndarray, centroids: np.ndarray, r: int, spherical: bool) -> np.ndarray:
    """Ascending rows of the `r` points closest to each centroid among those assigned to it."""
    cluster_id, closeness = assign(points, centroids, spherical=spherical)
    if not spherical:
        closeness = -np.linalg.norm(points - centroids[cluster_id], axis=1)
    order = np.lexsort((-closeness, cluster_id))
    return np.sort(order[rank_in_group(cluster_id[order]) < r])


def _drop_empty(points: np.ndarray, centroids: np.ndarray, spherical: bool) -> tuple[np.ndarray, np.ndarray]:
    """The centroids that some point is assigned to, and (N,) int32, the points' clusters among those."""
    cluster_id, _ = assign(points, centroids, spherical=spherical)
    present, parent = np.unique(cluster_id, return_inverse=True)
    return centroids[present], parent.astype(np.int32)
