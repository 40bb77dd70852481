"""Water filling and balanced sampling against counting loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.ops.selection.sampling import (
    balanced_targets,
    cap,
    largest_remainder,
    temperature_targets,
    water_fill,
    water_fill_groups,
)

size_lists = st.lists(st.integers(0, 30), min_size=1, max_size=12)


def fill_by_scan(sizes, target):
    """Raise the level one by one while the sum stays within the target, then hand out the rest."""
    level = 0
    while level < max(sizes) and sum(min(s, level + 1) for s in sizes) <= target:
        level += 1
    draws = [min(s, level) for s in sizes]
    by_size = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    for i in by_size[: max(0, min(target, sum(sizes)) - sum(draws))]:
        draws[i] += 1
    return draws


@given(size_lists, st.integers(0, 400))
def test_water_fill_equals_linear_scan(sizes, target):
    assert water_fill(np.array(sizes), target).tolist() == fill_by_scan(sizes, target)


@given(size_lists, st.integers(0, 400))
def test_water_fill_sums_to_target_and_takes_small_clusters_whole(sizes, target):
    draws = water_fill(np.array(sizes), target)
    assert draws.sum() == min(target, sum(sizes))
    short = draws < sizes
    assert (draws[~short] <= draws[short].max(initial=max(sizes))).all()
    assert np.ptp(draws[short]) <= 1 if short.any() else True


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=20),
    st.lists(st.integers(0, 90), min_size=4, max_size=4),
)
def test_groups_are_filled_as_if_alone(clusters, targets):
    sizes = np.array([c[0] for c in clusters], np.int64)
    groups = np.array([c[1] for c in clusters], np.int64)
    draws = water_fill_groups(sizes, groups, np.array(targets))
    for group in range(4):
        inside = groups == group
        if inside.any():
            assert draws[inside].tolist() == fill_by_scan(sizes[inside].tolist(), targets[group])


def test_water_fill_is_exact_where_floats_are_not():
    sizes = np.array([2**53 + 1, 2**53 + 1, 3])
    assert water_fill(sizes, 2**53 + 2).sum() == 2**53 + 2


def test_cap_limits_each_cluster():
    assert cap(np.array([0, 5, 9]), 5).tolist() == [0, 5, 5]


trees = st.tuples(
    st.lists(st.integers(0, 8), min_size=6, max_size=6),
    st.lists(st.integers(0, 2), min_size=6, max_size=6),
    st.lists(st.integers(0, 1), min_size=3, max_size=3),
)


def share_recursively(sizes, parents, target):
    """Leaf shares by walking down the tree node by node."""
    totals = [sizes]
    for parent in parents:
        totals.append(
            [sum(t for t, p in zip(totals[-1], parent, strict=True) if p == n) for n in range(max(parent) + 1)]
        )
    shares = fill_by_scan(totals[-1], target)
    for level in range(len(parents) - 1, -1, -1):
        below = [0] * len(totals[level])
        for node, share in enumerate(shares):
            children = [i for i, p in enumerate(parents[level]) if p == node]
            if children:
                for child, draw in zip(
                    children, fill_by_scan([totals[level][c] for c in children], share), strict=True
                ):
                    below[child] = draw
        shares = below
    return shares


@given(trees, st.integers(0, 60))
def test_balanced_targets_equal_a_walk_down_the_tree(tree, target):
    sizes, lower, upper = tree
    upper = upper[: max(lower) + 1]
    parents = [np.array(lower), np.array(upper)]
    targets = balanced_targets(np.array(sizes), parents, target)
    assert targets.tolist() == share_recursively(sizes, [lower, upper], target)
    assert targets.sum() == min(target, sum(sizes))


def test_targets_of_flat_clusters_are_water_filling():
    assert balanced_targets(np.array([2, 50, 100]), [], 22).tolist() == [2, 10, 10]


@given(size_lists, st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 700), st.integers(1, 3))
def test_temperature_is_exact_and_proportional_to_the_power_where_clusters_last(sizes, alpha, target, max_repeats):
    sizes = np.array(sizes)
    draws = temperature_targets(sizes, alpha, target, max_repeats=max_repeats)
    assert draws.sum() == min(target, sizes.sum() * max_repeats)
    assert ((draws >= 0) & (draws <= sizes * max_repeats)).all()
    weights = np.where(sizes > 0, sizes.astype(float) ** alpha, 0)
    lasting = (draws < sizes * max_repeats) & (sizes > 0)
    if lasting.any():  # one unit for all that last, and nobody was exhausted by less
        unit = draws[lasting] / weights[lasting]
        rounding = 1 / weights[sizes > 0].min()
        assert np.ptp(unit) <= 2 * rounding + 1e-9
        whole = (draws == sizes * max_repeats) & (sizes > 0)
        assert (draws[whole] / weights[whole] <= unit.max() + rounding + 1e-9).all()


def test_temperature_equals_a_scan_for_the_unit():
    rng = np.random.default_rng(0)
    for _ in range(30):
        sizes, alpha = rng.integers(0, 500, 40), rng.uniform(0, 1)
        target = int(rng.integers(1, sizes.sum()))
        weights = np.where(sizes > 0, sizes.astype(float) ** alpha, 0)
        low, high = 0.0, float(sizes.max())
        for _ in range(200):
            unit = (low + high) / 2
            low, high = (unit, high) if np.minimum(unit * weights, sizes).sum() < target else (low, unit)
        assert np.abs(temperature_targets(sizes, alpha, target) - np.minimum(high * weights, sizes)).max() < 1 + 1e-6


def test_temperature_one_keeps_the_shares_of_the_pool_and_zero_evens_them():
    sizes = np.array([1000, 100, 10])
    assert temperature_targets(sizes, 1, 111).tolist() == [100, 10, 1]
    assert temperature_targets(sizes, 0, 30).tolist() == [10, 10, 10]
    assert temperature_targets(sizes, 0.5, 410).tolist() == [304, 96, 10]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=10), st.integers(0, 10**12))
def test_largest_remainder_is_exact_and_within_one_of_the_share(weights, total):
    if sum(weights) == 0 and total:
        with pytest.raises(ValueError, match="cannot be shared"):
            largest_remainder(np.array(weights), total)
        return
    found = largest_remainder(np.array(weights), total)
    assert found.sum() == total
    shares = np.array(weights) / (sum(weights) or 1) * total
    assert (np.abs(found - shares) <= 1 + 1e-9 * total).all()


def test_unusable_arguments_are_errors():
    with pytest.raises(ValueError, match="alpha=2"):
        temperature_targets(np.array([1]), 2, 1)
    with pytest.raises(ValueError, match="-1 cannot be shared"):
        largest_remainder(np.array([1.0]), -1)
    with pytest.raises(ValueError, match="target: -1 is negative"):
        water_fill(np.array([1]), -1)
    with pytest.raises(ValueError, match="sizes: -2 is negative"):
        water_fill(np.array([3, -2]), 1)
    with pytest.raises(ValueError, match="cap: -1 is negative"):
        cap(np.array([1]), -1)
