"""Cluster trees over vectors in memory, and even draws from them: what FitClusters and Select do on tables."""

from collections.abc import Sequence

import numpy as np

from curate.ops.clusters.hierarchy import LevelFit, TreeLevel, check_levels, fit_leaves, grow_tree
from curate.ops.random_keys import random_keys
from curate.ops.selection.draws import Keyed, draw_smallest
from curate.ops.selection.sampling import balanced_targets


def fit_tree(
    x: np.ndarray, levels: Sequence[int], *, points_per_centroid: Sequence[int], how: LevelFit
) -> list[TreeLevel]:
    """Cluster `x` (N, D), then its centroids, and so on upwards.

    Args:
        levels: clusters wanted per level, leaves first, each smaller than the one before.
        points_per_centroid: r of each level, see `curate.ops.clusters.hierarchy`.

    Raises:
        ConfigError: levels that do not descend, more clusters than vectors, lengths that differ.
    """
    check_levels(levels, points_per_centroid)
    leaves = fit_leaves(x, levels[0], r=points_per_centroid[0], how=how)
    return grow_tree(leaves, levels[1:], points_per_centroid=points_per_centroid[1:], how=how)


def parents_of(tree: Sequence[TreeLevel]) -> list[np.ndarray]:
    """`parents[l]`: (K_l,) int32, the node of level l+1 above each node of level l; one less than levels."""
    return [level.parent for level in tree[:-1]]


def draw_evenly(leaf_ids: np.ndarray, parents: Sequence[np.ndarray], target: int, *, seed: int) -> np.ndarray:
    """(M,) int64, ascending rows of `target` images so that clusters of every level are as even as their sizes allow.

    Args:
        leaf_ids: (N,) int, leaf of each image, 0..K0-1.
        parents: the tree above the leaves, see `parents_of`; empty for flat clusters.
    """
    images = np.arange(len(leaf_ids), dtype=np.int64)
    keyed = Keyed(leaf_ids, random_keys(images, seed=seed, purpose="balance"), images)
    sizes = np.bincount(leaf_ids, minlength=len(parents[0]) if parents else 0)
    draws = draw_smallest(lambda: [keyed], sizes, balanced_targets(sizes, parents, target))
    return np.flatnonzero(draws.repeats(keyed))
