"""The recall that sampled queries measure."""

from pathlib import Path

import numpy as np
import pytest

from curate.engine import stage as stage_module
from curate.engine.cost import Assumptions, Shape
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.store import Store
from curate.ops.vectors import normalize
from curate.stages.search.build_lists import BuildLists
from curate.stages.search.find_truth import FindTruth
from curate.stages.search.fit_lists import FitLists
from curate.stages.search.measure_recall import ROUNDS, MeasureRecall, RecallFigures
from curate.stages.search.neighbors import FindNeighbors
from curate.stages.search.pairs import read_pairs
from curate.stages.search.sample_queries import SampleQueries
from curate.tables import NEIGHBORS, embeddings_schema, truth_schema
from tests.stages.planted import GivenVectors, PlantedCatalog, given_table, make
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


@pytest.mark.parametrize("groups", [1, 256])
def test_ties_are_followed_from_part_to_part(groups: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Query 20 and image 9 are a true pair; what was found is a pair of images that equal them by chains of ties."""
    monkeypatch.setattr(stage_module, "MAX_GROUPS", groups)
    spec = {"dim": 2, "dtype": "float32", "model": "m", "weights": ""}
    vector = np.ones(2, np.float32).tobytes()
    asked = [{"image_id": image, "vector": vector} for image in (0, 20)]
    true = [{"query_id": q, "image_id": i, "similarity": 0.9, "vector": vector} for q, i in ((0, 9), (20, 9), (20, 8))]
    schemas = {"queries": embeddings_schema(**spec), "truth": truth_schema(**spec), "neighbors": NEIGHBORS}
    given_table(tmp_path, "queries", schemas["queries"], [asked])
    given_table(tmp_path, "truth", schemas["truth"], [true])
    edges = [[(2, 1, 1.0)], [(4, 3, 0.9), (50, 51, 1.0)], [(1, 20, 1.0), (9, 5, 1.0)], [(3, 2, 1.0), (5, 4, 1.0)]]
    rows = [
        [{"query_id": a, "image_id": b, "similarity": cosine, "kind": "embedding"} for a, b, cosine in part]
        for part in edges
    ]
    given_table(tmp_path, "neighbors", NEIGHBORS, rows)
    p = Pipeline(Store(tmp_path), seed=0)
    refs = {name: Ref(name, schema) for name, schema in schemas.items()}
    for name, both_ways in (("both", True), ("one", False)):
        p.add(name, MeasureRecall(both_ways=both_ways), **refs)
    make(p)
    judged = read_pairs(p.store.table("queries"), p.store.table("truth"), half=1).ids
    assert judged.tolist() == [[20, 9], [20, 8]]
    # 20 = 1 = 2 = 3 and 9 = 5 = 4, so that the pair (4, 3) is that of 9 and 20; as (query, image) it is the other way.
    for name, recall in (("both", 0.5), ("one", 0.0)):
        figures = RecallFigures.of(p.store.table(name))
        assert (figures.recall, figures.recall_pairs) == (recall, 2)


def test_cost_of_the_recall_is_that_of_reading_the_pairs_in_rounds() -> None:
    given = Assumptions(images=10)
    inputs = {"neighbors": Shape(pool=10**6, row_bytes=8), "queries": Shape(pool=9), "truth": Shape(pool=9)}
    demand, made = MeasureRecall().cost(inputs, given)
    assert (demand.rows, made.rows) == (ROUNDS * 10**6, 1)
    assert demand.read == pytest.approx(ROUNDS * 8 * 10**6, rel=0.02)
