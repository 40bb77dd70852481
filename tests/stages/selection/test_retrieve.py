"""Retrieval part by part against a loop over queries and clusters; its caps; values too large for the pool."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curate.engine.cost import PASS_ROWS, Assumptions, Shape
from curate.engine.executors import Executor, InProcess
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.show import Heading, Pages
from curate.engine.store import Store
from curate.engine.table import Table
from curate.errors import ConfigError
from curate.ops.selection.retrieval import cluster_draws
from curate.stages.search import rank_neighbors
from curate.stages.search.rank_neighbors import RankNeighbors
from curate.stages.selection.by_cluster import ByCluster
from curate.stages.selection.by_sample import BySample
from curate.stages.selection.group_by_image import GroupByImage
from curate.stages.selection.match_queries import MatchQueries
from curate.stages.selection.retrieve import NUM_QUERIES, Retrieve, RetrieveFigures
from curate.tables import ASSIGNMENTS, CATALOG, NEIGHBORS
from tests.stages.planted import PlantedCatalog, given_catalog, given_table, opened

LEAVES = ([0] * 10 + [1] * 4 + [7] * 6, [0] * 3 + [2] * 2)
"""Clusters of the pool and of the curated images."""


def tables(root: Path) -> dict[str, Table]:
    catalog = given_catalog(root, [("web", "pool", 30), ("pets", "curated", 5)])
    rows = [
        [{"image_id": part << 32 | row, "cluster_id": leaf, "similarity": 0.5} for row, leaf in enumerate(leaves)]
        for part, leaves in enumerate(LEAVES)
    ]
    return {"catalog": catalog, "assignments": given_table(root, "assignments", ASSIGNMENTS, rows)}


def test_auto_takes_half_a_mean_cluster_of_the_pool_and_caps_no_set(tmp_path: Path) -> None:
    resolved = Retrieve(route="cluster").resolve(**tables(tmp_path)).cluster
    sizes = np.unique(LEAVES[0], return_counts=True)[1]
    assert resolved.per_cluster == int(sizes.mean() // 2) == 3
    assert resolved.max_per_set == sizes.sum()


def test_caps_as_large_as_the_pool_are_taken_as_they_are(tmp_path: Path) -> None:
    given = ByCluster(per_cluster=20, max_per_set=20)
    assert Retrieve(route="cluster", cluster=given).resolve(**tables(tmp_path)).cluster == given


@pytest.mark.parametrize("name", ["per_cluster", "max_per_set"])
def test_cap_larger_than_the_pool_names_the_largest_valid_one(name: str, tmp_path: Path) -> None:
    message = rf"^{name}=21: 20 pool images are left; set it to 20 or less, or to auto"
    with pytest.raises(ConfigError, match=message):
        Retrieve(route="both", cluster=ByCluster(**{name: 21})).resolve(**tables(tmp_path))


def test_caps_of_clusters_are_not_checked_where_only_samples_are_retrieved(tmp_path: Path) -> None:
    stage = Retrieve(route="sample", sample=BySample(k=3), cluster=ByCluster(per_cluster=21))
    assert stage.resolve(**tables(tmp_path)) == stage


SOURCES = [("web", "pool"), ("pets", "curated"), ("web", "pool"), ("birds", "curated"), ("pets", "curated")]
ROWS, NUM_LEAVES, SEED = 120, 8, 5
Rows = list[dict[str, Any]]


def planted_retrieval(root: Path) -> tuple[Rows, Rows]:
    """Random leaves and neighbors of two curated sources in three parts; the pool lies in two."""
    rng = np.random.default_rng(7)
    ids = [[part << 32 | row for row in range(ROWS)] for part in range(len(SOURCES))]
    pool = [i for part, (_, role) in enumerate(SOURCES) if role == "pool" for i in ids[part]]
    leaves = [
        [{"image_id": i, "cluster_id": int(rng.integers(0, NUM_LEAVES)), "similarity": rng.random()} for i in part]
        for part in ids
    ]
    edges = [
        {"query_id": q, "image_id": int(i), "similarity": float(rng.integers(1, 50) / 50), "kind": "embedding"}
        for part, (_, role) in enumerate(SOURCES)
        if role == "curated"
        for q in ids[part]
        for i in rng.choice(pool, 12, replace=False)
    ]
    rng.shuffle(edges)  # type: ignore[arg-type]
    given_catalog(root, [(name, role, ROWS) for name, role in SOURCES])
    given_table(root, "assignments", ASSIGNMENTS, leaves)
    given_table(root, "neighbors", NEIGHBORS, [edges[:1000], edges[1000:1010], edges[1010:]])
    return [row for part in leaves for row in part], edges


def retrieved(root: Path, stage: Retrieve, *, depth: int, executor: Executor) -> Rows:
    """The rows of `retrieved`, made through the stages of the recipe."""
    p = Pipeline(Store(root), seed=SEED)
    catalog, pairs, leaves = Ref("catalog", CATALOG), Ref("neighbors", NEIGHBORS), Ref("assignments", ASSIGNMENTS)
    near = p.add("nearest/ranked", RankNeighbors(k=depth), neighbors=pairs, catalog=catalog)
    if stage.sample.refill:
        near = p.add("nearest/matched", MatchQueries(sample=stage.sample), nearest=near, catalog=catalog)
    near = p.add("nearest/by_image", GroupByImage(), nearest=near, catalog=catalog)
    p.add("retrieved", stage, catalog=catalog, nearest=near, assignments=leaves)
    p.run(executor, Flags(rebuild=frozenset({"all"})))
    table = p.store.table("retrieved")
    for part in table.parts():
        ids = table.read(part.number)["image_id"].to_numpy()
        assert (ids >> 32 == part.number).all()
        assert (np.diff(ids) >= 0).all()
    return table.read_all().to_pylist()


def is_pool(image_id: int) -> bool:
    return SOURCES[image_id >> 32][1] == "pool"


def by_loop(edges: Rows, sample: BySample) -> set[tuple[int, int]]:
    """Pairs of sample-based retrieval: each query's k first, or the strongest pairs of a set first where refilled."""
    found, taken = set(), set()
    served: dict[int, int] = {}
    for row in sorted(edges, key=lambda r: (-r["similarity"], *((r["query_id"],) * sample.refill), r["image_id"])):
        query, image, name = row["query_id"], row["image_id"], SOURCES[row["query_id"] >> 32][0]
        if served.get(query, 0) < sample.k_of(name) and not (sample.refill and (name, image) in taken):
            found.add((query, image))
            taken.add((name, image))
            served[query] = served.get(query, 0) + 1
    return found


