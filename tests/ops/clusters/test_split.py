"""Clusters by splitting cells: as many as wanted, shared by inertia, about as good as those fitted at once."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.ops.clusters import split
from curate.ops.clusters.kmeans import find_with_distance, fit_kmeans
from curate.ops.clusters.split import fit_split, share_leaves
from curate.ops.vectors import normalize


def fit(x: np.ndarray, num_clusters: int, seed: np.random.SeedSequence) -> np.ndarray:
    return fit_kmeans(x, num_clusters, seed=seed).centroids


def planted(num_concepts: int, num_vectors: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    concepts = normalize(rng.normal(size=(num_concepts, 32)))
    concept = np.concatenate([np.arange(num_concepts), rng.integers(0, num_concepts, num_vectors - num_concepts)])
    return normalize(concepts[concept] + 0.03 * rng.normal(size=(num_vectors, 32))), concept


def test_split_clusters_find_every_planted_concept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "SPLIT_FROM", 50)
    monkeypatch.setattr(split, "LEAVES_PER_CELL", 20)
    x, concept = planted(100, 3000)
    centroids = fit_split(x, 200, seed=np.random.SeedSequence(0), fit=fit)
    assert len(centroids) == 200
    cluster, _ = find_with_distance(x, centroids, spherical=True)
    assert len(np.unique(concept[cluster.argsort()])) == 100
    purity = [len(np.unique(concept[cluster == one])) for one in np.unique(cluster)]
    assert np.mean(np.array(purity) == 1) > 0.95


def test_inertia_is_within_a_few_percent_of_one_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = planted(60, 4000)
    run = partial(fit_split, x, 120, seed=np.random.SeedSequence(1), fit=fit)
    at_once = run()
    monkeypatch.setattr(split, "SPLIT_FROM", 50)
    monkeypatch.setattr(split, "LEAVES_PER_CELL", 20)
    by_cells = run()
    whole, cells = (find_with_distance(x, c, spherical=True)[1].sum() for c in (at_once, by_cells))
    assert cells != whole
    assert cells < 1.06 * whole


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.data())
def test_leaves_are_shared_out_within_sizes(sizes: list[int], data: st.DataObject) -> None:
    of = np.array(sizes)
    total = data.draw(st.integers(0, int(of.sum())))
    weights = np.array(data.draw(st.lists(st.floats(0, 9), min_size=len(of), max_size=len(of))))
    if not of.any():
        return
    counts = share_leaves(of, total, weights=weights)
    assert ((counts >= 0) & (counts <= of)).all()
    assert counts.sum() == max(total, np.count_nonzero(of)) or counts.sum() == total


def test_the_cell_with_more_inertia_gets_more_leaves() -> None:
    assert share_leaves(np.array([100, 100]), 40, weights=np.array([30.0, 10.0])).tolist() == [30, 10]
