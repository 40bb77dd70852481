"""Sampled queries, their true neighbours, the probes they choose and the recall they measure."""

from pathlib import Path

import numpy as np
import pytest

from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline
from curate.engine.store import Store
from curate.ops.vectors import normalize
from curate.stages.search.lists import BuildLists, FitLists
from curate.stages.search.neighbors import FindNeighbors
from curate.stages.search.pairs import measured_recall, read_pairs
from curate.stages.search.truth import FindTruth, SampleQueries
from tests.stages.planted import GivenVectors, PlantedCatalog, all_vectors, make, planted

LIMITS = {"threshold": 0.8, "heldout_threshold": 0.8}


def declare(root: Path, *, num_lists: int = 6, num_queries: int = 60, **build: object):
    p, catalog, vectors = planted(root)
    given = {"embeddings": vectors, "catalog": catalog}
    centres = p.add("centroids", FitLists(num_lists=num_lists), **given)
    queries = p.add("queries", SampleQueries(num_queries=num_queries), **given)
    truth = p.add("truth", FindTruth(threshold=0.8, max_neighbors=500), queries=queries, **given)
    sample = {"queries": queries, "truth": truth}
    lists = p.add("lists", BuildLists(**build), centroids=centres, **sample, **given)
    p.add("neighbors", FindNeighbors(max_neighbors=500, **LIMITS), lists=lists, catalog=catalog, **sample)
    return p


def test_truth_equals_brute_force_of_sampled_pool_images(tmp_path: Path) -> None:
    p = declare(tmp_path)
    make(p)
    ids, x = all_vectors(p)
    asked = p.store.table("queries").read_all()["image_id"].to_pylist()
    assert 30 < len(asked) < 100
    assert all(i >> 32 in (0, 1) for i in asked)
    rows = p.store.table("truth").read_all().to_pylist()
    found = {(r["query_id"], r["image_id"]) for r in rows}
    answers = ids >> 32 != 3
    expected = set()
    for query in asked:
        near = answers & (x @ x[ids == query][0] >= 0.8) & (ids != query)
        expected |= {(query, image) for image in ids[near].tolist()}
    assert found == expected


@pytest.mark.parametrize("num_probes", [1, 6])
def test_measured_recall_is_that_of_the_judging_half(tmp_path: Path, num_probes: int) -> None:
    p = declare(tmp_path, num_probes=num_probes)
    make(p)
    store = p.store
    wanted = {
        tuple(sorted(pair)) for pair in read_pairs(store.table("queries"), store.table("truth"), half=1).ids.tolist()
    }
    rows = store.table("neighbors").read_all().to_pylist()
    found = {tuple(sorted((r["query_id"], r["image_id"]))) for r in rows}
    metrics = store.table("neighbors").metrics
    assert metrics["recall"] == pytest.approx(len(wanted & found) / len(wanted), abs=1e-5)
    assert metrics["recall_pairs"] == len(wanted)
    assert (metrics["recall"] == 1) == (num_probes == 6)


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
    centres = p.add("centroids", FitLists(num_lists=num_probes), **given)
    lists = p.add("lists", BuildLists(num_probes=num_probes), centroids=centres, **given)
    found = FindNeighbors(threshold=0.8, heldout_threshold=0.8)
    p.add("neighbors", found, lists=lists, catalog=catalog, queries=queries, truth=truth)
    make(p)
    metrics = p.store.table("neighbors").metrics
    assert (metrics["recall"], metrics["recall_stderr"]) == (1, 0)
    assert metrics["recall_pairs"] > 100


def test_auto_takes_the_fewest_probes_that_reach_the_target(tmp_path: Path) -> None:
    chosen = []
    for name, target in (("loose", 0.3), ("strict", 0.999)):
        p = declare(tmp_path / name, num_lists=20, target_recall=target)
        make(p)
        manifest = p.store.table("lists").manifest()
        assert manifest is not None
        chosen.append(manifest.resolved["num_probes"])
    assert chosen[0] < chosen[1]


def test_too_few_pairs_choose_the_default(tmp_path: Path) -> None:
    p = declare(tmp_path, num_queries=1)
    make(p)
    manifest = p.store.table("lists").manifest()
    assert manifest is not None
    assert manifest.resolved["num_probes"] == 4


def test_both_halves_are_of_different_queries(tmp_path: Path) -> None:
    p = declare(tmp_path)
    make(p)
    halves = [read_pairs(p.store.table("queries"), p.store.table("truth"), half=half).ids for half in (0, 1)]
    assert not set(halves[0][:, 0].tolist()) & set(halves[1][:, 0].tolist())
    assert sum(map(len, halves)) == p.store.table("truth").num_rows()


def test_nothing_is_made_twice(tmp_path: Path) -> None:
    p = declare(tmp_path)
    make(p)
    assert p.run(InProcess(1), Flags()) == []


def test_no_queries_measure_nothing(tmp_path: Path) -> None:
    p = declare(tmp_path, num_queries=0)
    make(p)
    tables = [p.store.table(name) for name in ("queries", "truth", "neighbors")]
    assert measured_recall(*tables, both_ways=True) == {"recall": None, "recall_pairs": 0}
    assert np.isfinite(p.store.table("neighbors").num_rows())
