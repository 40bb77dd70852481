"""The join inside inverted lists, against brute force; what the report shows of it."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from curate.engine.cost import Assumptions, Shape
from curate.engine.image_ids import part_of, row_of
from curate.engine.show import Beside, Heading, Histogram, Numbers, Section, Text
from curate.engine.stage import Batches, Input, Map, each
from curate.errors import ConfigError
from curate.ops.images.hashes import dihedral
from curate.ops.vectors import normalize
from curate.stages.search.build_lists import BuildLists
from curate.stages.search.fit_lists import FitLists
from curate.stages.search.measure_recall import MeasureRecall, RecallFigures
from curate.stages.search.neighbors import FindNeighbors, bin_edges
from curate.tables import NEIGHBORS
from tests.stages.planted import make
from tests.stages.search.searches import (
    SEARCH,
    add_search,
    declare_measured,
    finished,
    found_among,
    found_pairs,
    given_thresholds,
    hashed,
    join,
    joined,
    ref,
    turned_copies,
)

POOL, CURATED, HELDOUT = {0, 1}, {2}, {3}


def brute_force(ids, x, keep):
    """The pairs for which keep(query part, image part, cosine) holds, no image with itself."""
    found = {}
    for i, row in zip(ids.tolist(), x @ x.T, strict=True):
        for j, cosine in zip(ids.tolist(), row.tolist(), strict=True):
            if i != j and keep(part_of(i), part_of(j), cosine):
                found[i, j] = cosine
    return found


def wanted(query: int, image: int, cosine: float) -> bool:
    return image in POOL | CURATED and cosine >= (0.7 if query in HELDOUT else 0.8)


@pytest.mark.parametrize(("num_lists", "num_probes"), [(1, "auto"), (6, 6)])
def test_probing_every_list_gives_the_pairs_of_brute_force(tmp_path: Path, num_lists: int, num_probes: int) -> None:
    found, ids, x = joined(tmp_path, num_lists=num_lists, num_probes=num_probes, search=SEARCH)
    expected = brute_force(ids, x, wanted)
    assert found.keys() == expected.keys()
    assert len(found) > 100
    assert np.allclose([found[k] for k in expected], list(expected.values()), atol=1e-5)


def test_few_probes_lose_little_and_invent_nothing(tmp_path: Path) -> None:
    found, ids, x = joined(tmp_path, num_lists=6, num_probes=2, search=SEARCH)
    expected = brute_force(ids, x, wanted)
    assert found.keys() <= expected.keys()
    assert len(found) >= 0.9 * len(expected)


def test_search_from_curated_images_finds_the_nearest_of_the_pool(tmp_path: Path) -> None:
    search = FindNeighbors(threshold=-1, heldout_threshold=-1, max_neighbors=5, queries=("curated",), answers=("pool",))
    roles = {"stored": ("pool",), "queries": ("curated",)}
    found, ids, x = joined(tmp_path, num_lists=3, num_probes=3, search=search, **roles)
    part = part_of(ids)
    pool, queries = np.isin(part, list(POOL)), part == 2
    for query, row in zip(ids[queries].tolist(), x[queries] @ x[pool].T, strict=True):
        assert {i for q, i in found if q == query} == set(ids[pool][np.argsort(-row)[:5]].tolist())


def test_null_vectors_are_never_listed(tmp_path: Path) -> None:
    found, *_ = joined(tmp_path, num_lists=2, num_probes=2, search=SEARCH)
    assert all(row_of(image) % 7 for pair in found for image in pair)


def test_model_without_thresholds_is_an_error_before_any_compute(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="planted: no calibrated threshold"):
        joined(tmp_path, num_lists=1, num_probes=1, search=FindNeighbors())
    assert not list(tmp_path.iterdir())


def at_cosine(cosine: float) -> tuple[float, float]:
    """A plane's unit vector at this cosine to (1, 0)."""
    return cosine, float(np.sqrt(1 - cosine**2))


