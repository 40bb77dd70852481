"""Seeds of k-means: spread over the data, drawn as their papers say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.ops.clusters.kmeans import fit_kmeans, run_lloyd
from curate.ops.clusters.nearest import find_nearest
from curate.ops.clusters.seeding import choose_seeding, choose_seeds, seed_kmeans, seed_parallel


def inertia_of(x, centroids):
    return float(find_nearest(x, centroids, spherical=False)[1].sum(dtype=np.float64))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 30), st.integers(1, 4000))
def test_seeds_are_distinct_rows_and_cover_planted_groups(seed, num_clusters, block_bytes):
    rng = np.random.default_rng(seed)
    centers = 100 * np.eye(30, dtype=np.float32)[:num_clusters]
    group = np.concatenate([np.arange(num_clusters), rng.integers(0, num_clusters, 60)])
    x = centers[group] + rng.normal(size=(len(group), 30)).astype(np.float32) / 10
    rows = seed_kmeans(x, num_clusters, rng=rng, block_bytes=block_bytes)
    assert sorted(group[rows]) == list(range(num_clusters))


def test_candidates_of_a_block_follow_the_distances_of_their_step():
    """Blocks of candidates with rejection give the potential that drawing for each step alone gives."""
    x = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)

    def potentials(block_bytes):
        fits = [seed_kmeans(x, 30, rng=np.random.default_rng(s), block_bytes=block_bytes) for s in range(60)]
        return np.array([inertia_of(x, x[rows]) for rows in fits])

    blocked, stepwise = potentials(1 << 20), potentials(1)
    error = np.sqrt(blocked.var() / 60 + stepwise.var() / 60)
    assert abs(blocked.mean() - stepwise.mean()) < 3 * error
    random = [x[np.random.default_rng(s).choice(400, 30, replace=False)] for s in range(60)]
    assert blocked.mean() < 0.9 * np.mean([inertia_of(x, c) for c in random])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 30))
def test_parallel_seeds_are_distinct_rows_and_cover_planted_groups(seed, num_clusters):
    rng = np.random.default_rng(seed)
    centers = 100 * np.eye(30, dtype=np.float32)[:num_clusters]
    group = np.concatenate([np.arange(num_clusters), rng.integers(0, num_clusters, 60)])
    x = centers[group] + rng.normal(size=(len(group), 30)).astype(np.float32) / 10
    rows = seed_parallel(x, num_clusters, rng=rng)
    assert sorted(group[rows]) == list(range(num_clusters))


@pytest.mark.parametrize("num_clusters", [1, 3, 5, 20])
@pytest.mark.parametrize("seed", [seed_kmeans, seed_parallel])
def test_seeds_of_repeated_vectors_are_distinct_rows(seed, num_clusters):
    x = np.repeat(np.eye(4, dtype=np.float32), 5, axis=0)
    rows = seed(x, num_clusters, rng=np.random.default_rng(0))
    assert len(set(rows.tolist())) == num_clusters
    assert len(np.unique(x[rows], axis=0)) == min(4, num_clusters)


def long_tail(num_rows=6000, dim=16):
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(60, dim))
    share = np.arange(1, 61) ** -1.2
    own = rng.choice(60, num_rows, p=share / share.sum())
    return (centers[own] + 0.3 * rng.normal(size=(num_rows, dim))).astype(np.float32)


def test_parallel_seeds_fit_within_three_percent_of_greedy_ones():
    x = long_tail()

    def mean_inertia(seeding, iterations):
        fits = [
            fit_kmeans(x, 100, seed=s, seeding=seeding, spherical=False, num_iterations=iterations) for s in range(6)
        ]
        return np.mean([fit.inertia for fit in fits])

    for iterations in (0, 20):
        assert mean_inertia("parallel", iterations) <= 1.03 * mean_inertia("plusplus", iterations)
    random = np.mean([run_lloyd(x, x[s::60], num_iterations=0, spherical=False).inertia for s in range(6)])
    assert mean_inertia("parallel", 0) < 0.8 * random


def test_weights_count_as_repeated_rows():
    """Seeds of weighted rows have the potential that seeds of the repeated rows have."""
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(80, 3)).astype(np.float32), rng.integers(1, 30, 80)
    repeated = np.repeat(x, weights, axis=0)

    def potentials(rows, weights):
        seeds = [rows[seed_kmeans(rows, 8, rng=np.random.default_rng(s), weights=weights)] for s in range(80)]
        return np.array([inertia_of(repeated, c) for c in seeds])

    weighted, plain = potentials(x, weights.astype(np.float32)), potentials(repeated, None)
    error = np.sqrt(weighted.var() / 80 + plain.var() / 80)
    assert abs(weighted.mean() - plain.mean()) < 3 * error
    unweighted = potentials(x, np.ones(80, np.float32))
    assert weighted.mean() < unweighted.mean() - 3 * error


def test_rule_of_the_seeding_bounds_time_and_memory():
    mib = 1 << 20
    assert choose_seeding(1 << 20, 1 << 13, block_bytes=256 * mib) == "plusplus"
    assert choose_seeding(1 << 20, 1 << 15, block_bytes=1024 * mib) == "parallel"  # 2**35 products
    assert choose_seeding(1 << 24, 10, block_bytes=256 * mib) == "parallel"  # a step holds 512 MiB of distances
    x = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    for seeding, block_bytes in (("plusplus", 1 << 20), ("parallel", 1)):
        found, expected = (
            choose_seeds(x, 20, rng=np.random.default_rng(0), seeding=s, block_bytes=block_bytes)
            for s in ("auto", seeding)
        )
        assert found.tolist() == expected.tolist()
