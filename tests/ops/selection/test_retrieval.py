"""Retrieval against loops over pairs and clusters."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.ops.edges import Edges
from curate.ops.selection.retrieval import cluster_draws, match_queries

pairs = st.dictionaries(
    st.tuples(st.integers(0, 6), st.integers(0, 12)), st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]), max_size=60
)


def edges_of(table):
    rows = [(q, b, s) for (q, b), s in table.items()]
    q, b, s = zip(*rows, strict=True) if rows else ((), (), ())
    return Edges(np.array(q, np.int64), np.array(b, np.int64), np.array(s, np.float32))


def chosen_pairs(edges):
    return set(zip(edges.query_ids.tolist(), edges.image_ids.tolist(), strict=True))


@settings(deadline=None, max_examples=200)
@given(pairs, st.integers(1, 4))
def test_refilled_retrieval_equals_going_through_pairs_by_strength(table, k):
    expected, taken, served = set(), set(), [0] * 7
    for _, query, image in sorted((-s, q, b) for (q, b), s in table.items()):
        if image not in taken and served[query] < k:
            expected.add((query, image))
            taken.add(image)
            served[query] += 1
    assert chosen_pairs(match_queries(edges_of(table), k)) == expected


def test_refill_gives_every_query_its_k_where_candidates_suffice():
    table = {(q, b): 1 - b / 100 for q in range(4) for b in range(12)}
    matched = match_queries(edges_of(table), 3)
    assert sorted(matched.image_ids.tolist()) == list(range(12))
    assert np.bincount(matched.query_ids).tolist() == [3] * 4


@given(
    st.lists(st.integers(0, 5), max_size=30),
    st.lists(st.integers(0, 5), max_size=40),
    st.tuples(st.integers(0, 4), st.integers(0, 8), st.integers(0, 25)),
)
def test_cluster_retrieval_keeps_its_caps(query_cluster, pool_cluster, caps):
    min_queries, per_cluster, max_per_set = caps
    draws = cluster_draws(
        np.bincount(np.array(query_cluster, int), minlength=6),
        np.bincount(np.array(pool_cluster, int), minlength=6),
        min_queries=min_queries,
        per_cluster=per_cluster,
        max_per_set=max_per_set,
    ).tolist()
    allowed = [min(per_cluster, pool_cluster.count(c)) if query_cluster.count(c) > min_queries else 0 for c in range(6)]
    assert sum(draws) == min(sum(allowed), max_per_set)
    assert all(draw <= most for draw, most in zip(draws, allowed, strict=True))
    short = [draw for draw, most in zip(draws, allowed, strict=True) if draw < most]
    assert not short or max(draws) - min(short) <= 1  # nobody gets more while another waits


def test_a_cluster_needs_more_than_three_queries():
    assert cluster_draws(np.array([3, 4, 0]), np.array([2, 2, 1])).tolist() == [0, 2, 0]


def test_unusable_arguments_are_errors():
    with pytest.raises(ValueError, match="k=0"):
        match_queries(Edges.empty(), 0)
    with pytest.raises(ValueError, match="cap: -1 is negative"):
        cluster_draws(np.ones(4, int), np.ones(4, int), per_cluster=-1)
    with pytest.raises(ValueError, match="target: -1 is negative"):
        cluster_draws(np.ones(4, int), np.ones(4, int), max_per_set=-1)
