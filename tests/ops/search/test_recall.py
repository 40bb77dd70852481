"""Probes and recall, against plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.ops.search.recall import choose_num_probes, list_rank, recall
from curate.ops.vectors import normalize


def test_rank_counts_the_lists_before_the_home_of_the_answer() -> None:
    rng = np.random.default_rng(0)
    asking, found, centres = (normalize(rng.standard_normal((n, 8))) for n in (40, 40, 12))
    order = np.argsort(-(asking @ centres.T), axis=1)
    home = (found @ centres.T).argmax(axis=1)
    expected = [row.tolist().index(h) for row, h in zip(order, home, strict=True)]
    assert list_rank(asking, found, centres).tolist() == expected


@given(st.lists(st.integers(0, 9), min_size=1), st.sampled_from([0.5, 0.9, 0.985]))
def test_probes_are_the_fewest_that_reach_the_target(rank: list[int], target: float) -> None:
    probes = choose_num_probes(np.array(rank), target=target, most=10)
    share = [np.mean([r < p for r in rank]) for p in range(1, 11)]
    assert share[probes - 1] >= target
    assert all(s < target for s in share[: probes - 1])


def test_recall_counts_pairs() -> None:
    wanted = np.array([[1, 2], [1, 2], [3, 4], [5, 6]])
    share, error = recall(wanted, np.array([[1, 2], [5, 6], [9, 9]]))
    assert share == 0.75
    assert error == pytest.approx((0.75 * 0.25 / 4) ** 0.5)
