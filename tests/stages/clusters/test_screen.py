"""Screening: densities by brute force, planted junk found, and none taken by the balanced draw."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.engine.pipeline import Pipeline
from curate.engine.store import Store, Table
from curate.ops.vectors import normalize
from curate.pipelines.hierarchical import Screening, screen_pool
from curate.stages.clusters.cluster import Assign, FitClusters
from curate.stages.clusters.screen import BINS, MeasureDensity, Screen, _bin, bounds_of
from tests.stages.planted import GivenVectors, PlantedCatalog, make

DIM, ROWS = 32, 240
K = 5


def pool(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(2, ROWS, DIM) vectors of two parts, and what each is: 0 a concept, 1 a tight mode, 2 noise."""
    kind = rng.choice(3, (2, ROWS), p=[0.88, 0.06, 0.06])
    concept = normalize(rng.standard_normal((8, DIM)))[rng.integers(0, 8, (2, ROWS))]
    near = normalize((concept + 0.16 * rng.standard_normal(concept.shape)).reshape(-1, DIM)).reshape(concept.shape)
    mode = normalize(rng.standard_normal((1, DIM)))[0]
    tight = normalize((mode + 0.03 * rng.standard_normal(concept.shape)).reshape(-1, DIM)).reshape(concept.shape)
    noise = normalize(rng.standard_normal((2 * ROWS, DIM))).reshape(concept.shape)
    return np.where((kind == 0)[..., None], near, np.where((kind == 1)[..., None], tight, noise)), kind


def screened(root: Path, vectors: np.ndarray, screen: Screen) -> Table:
    p = Pipeline(Store(root), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=("pool", "pool", "curated"), rows=ROWS))
    given_rows = tuple(tuple(map(tuple, part)) for part in (*vectors.tolist(), vectors[0].tolist()))
    embeddings = p.add("vectors", GivenVectors(vectors=given_rows), catalog=catalog)
    centres = p.add("centroids", FitClusters(levels=(12,)), embeddings=embeddings, catalog=catalog)
    leaves = p.add("assignments", Assign(), embeddings=embeddings, centroids=centres)
    cfg = Screening(density=MeasureDensity(num_neighbors=K), screen=screen)
    assert screen_pool(p, cfg, catalog=catalog, embeddings=embeddings, assignments=leaves) is not None
    make(p)
    return p.store.table("screened")


def test_planted_junk_is_found_and_concepts_stay(tmp_path: Path) -> None:
    vectors, kind = pool(np.random.default_rng(0))
    table = screened(tmp_path, vectors, Screen())
    assert [part.rows for part in table.parts()] == [ROWS, ROWS, 0]
    rows = table.read_all()
    found, what = rows["junk"].to_numpy(), kind.ravel()
    assert found[what == 1].all()
    assert found[what == 2].mean() > 0.9
    assert found[what == 0].mean() < 0.03
    metrics = table.metrics
    assert metrics["junk"] == found.sum()
    assert metrics["too_alike"] == pytest.approx((what == 1).sum(), abs=0.03 * len(what))
    assert metrics["low"] < np.median(rows["density"].to_numpy()) < metrics["high"]


def test_densities_and_coherences_are_those_of_brute_force(tmp_path: Path) -> None:
    vectors, _ = pool(np.random.default_rng(1))
    rows = screened(tmp_path, vectors, Screen(low=-1, high=1)).read_all()
    x = vectors.reshape(-1, DIM).astype(np.float32)
    cosine = x @ x.T
    np.fill_diagonal(cosine, -np.inf)
    wanted = np.sort(cosine, axis=1)[:, -K:].mean(axis=1)
    assert rows["density"].to_numpy() == pytest.approx(wanted, abs=1e-4)
    leaf = np.concatenate([Store(tmp_path).table("assignments").read(part)["cluster_id"].to_numpy() for part in (0, 1)])
    means = np.array([wanted[leaf == one].mean() for one in leaf])
    assert rows["coherence"].to_numpy() == pytest.approx(means, abs=1e-4)
    assert not rows["junk"].to_numpy().any()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.floats(1, 4))
def test_bounds_are_those_of_numpy(seed: int, z: float) -> None:
    rng = np.random.default_rng(seed)
    density = np.clip(rng.normal(rng.uniform(0.2, 0.8), 0.08, 501), -0.5, 0.99)
    value = np.log(1 - density)
    median = np.median(value)
    mad = np.median(np.abs(value - median))
    low, high = 1 - np.exp(median + z * 1.4826 * mad), 1 - np.exp(median - z * 1.4826 * mad)
    found = bounds_of(np.bincount(_bin(density), minlength=BINS), z)
    assert found.high == pytest.approx(high, abs=0.01)
    assert found.low == pytest.approx(max(-1, low), abs=0.05)


def test_nothing_measured_is_nothing_screened() -> None:
    assert bounds_of(np.zeros(BINS), 3.0) == (-1.0, 1.0)
