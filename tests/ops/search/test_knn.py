"""Exact neighbours against brute force."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.ops.search import knn
from curate.ops.search.knn import find_neighbors, join_within
from curate.ops.vectors import normalize


def sign_vectors(rng, num, dim=16):
    """+-1/4: products are exact, so that equal similarities are really equal and ties abound."""
    return (rng.integers(0, 2, (num, dim)) * 2 - 1).astype(np.float32) / 4


def brute_force(queries, base, query_ids, base_ids, *, threshold, max_neighbors):
    rows = []
    for q, query in zip(query_ids, queries, strict=True):
        found = [
            (-float(query @ vector), int(b))
            for b, vector in zip(base_ids, base, strict=True)
            if b != q and float(query @ vector) >= threshold
        ]
        rows += [(int(q), b, -s) for s, b in sorted(found)[:max_neighbors]]
    return sorted(rows, key=lambda row: (row[0], -row[2], row[1]))


def as_rows(edges):
    return [(int(q), int(b), float(s)) for q, b, s in zip(*edges, strict=True)]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.tuples(st.integers(0, 12), st.integers(0, 30)),
    threshold=st.sampled_from([-np.inf, -0.25, 0.25, 0.5, 1.0]),
    max_neighbors=st.sampled_from([None, 1, 2, 5, 40]),
    block_bytes=st.sampled_from([1, 64 * 6, 64 * 50, 1 << 20]),
)
def test_find_neighbors_equals_brute_force(seed, sizes, threshold, max_neighbors, block_bytes):
    rng = np.random.default_rng(seed)
    queries, base = sign_vectors(rng, sizes[0]), sign_vectors(rng, sizes[1])
    query_ids, base_ids = rng.permutation(40)[: sizes[0]], rng.permutation(40)[: sizes[1]]
    edges = find_neighbors(
        queries,
        base,
        query_ids=query_ids,
        base_ids=base_ids,
        threshold=threshold,
        max_neighbors=max_neighbors,
        block_bytes=block_bytes,
    )
    assert as_rows(edges) == brute_force(
        queries, base, query_ids, base_ids, threshold=threshold, max_neighbors=max_neighbors
    )
    assert [column.dtype for column in edges] == [np.int64, np.int64, np.float32]


def test_the_k_nearest_equal_full_sort_on_real_valued_vectors():
    rng = np.random.default_rng(0)
    queries, base = normalize(rng.normal(size=(20, 24))), normalize(rng.normal(size=(300, 24)))
    edges = find_neighbors(
        queries,
        base,
        query_ids=np.arange(20),
        base_ids=1000 + np.arange(300),
        threshold=-np.inf,
        max_neighbors=7,
        block_bytes=5000,
    )
    expected = 1000 + np.argsort(-(queries @ base.T), axis=1)[:, :7]
    assert (edges.image_ids.reshape(20, 7) == expected).all()
    assert (np.diff(edges.similarity.reshape(20, 7), axis=1) <= 0).all()


def test_similarity_of_a_copy_never_exceeds_one():
    x = normalize(np.random.default_rng(0).normal(size=(200, 333)))
    edges = find_neighbors(
        x, x, query_ids=np.arange(200), base_ids=1000 + np.arange(200), threshold=0.99, max_neighbors=None
    )
    assert edges.num_edges == 200
    assert edges.similarity.max() <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": np.ones((2, 3), np.float32)}, "queries have 3 dims, base has 2"),
        ({"queries": np.full((2, 2), np.nan, np.float32)}, "queries: NaN or infinite"),
        ({"base": np.ones((3, 2), np.float32)}, r"base: shape \(3, 2\) with 2 ids"),
        ({"base_ids": np.array([7, 7])}, "base: id 7 occurs 2 times"),
        ({"max_neighbors": 0}, "max_neighbors=0"),
    ],
)
def test_unusable_input_is_an_error(change, message):
    good = {
        "queries": np.eye(2, dtype=np.float32),
        "base": np.eye(2, dtype=np.float32),
        "query_ids": np.arange(2),
        "base_ids": np.arange(2),
        "threshold": 0.5,
        "max_neighbors": 4,
    }
    with pytest.raises(ValueError, match=message):
        find_neighbors(**(good | change))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(0, 40),
    threshold=st.sampled_from([-np.inf, -0.25, 0.25, 0.5, 1.0]),
    max_neighbors=st.sampled_from([None, 1, 2, 5, 60]),
    block_bytes=st.sampled_from([1, 16 * 6, 16 * 50, 1 << 20]),
    held=st.sampled_from([1, 1 << 22]),
)
def test_join_within_equals_the_search_of_all_among_all(seed, size, threshold, max_neighbors, block_bytes, held):
    rng = np.random.default_rng(seed)
    x, ids = sign_vectors(rng, size), rng.permutation(60)[:size]
    limits = {"threshold": threshold, "max_neighbors": max_neighbors}
    with patch.object(knn, "HELD_EDGES", held):
        edges = join_within(x, ids, block_bytes=block_bytes, **limits)
    assert as_rows(edges) == brute_force(x, x, ids, ids, **limits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("max_neighbors", [None, 3])
def test_rough_products_give_the_same_edges(dtype, max_neighbors):
    rng = np.random.default_rng(0)
    x = normalize(rng.normal(size=(30, 64))[rng.integers(0, 30, 300)] + 0.6 * rng.normal(size=(300, 64)))
    given = {"query_ids": np.arange(300), "base_ids": np.arange(300), "threshold": 0.6, "max_neighbors": max_neighbors}
    exact, within = (
        find_neighbors(x, x, **given),
        join_within(x, given["base_ids"], threshold=0.6, max_neighbors=max_neighbors),
    )
    with patch.object(knn, "proposal_dtype", lambda device: dtype):
        rough = find_neighbors(x, x, **given)
        rough_within = join_within(x, given["base_ids"], threshold=0.6, max_neighbors=max_neighbors)
    assert exact.num_edges > 300
    for other in (within, rough, rough_within):
        assert as_rows(other) == as_rows(exact)


def test_blocks_do_not_change_a_bit_of_the_result():
    x = normalize(np.random.default_rng(0).normal(size=(150, 33)))
    ids = np.arange(150)
    results = [
        as_rows(join_within(x, ids, threshold=0.2, max_neighbors=9, block_bytes=size)) for size in (100, 5000, 1 << 24)
    ]
    assert results[0] == results[1] == results[2]


def test_a_query_in_two_forms_has_the_neighbours_of_both():
    base = np.eye(3, dtype=np.float32)
    edges = find_neighbors(
        base[[0, 1]], base, query_ids=np.array([7, 7]), base_ids=np.arange(3), threshold=0.5, max_neighbors=1
    )
    assert as_rows(edges) == [(7, 0, 1.0), (7, 1, 1.0)]