def test_identical_vectors_do_not_crowd_out_other_neighbors(tmp_path: Path) -> None:
    pool = [at_cosine(0.9)] * 19 + [at_cosine(0.5)]
    heldout = [at_cosine(1.0)] * 20
    search = {"threshold": 0.95, "heldout_threshold": 0.45, "max_neighbors": 2}
    found = found_among(tmp_path, ("pool", "heldout"), [pool, heldout], **search)
    for query in range(1 << 32, (1 << 32) + 20):
        assert {image: similarity for (q, image), similarity in found.items() if q == query} == {0: 0.9, 19: 0.5}


def test_each_identical_vector_is_tied_to_the_first_of_its_role(tmp_path: Path) -> None:
    search = {"threshold": 0.95, "heldout_threshold": 0.95, "max_neighbors": 64}
    pool, curated = [at_cosine(0.9)] * 5, [at_cosine(0.9)] * 5
    found = found_among(tmp_path, ("pool", "curated"), [pool, curated], **search)
    first = {0: [1, 2, 3, 4], 1 << 32: [(1 << 32) + n for n in (1, 2, 3, 4)]}
    ties = {(other, one): 1.0 for one, others in first.items() for other in others}
    assert found == ties | {(0, 1 << 32): 1.0, (1 << 32, 0): 1.0}


def test_search_of_one_role_in_another_lists_identical_vectors_one_by_one(tmp_path: Path) -> None:
    roles = {"queries": ("curated",), "answers": ("pool",)}
    pool, curated = [at_cosine(0.9)] * 3, [at_cosine(0.8)] * 3
    search = {"threshold": -1, "heldout_threshold": -1, "max_neighbors": 3}
    found = found_among(tmp_path, ("pool", "curated"), [pool, curated], **search, **roles)
    assert found.keys() == {((1 << 32) + q, n) for q in range(3) for n in range(3)}


# -- images with two vectors: their own, and that of what a border surrounds ---------------------------------


def at_angle(degrees: float) -> tuple[float, float]:
    return float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))


LOOSE = {"threshold": 0.9, "heldout_threshold": 0.9, "max_neighbors": 64}


def cosine(degrees: float) -> float:
    return round(float(np.cos(np.radians(degrees))), 5)


def test_an_image_with_two_vectors_finds_and_is_found_by_either(tmp_path: Path) -> None:
    whole = [at_angle(0), at_angle(10), at_angle(80), at_angle(45)]
    within = [at_angle(90), None, None, None]
    found = found_among(tmp_path, ("pool",), [whole], within=[within], **LOOSE)
    near = {frozenset((0, 1)), frozenset((0, 2))}
    assert found == {tuple(pair): cosine(10) for one in near for pair in (sorted(one), sorted(one, reverse=True))}


def test_the_more_similar_vectors_of_two_images_count_and_none_is_paired_with_itself(tmp_path: Path) -> None:
    pool, heldout = [at_angle(0), at_angle(20)], [at_angle(40), at_angle(130)]
    within = [[at_angle(12), at_angle(15)], [at_angle(18), at_angle(131)]]
    found = found_among(tmp_path, ("pool", "heldout"), [pool, heldout], within=within, **LOOSE)
    asked = {(1 << 32, 0): cosine(6), (1 << 32, 1): cosine(2)}
    assert found == {(0, 1): cosine(3), (1, 0): cosine(3)} | asked


def test_identical_vectors_of_two_kinds_are_tied_and_the_other_vector_still_searches(tmp_path: Path) -> None:
    whole = [at_angle(0), at_angle(90), at_angle(85), at_angle(3), at_angle(0)]
    within = [None, at_angle(0), None, None, at_angle(0)]
    found = found_among(tmp_path, ("pool",), [whole], within=[within], **LOOSE)
    ties = {(1, 0): 1.0, (4, 0): 1.0}
    through_the_first = {(0, 3): cosine(3), (3, 0): cosine(3)}
    assert found == ties | through_the_first | {(1, 2): cosine(5), (2, 1): cosine(5)}


