"""Neighbors of sampled queries, against brute force."""

from pathlib import Path

import numpy as np

from curate.engine.cost import Assumptions, Shape
from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.image_ids import part_of
from curate.ops.images.hashes import dihedral
from curate.stages.search.find_truth import FindTruth, measured, read_thresholds
from curate.stages.search.sample_queries import SampleQueries
from tests.stages.planted import all_vectors, make
from tests.stages.search.searches import declare_measured, given_thresholds, hashed, ref, turned_copies


def test_truth_equals_brute_force_of_sampled_pool_images(tmp_path: Path) -> None:
    p = declare_measured(tmp_path)
    make(p)
    ids, x = all_vectors(p)
    asked = p.store.table("queries").read_all()["image_id"].to_pylist()
    assert 30 < len(asked) < 100
    rows = p.store.table("truth").read_all().to_pylist()
    answers = part_of(ids) != 3
    expected = set()
    for query in asked:
        near = answers & (x @ x[ids == query][0] >= 0.8) & (ids != query)
        expected |= {(query, image) for image in ids[near].tolist()}
    assert {(r["query_id"], r["image_id"]) for r in rows} == expected


def test_at_most_so_many_neighbors_are_the_most_similar_ones(tmp_path: Path) -> None:
    p = declare_measured(tmp_path)
    few = FindTruth(threshold=0.8, max_neighbors=3)
    refs = {name: ref(p, name) for name in ("queries", "catalog")}
    p.add("few", few, embeddings=ref(p, "vectors"), **refs)
    make(p)
    columns = ["query_id", "image_id"]
    kept = p.store.table("truth").read_all().to_pandas().groupby("query_id").head(3)[columns]
    assert p.store.table("few").read_all().to_pandas()[columns].values.tolist() == kept.values.tolist()


def test_hashes_find_their_mirrored_and_turned_copies(tmp_path: Path) -> None:
    hashes = turned_copies(1, num_pictures=6, num_images=120)
    p, catalog, images = hashed(tmp_path, hashes, num_parts=2)
    queries = p.add("queries", SampleQueries(num_queries=1000), hashes=images, catalog=catalog)
    p.add("truth", FindTruth(threshold=0.9, max_neighbors=500), hashes=images, queries=queries, catalog=catalog)
    make(p)
    rows = p.store.table("truth").read_all().to_pylist()
    turned, plain = np.unpackbits(dihedral(hashes), axis=2), np.unpackbits(hashes, axis=1)
    near = np.argwhere([(form[:, None] != plain).sum(2).min(0) <= 0.05 * 256 for form in turned]).tolist()
    ids = [part << 32 | row for part in (0, 1) for row in range(60)]
    assert {(r["query_id"], r["image_id"]) for r in rows} == {(ids[q], ids[i]) for q, i in near if q != i}


def test_nothing_is_made_twice(tmp_path: Path) -> None:
    p = declare_measured(tmp_path)
    make(p)
    assert p.run(InProcess(1), Flags()) == []


def test_thresholds_are_read_by_their_use(tmp_path: Path) -> None:
    table = given_thresholds(tmp_path, pool=0.7, heldout=0.6, floor=0.4)
    assert read_thresholds(table) == {"pool": 0.7, "heldout": 0.6, "floor": 0.4}
    assert measured(table, threshold="heldout", alike="floor") == {"threshold": 0.6, "alike": 0.4}
    assert measured(None, threshold="heldout") == {}
    assert FindTruth().resolve(thresholds=table).threshold == 0.4
    assert FindTruth(threshold=0.9).resolve(thresholds=table).threshold == 0.9


def test_cost_is_that_of_all_products_of_query_and_answer() -> None:
    given, queries = Assumptions(images=1000), Shape(20)
    vectors, images = Shape(1000, 100, 10, row_bytes=40, dim=16), Shape(1000, 100, 10, row_bytes=180)
    demand, made = FindTruth().cost({"embeddings": vectors, "queries": queries}, given)
    assert demand.products == 2 * 20 * 1100 * 16
    assert made.rows == given.pairs * 20
    turned, _ = FindTruth().cost({"embeddings": None, "hashes": images, "queries": queries}, given)
    assert turned.products == 8 * 2 * 20 * 1100 * 256
