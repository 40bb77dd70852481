"""The recall that sampled queries measure."""

from pathlib import Path

import numpy as np
import pytest

from curate.engine.pipeline import Pipeline
from curate.engine.store import Store
from curate.ops.vectors import normalize
from curate.stages.search.build_lists import BuildLists
from curate.stages.search.find_truth import FindTruth
from curate.stages.search.fit_lists import FitLists
from curate.stages.search.measure_recall import MeasureRecall, RecallFigures
from curate.stages.search.neighbors import FindNeighbors
from curate.stages.search.pairs import read_pairs
from curate.stages.search.sample_queries import SampleQueries
from tests.stages.planted import GivenVectors, PlantedCatalog, make
from tests.stages.search.searches import declare_measured


@pytest.mark.parametrize("num_probes", [1, 6])
def test_measured_recall_is_that_of_the_judging_half(tmp_path: Path, num_probes: int) -> None:
    p = declare_measured(tmp_path, num_probes=num_probes)
    make(p)
    store = p.store
    wanted = {
        tuple(sorted(pair)) for pair in read_pairs(store.table("queries"), store.table("truth"), half=1).ids.tolist()
    }
    rows = store.table("neighbors").read_all().to_pylist()
    found = {tuple(sorted((r["query_id"], r["image_id"]))) for r in rows}
    figures = RecallFigures.of(store.table("recall"))
    assert figures.recall == pytest.approx(len(wanted & found) / len(wanted), abs=1e-5)
    assert figures.recall_pairs == len(wanted)
    assert (figures.recall == 1) == (num_probes == 6)


@pytest.mark.parametrize("num_probes", [1, 2])
def test_pairs_of_identical_vectors_count_as_found_with_the_first_of_them(tmp_path: Path, num_probes: int) -> None:
    """One list finds everything, though of equal vectors only the first is compared with the others."""
    rng = np.random.default_rng(3)
    concepts = rng.standard_normal((8, 12))
    distinct = normalize(concepts[rng.integers(0, 8, 60)] + 0.3 * rng.standard_normal((60, 12)))
    rows = distinct[rng.integers(0, 60, (2, 100))].tolist()
    p = Pipeline(Store(tmp_path), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=("pool", "pool"), rows=100))
    vectors = p.add("vectors", GivenVectors(vectors=tuple(tuple(map(tuple, part)) for part in rows)), catalog=catalog)
    given = {"embeddings": vectors, "catalog": catalog}
    queries = p.add("queries", SampleQueries(num_queries=80), **given)
    truth = p.add("truth", FindTruth(threshold=0.8), queries=queries, **given)
    centroids = p.add("centroids", FitLists(num_lists=num_probes), **given)
    search = FindNeighbors(threshold=0.8, heldout_threshold=0.8, lists=BuildLists(num_probes=num_probes))
    pairs = p.add("neighbors", search, centroids=centroids, **given)
    p.add("recall", MeasureRecall(), neighbors=pairs, queries=queries, truth=truth)
    make(p)
    figures = RecallFigures.of(p.store.table("recall"))
    assert (figures.recall, figures.recall_stderr) == (1, 0)
    assert figures.recall_pairs > 100


def test_both_halves_are_of_different_queries(tmp_path: Path) -> None:
    p = declare_measured(tmp_path)
    make(p)
    halves = [read_pairs(p.store.table("queries"), p.store.table("truth"), half=half).ids for half in (0, 1)]
    assert not set(halves[0][:, 0].tolist()) & set(halves[1][:, 0].tolist())
    assert sum(map(len, halves)) == p.store.table("truth").num_rows()


def test_no_queries_measure_nothing(tmp_path: Path) -> None:
    p = declare_measured(tmp_path, num_queries=0)
    make(p)
    assert RecallFigures.of(p.store.table("recall")) == RecallFigures()