def test_second_vectors_take_no_place_of_other_images(tmp_path: Path) -> None:
    whole = [at_angle(0), at_angle(4), at_angle(9), at_angle(60)]
    within = [at_angle(1), at_angle(5), at_angle(11), None]
    found = found_among(tmp_path, ("pool",), [whole], within=[within], **LOOSE | {"max_neighbors": 1})
    assert found == {(0, 1): cosine(3), (1, 0): cosine(3), (2, 1): cosine(4)}


@pytest.mark.parametrize(("num_lists", "split"), [(1, 10**6), (4, 10**6), (2, 20)])
def test_pairs_of_images_with_two_vectors_are_those_of_brute_force(tmp_path: Path, num_lists: int, split: int) -> None:
    rng = np.random.default_rng(0)
    concepts = normalize(rng.standard_normal((6, 8)))
    whole, second = (normalize(concepts[rng.integers(0, 6, 90)] + 0.2 * rng.standard_normal((90, 8))) for _ in range(2))
    has = rng.random(90) < 0.4
    parts = [slice(0, 30), slice(30, 60), slice(60, 90)]
    given = [[tuple(row) for row in whole[part].tolist()] for part in parts]
    within = [
        [tuple(row) if h else None for row, h in zip(second[part].tolist(), has[part], strict=True)] for part in parts
    ]
    lists = {"fit": FitLists(num_lists=num_lists), "build": BuildLists(num_probes=num_lists, max_list_rows=split)}
    found = found_among(tmp_path, ("pool", "curated", "heldout"), given, within=within, **lists, **LOOSE)
    views = np.where(has[:, None, None], np.stack([whole, second], 1), whole[:, None])  # (90, 2, 8)
    best = np.einsum("avd,bwd->abvw", views, views).max(axis=(2, 3))
    ids = [part << 32 | row for part in range(3) for row in range(30)]
    expected = {
        (ids[a], ids[b]): round(float(best[a, b]), 5) for a, b in np.argwhere(best >= 0.9).tolist() if a != b and b < 60
    }
    assert found.keys() == expected.keys()
    assert len(found) > 200
    np.testing.assert_allclose([found[pair] for pair in expected], list(expected.values()), atol=2e-5)


@pytest.mark.parametrize("borders", [True, False])
def test_hashes_within_borders_find_and_are_found(tmp_path: Path, borders: bool) -> None:
    hashes = np.random.default_rng(0).integers(0, 256, (6, 32)).astype(np.uint8)
    inside = {2: hashes[0] ^ np.eye(32, dtype=np.uint8)[3], 4: dihedral(hashes[1:2])[0, 3]}
    p, catalog, images = hashed(tmp_path, hashes, num_parts=2, within=inside)
    centroids = p.add("centroids", FitLists(), hashes=images, catalog=catalog)
    build = BuildLists(borders=borders)
    search = FindNeighbors(threshold=0.9, heldout_threshold=0.9)
    add_search(p, search, build, hashes=images, centroids=centroids, catalog=catalog)
    make(p)
    found = {tuple(sorted(pair)): similarity for pair, similarity in found_pairs(p).items()}
    assert found == ({(0, 2): 1 - 2 / 256, (1, 1 << 32 | 1): 1.0} if borders else {})


def components(num_nodes: int, pairs: np.ndarray) -> list[int]:
    """Component of each node, by smallest member."""
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(num_nodes, num_nodes))
    _, label = connected_components(graph, directed=False)
    _, first = np.unique(label, return_index=True)
    return first[label].tolist()


@pytest.mark.parametrize("num_lists", [1, 4])
def test_components_of_turned_and_identical_hashes_are_those_of_brute_force(tmp_path: Path, num_lists: int) -> None:
    hashes = turned_copies(num_lists, num_pictures=6, num_images=120)
    p, catalog, images = hashed(tmp_path, hashes, num_parts=2)
    centroids = p.add("centroids", FitLists(num_lists=num_lists), hashes=images, catalog=catalog)
    search = FindNeighbors(threshold=0.9, heldout_threshold=0.9)
    add_search(p, search, BuildLists(num_probes=num_lists), hashes=images, centroids=centroids, catalog=catalog)
    make(p)
    found = np.array(list(found_pairs(p)))
    turned = np.unpackbits(dihedral(hashes), axis=2).astype(np.int64)  # (N, 8, 256)
    distance = np.stack([(turned != plain).sum(2).min(1) for plain in np.unpackbits(hashes, axis=1)])
    near = np.argwhere(1 - 2 * distance / 256 >= 0.9)
    assert components(120, part_of(found) * 60 + row_of(found)) == components(120, near)


