"""Nearest centroids by groups of them: nearly always those of brute force, at a part of the products."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from curate.ops.clusters import guide
from curate.ops.clusters.guide import NearestSearch, build_guide, follow, products_guided
from curate.ops.clusters.kmeans import run_lloyd
from curate.ops.vectors import normalize


def clustered(num_vectors: int, num_centroids: int, *, spherical: bool) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of some twenty degrees of freedom in 32 dims, no two groups apart, and centroids that k-means gave."""
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(20, 32)) * (np.arange(1, 21) ** -0.5)[:, None]
    x = np.tanh(rng.normal(size=(num_vectors, 20))) @ basis + 0.1 * rng.normal(size=(num_vectors, 32))
    x = normalize(x) if spherical else x.astype(np.float32)
    return x, run_lloyd(x, x[:num_centroids], num_iterations=2, spherical=spherical).centroids


@pytest.fixture
def three_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of 4, which with 1,024 centroids are grouped twice."""
    monkeypatch.setattr(guide, "GUIDED_FROM", 80)
    monkeypatch.setattr(guide, "GROUP_SIZE", 4)


@pytest.mark.parametrize("spherical", [True, False])
def test_guided_search_finds_what_brute_force_finds(three_levels: None, spherical: bool) -> None:
    x, centroids = clustered(6000, 1024, spherical=spherical)
    levels = build_guide(centroids, seed=0)
    assert [len(groups.member) for groups in levels[:1]] == [1024]
    assert len(levels) == 2
    found, score = NearestSearch(centroids, levels, spherical=spherical).nearest(x)
    product, distance = x @ centroids.T, ((x**2).sum(1)[:, None] - 2 * x @ centroids.T + (centroids**2).sum(1))
    best = product.argmax(1) if spherical else distance.argmin(1)
    assert (found == best).mean() >= 0.99
    of_found = np.take_along_axis(product if spherical else distance, found[:, None], 1)[:, 0]
    assert score == pytest.approx(of_found, abs=1e-4)


def test_more_groups_visited_find_the_nearest_more_often(three_levels: None) -> None:
    x, centroids = clustered(2000, 300, spherical=True)
    best, levels = (x @ centroids.T).argmax(1), build_guide(centroids, seed=0)
    agreement = [
        (NearestSearch(centroids, levels, num_visited=visited).nearest(x)[0] == best).mean() for visited in (1, 4, 100)
    ]
    assert agreement[0] < agreement[1] < agreement[2] == 1  # there are fewer than 100 groups


def test_few_centroids_are_all_compared() -> None:
    x, centroids = clustered(500, 40, spherical=True)
    assert build_guide(centroids, seed=0) == ()
    assert NearestSearch.over(centroids).nearest(x)[0].tolist() == (x @ centroids.T).argmax(1).tolist()


def test_answers_do_not_depend_on_the_number_of_threads(three_levels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guide, "BLOCK_ROWS", 300)
    x, centroids = clustered(1000, 200, spherical=False)
    levels, found = build_guide(centroids, seed=0), []
    for num_threads in (1, 2):
        with threadpool_limits(num_threads, user_api="blas"):
            found.append(NearestSearch(centroids, levels, spherical=False).nearest(x))
    assert found[0][0].tobytes() == found[1][0].tobytes()
    assert found[0][1].tobytes() == found[1][1].tobytes()


def test_groups_follow_centroids_that_move(three_levels: None) -> None:
    _, centroids = clustered(1000, 400, spherical=True)
    before = build_guide(centroids, seed=0)
    after = follow(before, centroids + 1)
    for old, new in zip(before, after, strict=True):
        assert new.member.tolist() == old.member.tolist()
        assert new.centroids == pytest.approx(old.centroids + 1, abs=1e-5)


def test_products_grow_with_the_logarithm_of_centroids() -> None:
    assert products_guided(4095) == 4095
    steps = [products_guided(64**power * 4000.0) for power in (1, 2, 3, 4)]
    assert np.diff(steps) == pytest.approx([guide.GROUPS_VISITED * guide.GROUP_SIZE] * 3)
