"""Retrieval against loops over pairs and clusters."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.ops.knn import Edges
from curate.ops.retrieval import retrieve_by_cluster, retrieve_by_sample

pairs = st.dictionaries(
    st.tuples(st.integers(0, 6), st.integers(0, 12)), st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]), max_size=60
)


def edges_of(table):
    rows = [(q, b, s) for (q, b), s in table.items()]
    q, b, s = zip(*rows, strict=True) if rows else ((), (), ())
    return Edges(np.array(q, np.int64), np.array(b, np.int64), np.array(s, np.float32))


def chosen_pairs(result):
    return set(zip(result.edges.query_ids.tolist(), result.edges.image_ids.tolist(), strict=True))


@settings(deadline=None)
@given(pairs, st.integers(1, 4))
def test_collisions_are_counted(table, k):
    expected = set()
    for query in range(7):
        own = sorted((-s, b) for (q, b), s in table.items() if q == query)
        expected |= {(query, b) for _, b in own[:k]}
    result = retrieve_by_sample(edges_of(table), k, refill=False)
    assert chosen_pairs(result) == expected
    assert dict(zip(result.image_ids.tolist(), result.multiplicity.tolist(), strict=True)) == {
        image: sum(b == image for _, b in expected) for _, image in expected
    }


@settings(deadline=None, max_examples=200)
@given(pairs, st.integers(1, 4))
def test_refilled_retrieval_equals_going_through_pairs_by_strength(table, k):
    expected, taken, served = set(), set(), [0] * 7
    for _, query, image in sorted((-s, q, b) for (q, b), s in table.items()):
        if image not in taken and served[query] < k:
            expected.add((query, image))
            taken.add(image)
            served[query] += 1
    result = retrieve_by_sample(edges_of(table), k, refill=True)
    assert chosen_pairs(result) == expected
    assert (result.multiplicity == 1).all()


def test_refill_gives_every_query_its_k_where_candidates_suffice():
    table = {(q, b): 1 - b / 100 for q in range(4) for b in range(12)}
    result = retrieve_by_sample(edges_of(table), 3, refill=True)
    assert result.image_ids.tolist() == list(range(12))
    assert np.bincount(result.edges.query_ids).tolist() == [3] * 4


def scan_clusters(query_cluster, pool_cluster, min_queries, per_cluster):
    """Sizes of the clusters that count, capped."""
    return {
        c: min(per_cluster, pool_cluster.count(c)) for c in set(query_cluster) if query_cluster.count(c) > min_queries
    }


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 5), max_size=30),
    st.lists(st.integers(0, 5), max_size=40),
    st.tuples(st.integers(0, 4), st.integers(0, 8), st.integers(0, 25)),
    st.sampled_from(["random", "nearest"]),
)
def test_cluster_retrieval_keeps_its_caps(query_cluster, pool_cluster, caps, order):
    min_queries, per_cluster, max_per_set = caps
    similarity = np.random.default_rng(0).random(len(pool_cluster)).astype(np.float32)
    rows = retrieve_by_cluster(
        np.array(query_cluster, int),
        np.array(pool_cluster, int),
        similarity,
        min_queries=min_queries,
        per_cluster=per_cluster,
        max_per_set=max_per_set,
        order=order,
        seed=0,
    )
    allowed = scan_clusters(query_cluster, pool_cluster, min_queries, per_cluster)
    drawn = {c: sum(pool_cluster[r] == c for r in rows) for c in allowed}
    assert len(set(rows.tolist())) == len(rows) == min(sum(allowed.values()), max_per_set)
    assert sum(drawn.values()) == len(rows)
    assert all(drawn[c] <= allowed[c] for c in allowed)
    short = [drawn[c] for c in allowed if drawn[c] < allowed[c]]
    assert not short or max(drawn.values()) - min(short) <= 1  # nobody gets more while another waits
    if order == "nearest":
        for c in allowed:
            own = sorted(
                (r for r in range(len(pool_cluster)) if pool_cluster[r] == c), key=lambda r: (-similarity[r], r)
            )
            assert {r for r in rows.tolist() if pool_cluster[r] == c} == set(own[: drawn[c]])


def test_a_cluster_needs_more_than_three_queries():
    query_cluster = np.array([0, 0, 0, 1, 1, 1, 1])
    pool_cluster = np.array([0, 1, 0, 1, 2])
    rows = retrieve_by_cluster(query_cluster, pool_cluster, np.ones(5, np.float32), seed=0)
    assert rows.tolist() == [1, 3]


def test_random_order_follows_the_seed():
    args = np.zeros(9, int), np.zeros(200, int), np.ones(200, np.float32)
    draws = [retrieve_by_cluster(*args, per_cluster=50, seed=seed).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_unusable_arguments_are_errors():
    with pytest.raises(ValueError, match="k=0"):
        retrieve_by_sample(Edges.empty(), 0, refill=False)
    with pytest.raises(ValueError, match="cap: -1 is negative"):
        retrieve_by_cluster(np.zeros(4, int), np.zeros(4, int), np.ones(4), per_cluster=-1, seed=0)
    with pytest.raises(ValueError, match="target: -1 is negative"):
        retrieve_by_cluster(np.zeros(4, int), np.zeros(4, int), np.ones(4), max_per_set=-1, seed=0)