def test_a_search_takes_a_gpu_where_either_of_its_halves_does() -> None:
    halves = [(device, lists) for device in ("cpu", "cuda:1") for lists in ("cpu", "cuda")]
    taken = [FindNeighbors(device=own, lists=BuildLists(device=lists)).resources() for own, lists in halves]
    assert taken == [{}, {"GPU": 1.0}, {"GPU": 1.0}, {"GPU": 1.0}]


# -- telling about it ----------------------------------------------------------------------------------------


def shown(sections: list[Section]) -> dict[str, tuple]:
    return {section.title: section.blocks for section in sections}


def test_thresholds_are_those_that_planted_copies_measured(tmp_path: Path) -> None:
    measured = given_thresholds(tmp_path, pool=0.71, heldout=0.61, floor=0.41)
    p = join(tmp_path, num_lists=2, num_probes=1, search=SEARCH)
    tables = {"embeddings": p.store.table("vectors"), "hashes": None, "centroids": p.store.table("centroids")}
    found = FindNeighbors(heldout_threshold=0.5).resolve(thresholds=measured, **tables)
    assert (found.threshold, found.heldout_threshold) == (0.41, 0.5)
    assert found.lists.num_probes == 2
    found = FindNeighbors().resolve(thresholds=measured, **tables)
    assert found.heldout_threshold == 0.41  # pairs are judged later


def test_report_counts_every_pair_under_the_role_that_asked(tmp_path: Path) -> None:
    p = join(tmp_path, num_lists=1, num_probes=1, search=SEARCH)
    run = finished(p)
    stage, table = run.only(FindNeighbors) or pytest.fail("not made")
    blocks = shown(list(stage.show(table, run)))
    assert list(blocks) == ["Similarity of the pairs"]  # no recall was measured
    _, beside = blocks["Similarity of the pairs"]
    assert isinstance(beside, Beside)
    ((heading, chart),) = beside.columns
    assert heading == Heading("Embedding: neighbors")
    assert isinstance(chart, Histogram)
    by_role = [sum(part_of(query) in parts for query, _ in found_pairs(p)) for parts in (POOL, CURATED, HELDOUT)]
    assert [int(series.values.sum()) for series in chart.series] == by_role
    assert [(marker.name, marker.at) for marker in chart.markers] == [
        ("threshold 0.8", 0.8),
        ("held-out threshold 0.7", 0.7),
    ]
    fact = ("Similarity thresholds", "neighbors: copies from 0.8 on, of held-out images from 0.7 on")
    assert list(stage.facts(table, run)) == [fact]


def test_report_tells_the_measured_recall_and_the_probes(tmp_path: Path) -> None:
    p = declare_measured(tmp_path, num_probes=2)
    make(p)
    run = finished(p)
    stage, table = run.only(MeasureRecall) or pytest.fail("not made")
    text, numbers = shown(list(stage.show(table, run)))["Recall of the searches"]
    assert isinstance(text, Text)
    assert isinstance(numbers, Numbers)
    figures = RecallFigures.of(table)
    recall = f"{figures.recall:.4f} +- {figures.recall_stderr:.4f}"
    assert numbers.rows == (("neighbors", 2, recall, figures.recall_pairs),)
    assert list(stage.facts(table, run)) == [("Recall of the searches", f"neighbors: {recall}, measured on a sample")]


class Stricter(Map):
    """Judges the pairs of a loose search by a threshold of its own."""

    inputs: ClassVar[dict[str, Input]] = {"neighbors": each(NEIGHBORS)}
    threshold: float

    def output_schema(self, **inputs: object) -> pa.Schema:
        return NEIGHBORS

    def run(self, part: int, *, neighbors: pa.Table) -> Batches:
        yield from neighbors.filter(pc.greater_equal(neighbors["similarity"], self.threshold)).to_batches()


