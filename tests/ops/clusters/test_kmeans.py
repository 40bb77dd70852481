"""k-means against scikit-learn, faiss-free brute force and planted clusters."""

import tracemalloc
from functools import partial
from importlib import resources
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA

from curate.errors import ConfigError
from curate.ops.clusters import kmeans, nearest
from curate.ops.clusters.assign import assign
from curate.ops.clusters.kmeans import Sums, fit_kmeans, move_centroids, run_lloyd, sum_by_nearest
from curate.ops.vectors import normalize


def inertia_of(x, centroids):
    return float(((x[:, None].astype(float) - centroids[None]) ** 2).sum(-1).min(1).sum())


def best_of_three(x, num_clusters, fit):
    return min(fit(x, num_clusters, seed) for seed in range(3))


def ours(x, num_clusters, seed):
    fit = fit_kmeans(x, num_clusters, seed=seed, num_iterations=100, spherical=False, tolerance=0)
    return fit.inertia


def sklearns(x, num_clusters, seed):
    return KMeans(num_clusters, n_init=1, random_state=seed, max_iter=100, tol=0).fit(x).inertia_


def mnist_pca(num_rows=2000, dim=64):
    with resources.as_file(resources.files("curate") / "samples" / "mnist5k.npz") as path, np.load(path) as data:
        images = data["images"][::2][:num_rows].reshape(num_rows, -1)
    return PCA(dim, random_state=0).fit_transform(images / 255).astype(np.float32)


@pytest.mark.parametrize("num_clusters", [10, 40])
def test_inertia_on_blobs_is_within_one_percent_of_sklearn(num_clusters):
    x = make_blobs(1500, 8, centers=num_clusters, random_state=0)[0].astype(np.float32)
    assert best_of_three(x, num_clusters, ours) <= 1.01 * best_of_three(x, num_clusters, sklearns)


def test_inertia_on_digits_is_within_one_percent_of_sklearn():
    x = mnist_pca()
    assert best_of_three(x, 50, ours) <= 1.01 * best_of_three(x, 50, sklearns)


@pytest.mark.parametrize("spherical", [False, True])
def test_figures_of_a_fit_describe_its_centroids(spherical):
    x = normalize(np.random.default_rng(0).normal(size=(400, 6)))
    fit = fit_kmeans(x, 9, seed=0, spherical=spherical)
    assert fit.inertia == pytest.approx(inertia_of(x, fit.centroids), rel=1e-5)
    nearest = ((x[:, None] - fit.centroids[None]) ** 2).sum(-1).argmin(1)
    assert fit.sizes.tolist() == np.bincount(nearest, minlength=9).tolist()
    assert 1 <= fit.iterations <= 20
    if spherical:
        assert np.linalg.norm(fit.centroids, axis=1) == pytest.approx(np.ones(9), abs=1e-6)


def test_converged_centroids_are_the_means_of_their_vectors():
    x = np.random.default_rng(0).normal(size=(500, 5)).astype(np.float32)
    fit = fit_kmeans(x, 7, seed=0, spherical=False, num_iterations=200, tolerance=0)
    cluster_id, _ = assign(x, fit.centroids, spherical=False)
    means = np.stack([x[cluster_id == c].mean(axis=0) for c in range(7)])
    assert fit.centroids == pytest.approx(means, abs=1e-3)


def test_sums_are_exact_where_float32_would_drift(monkeypatch):
    monkeypatch.setattr(kmeans, "BLOCK_BYTES", 16_000)
    x = np.full((20_000, 2), 0.1, np.float32)
    x[0] = 30_000
    sums = kmeans._sum_by_cluster(x, np.zeros(len(x), np.int32), 3)
    assert sums[0] == pytest.approx(x.astype(np.float64).sum(axis=0), rel=1e-13)
    assert not sums[1:].any()


def test_equal_seeds_give_equal_bytes_and_other_seeds_others():
    x = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    fits = [fit_kmeans(x, 20, seed=seed).centroids.tobytes() for seed in (3, 3, 4)]
    assert fits[0] == fits[1] != fits[2]


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    num_rows=st.integers(1, 40),
    distinct=st.integers(1, 40),
    share=st.floats(0, 1),
    spherical=st.booleans(),
)
def test_any_valid_number_of_clusters_works_on_repeated_vectors(seed, num_rows, distinct, share, spherical):
    rng = np.random.default_rng(seed)
    x = normalize(rng.normal(size=(distinct, 3)))[rng.integers(0, distinct, num_rows)]
    num_clusters = 1 + int(share * (num_rows - 1))
    fit = fit_kmeans(x, num_clusters, seed=seed, spherical=spherical)
    assert fit.centroids.shape == (num_clusters, 3)
    assert np.isfinite(fit.centroids).all()
    assert fit.sizes.sum() == num_rows
    if len(np.unique(x, axis=0)) <= num_clusters:
        assert fit.inertia == pytest.approx(0, abs=1e-5 * num_rows)


