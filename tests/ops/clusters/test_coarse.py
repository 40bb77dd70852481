"""Nearest lists through groups, against a full comparison."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import ConfigError
from curate.ops.clusters import coarse
from curate.ops.clusters.coarse import CoarseLists, fit_lists, nearest_lists
from curate.ops.clusters.split import share_leaves
from curate.ops.vectors import normalize


def clustered(rng: np.random.Generator, num: int, dim: int = 16, concepts: int = 40) -> np.ndarray:
    centers = rng.standard_normal((concepts, dim))
    return normalize(centers[rng.integers(0, concepts, num)] + 0.5 * rng.standard_normal((num, dim)))


def test_flat_lists_equal_a_full_sort() -> None:
    rng = np.random.default_rng(0)
    x, centroids = clustered(rng, 300), clustered(rng, 25)
    found = nearest_lists(x, CoarseLists.flat(centroids), 4)
    assert found.tolist() == np.argsort(-(x @ centroids.T), axis=1)[:, :4].tolist()


def test_searching_every_group_equals_a_full_sort() -> None:
    x = clustered(np.random.default_rng(1), 2000)
    with patch.object(coarse, "GROUPED_FROM", 10), patch.object(coarse, "GROUPS_SEARCHED", 100):
        lists = fit_lists(x, 60, seed=0)
        found = nearest_lists(x[:500], lists, 3)
    assert len(lists.group_centroids) == 8
    assert len(lists.centroids) == 60
    assert found.tolist() == np.argsort(-(x[:500] @ lists.centroids.T), axis=1)[:, :3].tolist()


def test_a_few_groups_hardly_miss_the_nearest_list() -> None:
    x = clustered(np.random.default_rng(2), 6000)
    with patch.object(coarse, "GROUPED_FROM", 10), patch.object(coarse, "GROUPS_SEARCHED", 4):
        lists = fit_lists(x, 144, seed=0)
        found = nearest_lists(x, lists, 2)
    nearest = np.argmax(x @ lists.centroids.T, axis=1)
    assert (found[:, 0] == nearest).mean() > 0.97
    assert all(len(set(row)) == 2 for row in found.tolist())


def test_blocks_do_not_change_the_result() -> None:
    x = clustered(np.random.default_rng(3), 500)
    with patch.object(coarse, "GROUPED_FROM", 10):
        lists = fit_lists(x, 40, seed=0)
        whole = nearest_lists(x, lists, 2)
        with patch.object(coarse, "BLOCK_ROWS", 7):
            assert nearest_lists(x, lists, 2).tolist() == whole.tolist()


def test_more_lists_than_vectors_are_refused() -> None:
    x = clustered(np.random.default_rng(4), 12)
    with patch.object(coarse, "GROUPED_FROM", 10), pytest.raises(ConfigError, match="the sample holds 12 vectors"):
        fit_lists(x, 13, seed=0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.data())
def test_shares_are_exact_and_within_the_sizes(sizes: list[int], data: st.DataObject) -> None:
    given_sizes = np.array(sizes)
    occupied = int((given_sizes > 0).sum())
    if occupied == 0:
        return
    total = data.draw(st.integers(occupied, int(given_sizes.sum())))
    shares = share_leaves(given_sizes, total)
    assert shares.sum() == total
    assert (shares <= given_sizes).all()
    assert (shares[given_sizes > 0] >= 1).all()