def test_a_loose_search_leaves_the_thresholds_to_who_judges_its_pairs(tmp_path: Path) -> None:
    p = join(tmp_path, num_lists=1, num_probes=1, search=SEARCH)
    p.add("sure", Stricter(threshold=0.9), neighbors=ref(p, "neighbors"))
    make(p)
    run = finished(p)
    stage, table = run.only(FindNeighbors) or pytest.fail("not made")
    assert list(stage.show(table, run)) == []
    assert list(stage.facts(table, run)) == []


def test_a_search_of_the_nearest_has_no_threshold_to_show(tmp_path: Path) -> None:
    search = FindNeighbors(threshold=-1, heldout_threshold=-1, max_neighbors=5)
    run = finished(join(tmp_path, num_lists=1, num_probes=1, search=search))
    stage, table = run.only(FindNeighbors) or pytest.fail("not made")
    assert list(stage.facts(table, run)) == [("Similarity thresholds", "neighbors: the 5 nearest of each query")]
    (section,) = stage.show(table, run)
    beside = section.blocks[1]
    assert isinstance(beside, Beside)
    chart = beside.columns[0][1]
    assert isinstance(chart, Histogram)
    assert chart.markers == []


@pytest.mark.parametrize("low", [0.3, 0.79, 0.999, 1.0])
@pytest.mark.parametrize("anchor", [0.8, 0.95])
def test_bins_hold_all_similarities_and_the_threshold_is_a_bound(low: float, anchor: float) -> None:
    low = min(low, anchor)
    edges = bin_edges(low, kind="embedding", anchor=anchor)
    assert edges[0] <= low + 1e-9
    assert edges[-1] > 1
    assert np.abs(edges - anchor).min() < 1e-9


def test_bins_of_hashes_hold_one_distance_each() -> None:
    edges = bin_edges(0.7, kind="hash", anchor=0.7)
    distances = 1 - np.arange(0, 40, 2) * 2 / 256
    counts, _ = np.histogram(distances[distances >= 0.7], edges)
    assert counts.max() == 1
    assert counts.sum() == (distances >= 0.7).sum()


def test_cost_grows_with_the_pairs_within_lists() -> None:
    given = Assumptions(images=1000, curated=100, pairs=3)
    inputs = {"embeddings": Shape(1000, 100, row_bytes=64, dim=16), "centroids": Shape(10, lists=10)}
    build = BuildLists(num_probes=3)
    sent, lists = build.cost(inputs, given)
    demand, made = FindNeighbors(threshold=0.8, heldout_threshold=0.8, lists=build).cost(inputs, given)
    compared = 2 * 2.0 * 3300 * (1100 / 10) * 16  # twice the products of lists of equal length
    assert demand.products == sent.products + compared
    assert (lists.rows, demand.scratch, demand.read) == (3300, sent.scratch, sent.read)
    _, hashed = FindNeighbors(threshold=0.8, heldout_threshold=0.8, lists=build).cost(
        {"hashes": inputs["embeddings"], "centroids": inputs["centroids"]}, given
    )
    assert hashed.rows == given.hash_pairs * 1100
    assert (made.rows, demand.written) == (3 * 1100, made.num_bytes)  # the lists are not among what stays
    _, nearest = FindNeighbors(threshold=-1, queries=("curated",), max_neighbors=5).cost(inputs, given)
    assert nearest.rows == 5 * 100
    many = inputs | {"embeddings": Shape(1_000_000, 100, row_bytes=64, dim=16), "centroids": Shape(1000, lists=1000)}
    _, nearest = FindNeighbors(threshold=-1, queries=("curated",), max_neighbors=5, lists=build).cost(many, given)
    parts = nearest.parts
    drawn = np.random.default_rng(0).integers(0, round(parts), (20_000, 3))  # the parts that three probes fall into
    met = np.mean([len(set(row)) for row in drawn.tolist()])
    assert parts > 10
    assert nearest.rows == pytest.approx(5 * 100 * met, rel=0.01)
