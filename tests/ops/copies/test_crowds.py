"""Groups are never counted too high, and surroundings are medians and quartiles as numpy has them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.ops.copies.crowds import (
    LEAST_SPREAD,
    NEAR_ONE,
    QUARTILE,
    Surroundings,
    Usual,
    count_groups,
    fisher,
    mark_groups,
    standing_out,
    surroundings,
    usual,
)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 300))
def test_counted_groups_are_at_most_the_distinct_ones_and_nearly_all_of_few(seed: int, num_edges: int) -> None:
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 10**9, 40)[rng.integers(0, 40, 40)]
    a, b = rng.integers(0, 40, (2, num_edges))
    seen = np.zeros(40, np.uint64)
    for part in np.array_split(rng.permutation(num_edges), 3):  # in batches of any order
        mark_groups(seen, a[part], group[b[part]])
    found = count_groups(seen, group)
    distinct = np.array([len(set(group[b[a == node]].tolist()) - {group[node]}) for node in range(40)])
    assert (found <= distinct).all()
    assert (found >= np.minimum(distinct, 1) - 1).all()
    assert found.sum() >= 0.7 * distinct.sum() - 3


def test_neighboring_numbers_of_groups_do_not_share_a_bit() -> None:
    seen = np.zeros(1, np.uint64)
    mark_groups(seen, np.zeros(20, np.int64), np.arange(1, 21))
    assert count_groups(seen, np.array([0]))[0] >= 18


def test_surroundings_are_the_quantiles_of_each_image() -> None:
    rng = np.random.default_rng(3)
    ids, correlation = rng.integers(0, 9, 70) << 32, rng.uniform(-0.5, 0.95, 70).astype(np.float32)
    ids, correlation = np.append(ids, 1 << 40), np.append(correlation, np.float32(0.9))
    found = surroundings(ids, correlation, min_pairs=3)
    assert found.image_ids.tolist() == sorted(set(ids.tolist()))
    for image, middle, spread in zip(*found, strict=True):
        z = np.arctanh(np.clip(correlation[ids == image].astype(np.float64), 0, NEAR_ONE))
        if len(z) < 3:
            assert (middle, spread) == (np.inf, 0)
        else:
            assert middle == pytest.approx(np.median(z), abs=1e-5)
            assert spread == pytest.approx((np.quantile(z, 0.75) - np.median(z)) / QUARTILE, abs=1e-5)
    assert usual(found).middle == pytest.approx(np.median(found.middle[np.isfinite(found.middle)]))


def test_a_pair_must_stand_out_for_both_of_its_images() -> None:
    known = Surroundings(np.array([2, 5, 7]), np.float32([0.2, 0.6, np.inf]), np.float32([0.2, 0.0, 0.0]))
    query, image = np.array([2, 2, 1, 7, 1, 5]), np.array([3, 5, 2, 1, 3, 7])
    z = np.float32([1.0, 1.0, 0.5, 0.9, 3.0, 0.3])
    height = standing_out(known, query, image, np.tanh(z), usual=Usual(0.4, 0.125))
    alone = {2: (z - 0.2) / 0.2, 5: (z - 0.6) / 0.125, 7: (z - 0.4) / 0.125}
    expected = [alone[2][0], min(alone[2][1], alone[5][1]), alone[2][2], alone[7][3], np.inf, alone[5][5]]
    np.testing.assert_allclose(height, expected, rtol=1e-4)
    narrow = standing_out(known, query[1:2], image[1:2], np.tanh(z[1:2]), usual=Usual(0.4, 0.01))
    np.testing.assert_allclose(narrow, min(0.8 / 0.2, 0.4 / LEAST_SPREAD), rtol=1e-4)


def test_agreements_below_zero_and_near_one_are_taken_as_these_ends() -> None:
    found = fisher(np.float32([-0.5, 0, 0.5, NEAR_ONE, 1]))
    np.testing.assert_allclose(found, [0, 0, np.arctanh(0.5), np.arctanh(NEAR_ONE), np.arctanh(NEAR_ONE)], rtol=1e-4)


def test_copies_stand_out_of_a_crowd_and_nothing_does_where_all_lie_over_each_other() -> None:
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(20), 16)
    alike = np.tanh(rng.normal(0.5, 0.1, len(ids))).astype(np.float32)
    alike[::16] = 0.95  # a copy of each
    found = surroundings(ids, alike, min_pairs=3)
    height = standing_out(found, ids, np.full(len(ids), 99), alike, usual=usual(found))
    assert (height[::16] > 7).mean() >= 0.9  # a quartile of 16 is wide at times
    assert (np.delete(height, np.arange(0, len(ids), 16)) < 7).all()
    equal = surroundings(ids, np.full(len(ids), 0.97, np.float32), min_pairs=3)
    assert (standing_out(equal, ids, ids, np.full(len(ids), 0.975, np.float32), usual=usual(equal)) < 7).all()
    assert LEAST_SPREAD > 0
    nothing = surroundings(np.array([1]), np.float32([0.9]), min_pairs=3)
    assert usual(nothing) == Usual(float("inf"), 0.0)
    assert standing_out(nothing, np.array([1]), np.array([2]), np.float32([0.99]), usual=usual(nothing)) == -np.inf