@pytest.mark.parametrize(("refill", "at_once"), [(False, 1024), (True, 1024), (False, 7)])
def test_retrieval_by_sample_equals_a_loop_over_pairs(
    refill: bool, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_neighbors, "QUERIES_AT_ONCE", at_once)
    _, edges = planted_retrieval(tmp_path)
    sample = BySample(k=3, k_per_set={"birds": 1}, refill=refill)
    rows = retrieved(tmp_path, Retrieve(route="sample", sample=sample), depth=12, executor=InProcess(1))
    pairs = {(row["query_id"], row["image_id"]) for row in rows}
    assert len(pairs) == len(rows)
    assert pairs == by_loop(edges, sample)
    assert {row["set"] for row in rows} == {"pets", "birds"}


@pytest.mark.parametrize("order", ["random", "nearest"])
@pytest.mark.parametrize("max_bytes", [1, 1 << 30])
def test_retrieval_by_cluster_equals_counting_leaf_by_leaf(order: Any, max_bytes: int, tmp_path: Path) -> None:
    leaves, _ = planted_retrieval(tmp_path)
    cluster = ByCluster(min_queries=14, per_cluster=9, max_per_set=40, order=order)
    stage = Retrieve(route="cluster", cluster=cluster, max_bytes=max_bytes)
    rows = retrieved(tmp_path, stage, depth=3, executor=InProcess(1))
    for name in ("pets", "birds"):
        asking = [r for r in leaves if SOURCES[r["image_id"] >> 32][0] == name]
        mine = {r["image_id"]: r for r in rows if r["set"] == name}
        assert len(mine) == sum(r["set"] == name for r in rows)
        wanted = []
        for leaf in range(NUM_LEAVES):
            queries = [r for r in asking if r["cluster_id"] == leaf]
            inside = [r for r in leaves if is_pool(r["image_id"]) and r["cluster_id"] == leaf]
            drawn = [r for r in inside if r["image_id"] in mine]
            wanted.append((len(queries), len(inside), len(drawn)))
            central = max(queries, key=lambda r: (r["similarity"], -r["image_id"]))["image_id"]
            assert all(mine[r["image_id"]]["query_id"] == central for r in drawn)
            if order == "nearest" and drawn:
                ranked = sorted((r["similarity"] for r in inside), reverse=True)
                assert sorted((r["similarity"] for r in drawn), reverse=True) == ranked[: len(drawn)]
        queries, sizes, draws = (np.array(column) for column in zip(*wanted, strict=True))
        assert draws.tolist() == cluster_draws(queries, sizes, min_queries=14, per_cluster=9, max_per_set=40).tolist()
        assert 0 < draws.sum() <= 40


def test_unique_images_are_counted_beside_their_multiplicity(tmp_path: Path) -> None:
    planted_retrieval(tmp_path)
    rows = retrieved(tmp_path, Retrieve(route="both", sample=BySample(k=3)), depth=3, executor=InProcess(1))
    figures = RetrieveFigures.of(Store(tmp_path).table("retrieved"))
    assert figures.unique == len({row["image_id"] for row in rows})
    for key, found in figures.sets.items():
        mine = [row["image_id"] for row in rows if f"{row['set']}/{row['origin']}" == key]
        assert (found.retrieved, found.unique) == (len(mine), len(set(mine)))
    assert figures.sets["pets/sample"].retrieved == 3 * 2 * ROWS