def test_empty_clusters_are_split_off_the_ones_with_most_inertia():
    centroids = np.array([[1, 1], [2, 2], [0, 0], [9, 9], [5, 5]], np.float32)
    sizes, inertias = np.array([1, 10, 0, 30, 3]), np.array([0.0, 6, 0, 0, 2])
    split = kmeans.split_for_empty(centroids, sizes, inertias)
    assert split[[0, 3, 4]].tolist() == centroids[[0, 3, 4]].tolist()  # thirty copies of one vector stay together
    assert split[[1, 2]].mean(axis=0) == pytest.approx([2, 2])
    assert 0 < abs(split[1] - split[2]).max() < 0.01
    twice = kmeans.split_for_empty(centroids, np.array([0, 10, 0, 30, 3]), inertias)
    assert abs(twice[0] - 2).max() < 0.02  # half of 6 is still more than 2


@pytest.mark.parametrize("spherical", [False, True])
def test_sums_of_parts_add_up_to_the_lloyd_of_all(spherical):
    rng = np.random.default_rng(0)
    x = normalize(rng.normal(size=(900, 6)))
    seeds = x[:40]
    whole = run_lloyd(x, seeds, num_iterations=5, spherical=spherical, tolerance=0)
    centroids = seeds
    for _ in range(5):
        total = Sums.zero(*centroids.shape)
        for part in np.array_split(x, 7):
            total.add(*sum_by_nearest(part, centroids, spherical=spherical))
        centroids = move_centroids(centroids, total, spherical=spherical)
    assert centroids == pytest.approx(whole.centroids, abs=1e-6)


def test_more_iterations_never_raise_the_inertia():
    x = np.random.default_rng(0).normal(size=(600, 5)).astype(np.float32)
    fits = [run_lloyd(x, x[:30], num_iterations=n, spherical=False, tolerance=0).inertia for n in range(8)]
    assert all(late <= early for early, late in pairwise(fits))
    assert fits[-1] < 0.8 * fits[0]


@pytest.mark.parametrize("seeding", ["plusplus", "parallel"])
@pytest.mark.parametrize("spherical", [False, True])
def test_a_fit_copies_no_vectors(spherical, seeding, monkeypatch):
    monkeypatch.setattr(nearest, "BLOCK_ROWS", 256)
    monkeypatch.setattr(kmeans, "BLOCK_BYTES", 1 << 20)
    x = np.random.default_rng(0).standard_normal((30_000, 256), dtype=np.float32)
    tracemalloc.start()
    try:
        start, _ = tracemalloc.get_traced_memory()
        fit_kmeans(x, 20, seed=0, seeding=seeding, spherical=spherical, num_iterations=2, block_bytes=1 << 20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - start < x.nbytes / 3


def test_opposite_vectors_leave_their_centroid_a_direction():
    x = np.array([[1, 0], [-1, 0]] * 3, np.float32)
    fit = fit_kmeans(x, 1, seed=0)
    assert abs(fit.centroids[0]).tolist() == [1, 0]


@pytest.mark.parametrize("spherical", [False, True])
def test_assign_equals_brute_force(spherical):
    rng = np.random.default_rng(0)
    x, centroids = normalize(rng.normal(size=(200, 7))), rng.normal(size=(11, 7)).astype(np.float32)
    cluster_id, similarity = assign(x, centroids, spherical=spherical)
    cosine = x @ normalize(centroids).T
    distance = ((x[:, None] - centroids[None]) ** 2).sum(-1)
    expected = cosine.argmax(1) if spherical else distance.argmin(1)
    assert cluster_id.tolist() == expected.tolist()
    assert similarity == pytest.approx(cosine[np.arange(200), expected], abs=1e-6)
    assert (cluster_id.dtype, similarity.dtype) == (np.int32, np.float32)
    assert [len(part) for part in assign(x[:0], centroids)] == [0, 0]


def test_impossible_counts_name_the_largest_valid_one():
    x = np.eye(4, dtype=np.float32)
    with pytest.raises(ConfigError, match="num_clusters=5: there are 4 vectors; at least 1 and at most 4"):
        fit_kmeans(x, 5, seed=0)
    with pytest.raises(ConfigError, match="num_clusters=0"):
        fit_kmeans(x, 0, seed=0)


def test_unusable_vectors_are_errors():
    with pytest.raises(ValueError, match="k-means: NaN or infinite"):
        fit_kmeans(np.full((3, 2), np.inf, np.float32), 1, seed=0)
    with pytest.raises(ValueError, match="vectors have 2 dims, centroids 3"):
        assign(np.ones((3, 2), np.float32), np.ones((1, 3), np.float32))


@pytest.mark.parametrize("spherical", [True, False])
def test_lloyd_that_skips_centroids_that_stayed_equals_lloyd_that_does_not(spherical, monkeypatch):
    x = normalize(make_blobs(600, 8, centers=30, random_state=0)[0].astype(np.float32))
    run = partial(run_lloyd, x, x[::12], num_iterations=12, spherical=spherical, tolerance=0)
    calls = []
    whole = kmeans.find_with_distance
    monkeypatch.setattr(
        kmeans, "find_with_distance", lambda x, c, **how: calls.append(len(x) * len(c)) or whole(x, c, **how)
    )
    skipping = run()
    done = sum(calls)
    monkeypatch.setattr(kmeans, "WORTH_SKIPPING", -1)
    calls.clear()
    plain = run()
    assert done < 0.7 * sum(calls)
    assert skipping.sizes.tolist() == plain.sizes.tolist()
    assert skipping.iterations == plain.iterations
    assert skipping.centroids == pytest.approx(plain.centroids, abs=1e-6)
