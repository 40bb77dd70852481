"""Rebalancing: how many images to draw from each cluster, by caps, water filling, temperature, or down a cluster tree.

Everything is counted in integers, so that draws add up to the target exactly; only temperatures need fractions, which
are rounded by the largest remainder.
"""

from collections.abc import Sequence

import numpy as np


def water_fill(sizes: np.ndarray, target: int) -> np.ndarray:
    """Cap clusters at one common level so that the draws sum to `target`.

    Clusters below the level are drawn whole, the others up to the level, as water stands in vessels of different
    heights. What is left over is one more image each for the largest clusters (ties: the first).

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
    sizes, targets = _checked_counts(sizes, "sizes"), _checked_counts(targets, "target")
    order = np.lexsort((-np.arange(len(sizes)), sizes, groups))
    ascending, group = sizes[order], np.asarray(groups)[order]
    starts = np.searchsorted(group, np.arange(len(targets)), side="left")
    ends = np.searchsorted(group, np.arange(len(targets)), side="right")
    position = np.arange(len(sizes))
    below = np.concatenate([[0], np.cumsum(ascending)])  # images of all clusters before a position
    # What its group draws when the level is this cluster's size. It grows along the group, so the clusters that are
    # drawn whole are the first ones, and the others share what is left.
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
    """(K,) int64: images to draw per cluster when none may give more than `cap`; `sizes` is (K,) int64.

    Raises:
        ValueError: `cap` or a size is negative.
    """
    return np.minimum(_checked_counts(sizes, "sizes"), _checked_counts(np.array([cap]), "cap"))


def balanced_targets(sizes: np.ndarray, parents: Sequence[np.ndarray], target: int) -> np.ndarray:
    """Share `target` top-down over a cluster tree: the share of a cluster is water-filled into those below it.

    Args:
        sizes: (K0,) int64, images per leaf.
        parents: from the leaves up: `parents[l]`, (K_l,) int, is the cluster of level l+1 that holds each
            cluster of level l. Empty for flat clusters.
        target: images wanted in all, >= 0.

    Returns:
        (K0,) int64, images to draw per leaf; sums to min(target, sizes.sum()).

    Raises:
        ValueError: `target` or a size is negative.

    Source: Vo et al. 2024, arXiv:2405.15613, hierarchical sampling.
    """
    levels = [_checked_counts(sizes, "sizes")]
    for parent in parents:
        total = np.zeros(int(parent.max(initial=-1)) + 1, np.int64)
        np.add.at(total, parent, levels[-1])
        levels.append(total)
    targets = water_fill(levels[-1], target)
    for level, parent in zip(reversed(levels[:-1]), reversed(parents), strict=True):
        targets = water_fill_groups(level, parent, targets)
    return targets


def temperature_targets(sizes: np.ndarray, alpha: float, target: int, *, max_repeats: int = 1) -> np.ndarray:
    """Share `target` among clusters in proportion to their size to the power of `alpha`.

    A cluster that its share would exhaust is taken whole, and the others divide what is left in the same
    proportion; fractions are rounded by largest remainder (ties: the first).

    Args:
        sizes: (K,) int64, images per cluster, >= 0.
        alpha: 0: equal shares, as flat water filling but for who gets the remainder; 1: as the pool is.
        target: draws wanted in all, >= 0.
        max_repeats: times one image may be drawn, >= 1.

    Returns:
        (K,) int64, draws per cluster; sums to min(target, max_repeats * sizes.sum()).

    Raises:
        ValueError: `target` or a size is negative, `alpha` is outside 0..1.

    Source: sampling languages by n^alpha, Conneau and Lample 2019, arXiv:1901.07291, section 3.1.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha}: 0 (equal shares) to 1 (as the pool is) is needed")
    sizes = _checked_counts(sizes, "sizes")
    most = sizes * max_repeats
    target = min(int(_checked_counts(np.array([target]), "target")[0]), int(most.sum()))
    weights = np.where(sizes > 0, sizes.astype(np.float64) ** alpha, 0)
    order = np.argsort(most / np.maximum(weights, np.finfo(float).tiny), kind="stable")  # who is exhausted first
    spent = np.concatenate([[0], np.cumsum(most[order])[:-1]])  # images of the clusters that are exhausted before each
    open_weight = np.cumsum(weights[order][::-1])[::-1]
    # What a unit of weight draws if all clusters from here on last; those that it would exhaust do not.
    unit = (target - spent) / np.maximum(open_weight, np.finfo(float).tiny)
    whole = np.zeros(len(sizes), bool)
    whole[order] = np.logical_and.accumulate(unit * weights[order] >= most[order])
    left, still_open = target - int(most[whole].sum()), ~whole & (weights > 0)
    draws = np.where(whole, most, 0)
    draws[still_open] = largest_remainder(weights[still_open], left)
    return draws


def largest_remainder(weights: np.ndarray, total: int) -> np.ndarray:
    """Share `total` in proportion to weights: round down, then give one more each to the largest fractions.

    Args:
        weights: (K,) float, >= 0.

    Returns:
        (K,) int64, sums to `total`.

    Raises:
        ValueError: a weight or the total is negative, or all weights are 0 where there is something to share.
    """
    weights = np.asarray(weights, np.float64)
    if total < 0 or (weights < 0).any() or (total > 0 and weights.sum() == 0):
        raise ValueError(f"{total} cannot be shared by the weights {weights.tolist()[:5]}; none may be negative")
    if total == 0:
        return np.zeros(len(weights), np.int64)
    shares = weights / weights.sum() * total
    whole = np.floor(shares).astype(np.int64)
    left = total - int(whole.sum())
    by_fraction = np.argsort(whole - shares, kind="stable")
    if left >= 0:
        whole[by_fraction[:left]] += 1
    else:  # shares a rounding error above their integer
        whole[by_fraction[left:]] -= 1
    return whole


def _checked_counts(values: np.ndarray, name: str) -> np.ndarray:
    """As int64.

    Raises:
        ValueError: one is negative.
    """
    values = np.asarray(values).astype(np.int64)
    if values.size and values.min() < 0:
        raise ValueError(f"{name}: {values.min()} is negative; 0 or more is needed")
    return values