def test_ranks_count_from_the_most_similar_and_parts_follow_the_curated_ones(tmp_path: Path) -> None:
    _, edges = planted_retrieval(tmp_path)
    retrieved(tmp_path, Retrieve(route="sample", sample=BySample(k=3)), depth=5, executor=InProcess(1))
    table = Store(tmp_path).table("nearest/ranked")
    assert len(table.parts()) == 3
    for part, catalog_part in enumerate([1, 3, 4]):
        rows = table.read(part).to_pylist()
        assert {row["query_id"] >> 32 for row in rows} == {catalog_part}
        assert [row["image_id"] for row in rows] == sorted(row["image_id"] for row in rows)
        for query in {row["query_id"] for row in rows}:
            own = sorted((-r["similarity"], r["image_id"]) for r in edges if r["query_id"] == query)[:5]
            ranked = sorted((r["rank"], r["image_id"]) for r in rows if r["query_id"] == query)
            assert ranked == [(rank, image) for rank, (_, image) in enumerate(own)]


def test_only_retrieval_by_cluster_goes_without_neighbors(tmp_path: Path) -> None:
    planted_retrieval(tmp_path)
    refs = {"catalog": Ref("catalog", CATALOG), "assignments": Ref("assignments", ASSIGNMENTS)}
    p = Pipeline(Store(tmp_path), seed=SEED)
    with pytest.raises(ConfigError, match=r"route=auto: needs the neighbors of each query"):
        p.add("retrieved", Retrieve(), **refs)
    p.add("retrieved", Retrieve(route="cluster"), **refs)
    p.run(InProcess(1), Flags())
    alone = p.store.table("retrieved").read_all()
    assert alone.to_pylist() == retrieved(tmp_path, Retrieve(route="cluster"), depth=3, executor=InProcess(1))


def test_report_shows_the_counts_of_each_set_and_some_queries_of_each_route(tmp_path: Path) -> None:
    _, edges = planted_retrieval(tmp_path)
    stage = Retrieve(route="both", sample=BySample(k=9), cluster=ByCluster(per_cluster=12))
    rows = retrieved(tmp_path, stage, depth=9, executor=InProcess(1))
    run = opened(tmp_path, {"catalog": PlantedCatalog(), "retrieved": stage})
    table = Store(tmp_path).table("retrieved")
    (section,) = stage.show(table, run)
    numbers, *blocks = section.blocks
    assert [row[0] for row in numbers.rows] == ["birds/cluster", "birds/sample", "pets/cluster", "pets/sample"]
    assert [row[1] for row in numbers.rows] == [
        sum(f"{row['set']}/{row['origin']}" == name for row in rows) for name, *_ in numbers.rows
    ]
    assert [block.text for block in blocks if isinstance(block, Heading)] == ["By sample", "By cluster"]
    pages = [block for block in blocks if isinstance(block, Pages)]
    assert [len(one.groups) for one in pages] == [
        min(NUM_QUERIES, len({row["query_id"] for row in rows if row["origin"] == origin}))
        for origin in ("sample", "cluster")
    ]
    galleries = [gallery for one in pages for gallery in one.groups]
    for gallery in galleries[:NUM_QUERIES]:
        query, *found = gallery.pictures
        own = sorted((-r["similarity"], r["image_id"]) for r in edges if r["query_id"] == query.image_id)[:9]
        assert (query.mark, [picture.image_id for picture in found]) == ("query", [i for _, i in own])
        assert gallery.more == 0


def test_queries_and_images_are_told_of_each_other(tmp_path: Path) -> None:
    planted_retrieval(tmp_path)
    stage = Retrieve(route="sample", sample=BySample(k=2))
    rows = retrieved(tmp_path, stage, depth=2, executor=InProcess(1))
    run, table = opened(tmp_path, {"catalog": PlantedCatalog()}), Store(tmp_path).table("retrieved")
    row = rows[0]
    told = list(stage.explain(run.place(row["query_id"]), table, run))
    assert told[0] == "asked for 2 pool images by sample"
    assert f"  {run.name_image(row['image_id'])}" in told
    told = list(stage.explain(run.place(row["image_id"]), table, run))
    name = run.name_image(row["query_id"])
    assert f"by sample, set {row['set']}: {name}, {row['similarity']:.4f} to it" in told


def test_cost_of_retrieval_is_that_of_its_passes_over_the_assignments() -> None:
    given = Assumptions(images=1000, curated=100)
    leaves, near = Shape(pool=700, row_bytes=16, lists=10), Shape(pool=400)
    demand, made = Retrieve().cost({"assignments": leaves, "nearest": near}, given)
    assert demand.rows == 700 + 400
    assert demand.serial_rows == pytest.approx(3 * PASS_ROWS * 700)
    by_sample, _ = Retrieve(route="sample").cost({"assignments": leaves, "nearest": near}, given)
    assert (by_sample.serial_rows, by_sample.serial_read) == (0, 0)
    assert made.rows == 700  # no more than there are
    assert Retrieve().cost({"assignments": leaves, "nearest": None}, given)[1].rows == 200
    demand, made = MatchQueries(sample=BySample(k=3)).cost({"nearest": near}, given)
    assert (demand.memory, made.rows) == (120 * 400, 300)
