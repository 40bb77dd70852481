"""Rebalancing: caps, water filling, and top-down balanced sampling over a cluster tree."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from curate.ops.knn import rank_in_group


def water_fill(sizes: np.ndarray, target: int) -> np.ndarray:
    """Cap clusters at one common level so that the draws sum to `target`.

    What the level leaves over is one more image each for the largest clusters (ties: the first).

    Args:
        sizes: (K,) int64, images per cluster, all >= 0.
        target: images wanted in all, >= 0.

    Returns:
        (K,) int64, images to draw per cluster; sums to min(target, sizes.sum()).

    Raises:
        ValueError: `target` or a size is negative.

    Source: Vo et al. 2024, arXiv:2405.15613, hierarchical sampling.
    """
    return water_fill_groups(sizes, np.zeros(len(sizes), np.int64), np.array([target]))


def water_fill_groups(sizes: np.ndarray, groups: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """`water_fill` within each group of clusters, all groups at once.

    Args:
        sizes: (K,) int64, images per cluster, all >= 0.
        groups: (K,) int, group of each cluster, 0..G-1.
        targets: (G,) int64, images wanted per group, >= 0.

    Returns:
        (K,) int64, images to draw per cluster; sums to min(target, size) in each group.

    Raises:
        ValueError: a target or a size is negative.
    """
    sizes, targets = _counts(sizes, "sizes"), _counts(targets, "target")
    order = np.lexsort((-np.arange(len(sizes)), sizes, groups))
    ascending, group = sizes[order], np.asarray(groups)[order]
    starts = np.searchsorted(group, np.arange(len(targets)), side="left")
    ends = np.searchsorted(group, np.arange(len(targets)), side="right")
    position = np.arange(len(sizes))
    below = np.concatenate([[0], np.cumsum(ascending)])  # images of all clusters before a position
    # Drawn in a group when its level is this cluster's size; it grows along the group, so the clusters
    # that fit are the first ones.
    drawn = below[position] - below[starts[group]] + ascending * (ends[group] - position)
    whole = drawn <= targets[group]
    first = starts + np.bincount(group[whole], minlength=len(targets))
    left = targets - (below[first] - below[starts])
    level, remainder = np.divmod(left, np.maximum(ends - first, 1))
    capped = level[group] + (position >= (ends - remainder)[group])
    draws = np.empty_like(sizes)
    draws[order] = np.where(whole, ascending, capped)
    return draws


def cap(sizes: np.ndarray, cap: int) -> np.ndarray:
    """Images to draw per cluster, (K,) int64, when no cluster may give more than `cap`.

    Raises:
        ValueError: `cap` or a size is negative.
    """
    return np.minimum(_counts(sizes, "sizes"), _counts(np.array([cap]), "cap"))


def balanced_targets(sizes: np.ndarray, parents: Sequence[np.ndarray], target: int) -> np.ndarray:
    """Share `target` top-down over a cluster tree: each node's share is water-filled into its children.

    Args:
        sizes: (K0,) int64, images per leaf.
        parents: from the leaves up: `parents[l]` (K_l,) int is the node of level l+1 above each node of
            level l. Empty for flat clusters.
        target: images wanted in all, >= 0.

    Returns:
        (K0,) int64, images to draw per leaf; sums to min(target, sizes.sum()).

    Source: Vo et al. 2024, arXiv:2405.15613, hierarchical sampling.
    """
    levels = [_counts(sizes, "sizes")]
    for parent in parents:
        total = np.zeros(int(parent.max(initial=-1)) + 1, np.int64)
        np.add.at(total, parent, levels[-1])
        levels.append(total)
    targets = water_fill(levels[-1], target)
    for level, parent in zip(reversed(levels[:-1]), reversed(parents), strict=True):
        targets = water_fill_groups(level, parent, targets)
    return targets


def balanced_sample(
    leaf_ids: np.ndarray,
    parents: Sequence[np.ndarray],
    target: int,
    *,
    seed: int,
    max_repeats: int = 1,
    order: Literal["random", "closest"] = "random",
    similarity: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw `target` images so that clusters of every level are as even as their sizes allow.

    Args:
        leaf_ids: (N,) int, leaf of each image, 0..K0-1.
        parents: the tree above the leaves, see `balanced_targets`.
        target: draws wanted, repeats included.
        seed: of the random order within a leaf.
        max_repeats: times one image may be drawn; small leaves then count as that much larger.
        order: which images of a leaf come first; closest: by `similarity`, ties by row.
        similarity: (N,) float, to the leaf's centroid; needed for closest.

    Returns:
        rows: (M,) int64, ascending, the images drawn.
        repeats: (M,) int32, 1..max_repeats; sums to min(target, N * max_repeats).

    Raises:
        ValueError: `max_repeats` < 1, or closest without similarities.
    """
    if max_repeats < 1:
        raise ValueError(f"max_repeats={max_repeats}: at least 1 is needed")
    sizes = np.bincount(leaf_ids, minlength=len(parents[0]) if parents else 0)
    draws = balanced_targets(sizes * max_repeats, parents, target)
    rank = _rank_in_leaf(leaf_ids, seed=seed, order=order, similarity=similarity)
    every, extra = np.divmod(draws, np.maximum(sizes, 1))  # a leaf goes round before an image comes again
    repeats = every[leaf_ids] + (rank < extra[leaf_ids])
    rows = np.flatnonzero(repeats)
    return rows, repeats[rows].astype(np.int32)


def _rank_in_leaf(leaf_ids: np.ndarray, *, seed: int, order: str, similarity: np.ndarray | None) -> np.ndarray:
    """(N,) int64: place of each image in the drawing order of its leaf, from 0."""
    if order == "closest":
        if similarity is None:
            raise ValueError("order=closest: similarities to the centroids are needed; give them, or random")
        priority = -np.asarray(similarity)
    else:
        priority = np.random.default_rng(seed).permutation(len(leaf_ids))
    by_leaf = np.lexsort((priority, leaf_ids))
    rank = np.empty(len(leaf_ids), np.int64)
    rank[by_leaf] = rank_in_group(np.asarray(leaf_ids)[by_leaf])
    return rank


def _counts(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values).astype(np.int64)
    if values.size and values.min() < 0:
        raise ValueError(f"{name}: {values.min()} is negative; 0 or more is needed")
    return values
