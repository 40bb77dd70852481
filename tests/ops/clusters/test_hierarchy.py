"""Hierarchical k-means: the tree is sound, and rare concepts survive."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.trees import draw_evenly, fit_tree, parents_of
from curate.errors import ConfigError
from curate.ops.clusters import hierarchy
from curate.ops.clusters.assign import assign
from curate.ops.clusters.hierarchy import LevelFit, auto_levels, cluster_paths
from curate.ops.entropy import normalized_entropy
from curate.ops.vectors import normalize


def long_tail(num_images=3000, num_concepts=100, dim=32, seed=0):
    """Concepts of Zipf sizes, each a unit vector with noise; vectors and their concept."""
    rng = np.random.default_rng(seed)
    share = np.arange(1, num_concepts + 1) ** -1.2
    concept = rng.choice(num_concepts, num_images, p=share / share.sum())
    center = normalize(rng.normal(size=(num_concepts, dim)))
    return normalize(center[concept] + 0.06 * rng.normal(size=(num_images, dim))), concept


@pytest.mark.parametrize("spherical", [False, True])
def test_every_level_holds_all_images_and_no_empty_cluster(spherical):
    x, _ = long_tail(800)
    tree = fit_tree(
        x, [60, 20, 4], points_per_centroid=[0, 3, 2], how=LevelFit(seed=0, num_resamplings=2, spherical=spherical)
    )
    leaf_ids, _ = assign(x, tree[0].centroids, spherical=spherical)
    paths = cluster_paths(leaf_ids, parents_of(tree))
    assert paths.shape == (800, 3)
    assert (paths[:, -1] == leaf_ids).all()
    for level, column in zip(tree, paths.T[::-1], strict=True):
        assert len(level.centroids) == len(level.parent) == len(level.num_images)
        assert np.bincount(column).tolist() == level.num_images.tolist()
        assert level.num_images.min() >= 1
    for lower, upper in pairwise(tree):
        nearest, _ = assign(lower.centroids, upper.centroids, spherical=spherical)
        assert lower.parent.tolist() == nearest.tolist()
    assert (tree[-1].parent == -1).all()


def test_clusters_beyond_the_distinct_vectors_are_dropped_at_every_level():
    x = np.repeat(np.eye(5, dtype=np.float32), 20, axis=0)
    tree = fit_tree(x, [50, 10, 3], points_per_centroid=[2, 2, 2], how=LevelFit(seed=0, num_resamplings=2))
    assert len(tree[0].centroids) == 5
    assert tree[0].num_images.tolist() == [20] * 5
    assert all(level.num_images.sum() == 100 for level in tree)


def test_resampling_spreads_centroids_over_rare_concepts():
    x, concept = long_tail()

    def num_covered(points_per_centroid):
        tree = fit_tree(x, [100], points_per_centroid=points_per_centroid, how=LevelFit(seed=0, num_resamplings=5))
        nearest = (x @ tree[0].centroids.T).argmax(axis=0)
        return len(np.unique(concept[nearest]))

    assert num_covered([2]) > num_covered([0])


def test_balanced_sampling_over_the_tree_raises_concept_entropy():
    x, concept = long_tail()
    tree = fit_tree(x, [150, 30, 6], points_per_centroid=[5, 3, 2], how=LevelFit(seed=0, num_resamplings=3))
    leaf_ids, _ = assign(x, tree[0].centroids)
    rows = draw_evenly(leaf_ids, parents_of(tree), 300, seed=0)
    pool, selection = (normalized_entropy(np.bincount(c, minlength=100)) for c in (concept, concept[rows]))
    assert selection > pool + 0.1


@pytest.mark.parametrize("spherical", [False, True])
def test_closest_rows_are_the_r_nearest_of_each_cluster(spherical):
    rng = np.random.default_rng(0)
    points, centroids = normalize(rng.normal(size=(60, 3))), rng.normal(size=(4, 3)).astype(np.float32)
    if spherical:
        centroids = normalize(centroids)
    far = np.linalg.norm(points[:, None] - centroids[None], axis=2)
    expected = []
    for c in range(4):
        own = np.flatnonzero(far.argmin(axis=1) == c)
        expected += own[np.argsort(far[own, c])][:3].tolist()
    assert hierarchy._closest_rows(points, centroids, 3, LevelFit(seed=0, spherical=spherical)).tolist() == sorted(
        expected
    )


def test_equal_seeds_give_equal_trees():
    x, _ = long_tail(400)
    trees = [
        fit_tree(x, [30, 5], points_per_centroid=[2, 2], how=LevelFit(seed=seed, num_resamplings=2))[0].centroids
        for seed in (0, 0, 1)
    ]
    assert trees[0].tobytes() == trees[1].tobytes() != trees[2].tobytes()


def test_paths_of_flat_clusters_are_the_clusters():
    assert cluster_paths(np.array([2, 0]), []).tolist() == [[2], [0]]


@given(st.integers(1, 10**11))
def test_auto_levels_are_always_valid(num_images):
    levels = auto_levels(num_images)
    assert 1 <= len(levels) <= 4
    assert levels[0] <= num_images
    assert all(low >= 10 * high for low, high in pairwise(levels))
    assert levels[-1] >= (10 if len(levels) > 1 else 1)


def test_auto_levels_follow_the_written_rule():
    assert auto_levels(40) == [2]
    assert auto_levels(2_000) == [100, 10]
    assert len(auto_levels(743_000_000)) == 4


@pytest.mark.parametrize(
    ("levels", "r", "message"),
    [
        ([], [], r"levels=\[\]: needed is at least one level"),
        ([3, 3], [0, 0], r"levels=\[3, 3\]: .*each smaller"),
        ([3, 0], [0, 0], r"levels=\[3, 0\]"),
        ([9, 2], [0, 0], "there are 8 vectors; the first level can have at most 8"),
        ([4, 2], [0], r"points_per_centroid=\[0\]: one number >= 0 for each of 2 levels"),
        ([4, 2], [0, -1], r"points_per_centroid=\[0, -1\]"),
    ],
)
def test_impossible_trees_are_errors(levels, r, message):
    with pytest.raises(ConfigError, match=message):
        fit_tree(np.eye(8, dtype=np.float32), levels, points_per_centroid=r, how=LevelFit(seed=0))


def test_no_images_are_an_error():
    with pytest.raises(ConfigError, match="0 images: clustering needs at least 1"):
        auto_levels(0)
