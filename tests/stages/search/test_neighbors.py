"""Inverted lists and the join inside them, against brute force."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from curate.engine.pipeline import Pipeline
from curate.engine.stage import Batches, Input, Map, each
from curate.engine.store import Store
from curate.errors import ConfigError
from curate.ops.images.hashes import dihedral
from curate.stages.search.lists import HASHES, BuildLists, FitLists
from curate.stages.search.neighbors import FindNeighbors
from curate.tables import CATALOG
from tests.stages.planted import GivenVectors, PlantedCatalog, all_vectors, make, planted

POOL, CURATED, HELDOUT = {0, 1}, {2}, {3}


def joined(root: Path, *, num_lists: int, num_probes: int | str, search: FindNeighbors, **roles: object):
    """(query, image) -> similarity that the stages find, and the ids and vectors they were given."""
    p, catalog, vectors = planted(root)
    homes = {"homes": roles["homes"]} if "homes" in roles else {}
    centres = p.add("centroids", FitLists(num_lists=num_lists, **homes), embeddings=vectors, catalog=catalog)
    build = BuildLists(num_probes=num_probes, **roles)
    lists = p.add("lists", build, embeddings=vectors, centroids=centres, catalog=catalog)
    p.add("neighbors", search, lists=lists, catalog=catalog)
    make(p)
    rows = p.store.table("neighbors").read_all().to_pylist()
    return {(r["query_id"], r["image_id"]): r["similarity"] for r in rows}, *all_vectors(p)


def brute_force(ids, x, keep):
    """The pairs for which keep(query part, image part, cosine) holds, no image with itself."""
    found = {}
    for i, row in zip(ids.tolist(), x @ x.T, strict=True):
        for j, cosine in zip(ids.tolist(), row.tolist(), strict=True):
            if i != j and keep(i >> 32, j >> 32, cosine):
                found[i, j] = cosine
    return found


SEARCH = FindNeighbors(threshold=0.8, heldout_threshold=0.7, max_neighbors=10_000)


def wanted(query: int, image: int, cosine: float) -> bool:
    return image in POOL | CURATED and cosine >= (0.7 if query in HELDOUT else 0.8)


@pytest.mark.parametrize(("num_lists", "num_probes"), [(1, "auto"), (6, 6)])
def test_probing_every_list_gives_the_pairs_of_brute_force(tmp_path: Path, num_lists: int, num_probes: int) -> None:
    found, ids, x = joined(tmp_path, num_lists=num_lists, num_probes=num_probes, search=SEARCH)
    expected = brute_force(ids, x, wanted)
    assert found.keys() == expected.keys()
    assert len(found) > 100
    assert np.allclose([found[k] for k in expected], list(expected.values()), atol=1e-5)


@pytest.mark.parametrize(("num_lists", "most"), [(1, 20), (3, 30)])
def test_large_lists_are_dealt_out_and_nothing_is_lost(tmp_path: Path, num_lists: int, most: int) -> None:
    given = {"num_lists": num_lists, "num_probes": num_lists, "search": SEARCH}
    found, ids, x = joined(tmp_path, **given, max_list_rows=most)
    assert found.keys() == brute_force(ids, x, wanted).keys()
    rows = Store(tmp_path).table("lists").read_all(["list_id", "home"])
    home, list_id = rows["home"].to_numpy(), rows["list_id"].to_numpy()
    assert list_id.max() >= 4 * num_lists - 1
    assert np.bincount(list_id[home]).max() < 2 * most
    assert np.bincount(list_id[~home]).max() < 3 * most  # nearest lists are not asked by equal shares
    whole, *_ = joined(tmp_path / "whole", **given)
    assert found == whole


def test_clusters_that_nobody_looks_into_are_never_dealt_out(tmp_path: Path) -> None:
    joined(tmp_path, num_lists=2, num_probes=1, search=SEARCH, homes=("pool",), probes=(), max_list_rows=5)
    assert set(Store(tmp_path).table("lists").read_all(["list_id"])["list_id"].to_pylist()) == {0, 1}


def test_few_probes_lose_little_and_invent_nothing(tmp_path: Path) -> None:
    found, ids, x = joined(tmp_path, num_lists=6, num_probes=2, search=SEARCH)
    expected = brute_force(ids, x, wanted)
    assert found.keys() <= expected.keys()
    assert len(found) >= 0.9 * len(expected)


def test_search_from_curated_images_finds_the_nearest_of_the_pool(tmp_path: Path) -> None:
    search = FindNeighbors(threshold=-1, heldout_threshold=-1, max_neighbors=5, queries=("curated",), answers=("pool",))
    roles = {"homes": ("pool",), "probes": ("curated",)}
    found, ids, x = joined(tmp_path, num_lists=3, num_probes=3, search=search, **roles)
    part = ids >> 32
    pool, queries = np.isin(part, list(POOL)), part == 2
    for query, row in zip(ids[queries].tolist(), x[queries] @ x[pool].T, strict=True):
        assert {i for q, i in found if q == query} == set(ids[pool][np.argsort(-row)[:5]].tolist())


def test_null_vectors_are_never_listed(tmp_path: Path) -> None:
    found, *_ = joined(tmp_path, num_lists=2, num_probes=2, search=SEARCH)
    assert all((image & 0xFFFFFFFF) % 7 for pair in found for image in pair)


def test_model_without_thresholds_is_an_error_before_any_compute(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="planted: no calibrated threshold"):
        joined(tmp_path, num_lists=1, num_probes=1, search=FindNeighbors())
    assert not list(tmp_path.iterdir())


def at_cosine(cosine: float) -> tuple[float, float]:
    """A plane's unit vector at this cosine to (1, 0)."""
    return cosine, float(np.sqrt(1 - cosine**2))


def found_among(root: Path, roles: tuple[str, ...], vectors: list[list[tuple[float, float]]], **search: object):
    """(query, image) -> similarity of images whose vectors are given, part by part."""
    p = Pipeline(Store(root), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=roles, rows=len(vectors[0])))
    given = p.add("vectors", GivenVectors(vectors=tuple(map(tuple, vectors))), catalog=catalog)
    centres = p.add("centroids", FitLists(), embeddings=given, catalog=catalog)
    lists = p.add("lists", BuildLists(), embeddings=given, centroids=centres, catalog=catalog)
    p.add("neighbors", FindNeighbors(**search), lists=lists, catalog=catalog)
    make(p)
    rows = p.store.table("neighbors").read_all().to_pylist()
    return {(r["query_id"], r["image_id"]): round(r["similarity"], 5) for r in rows}


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


class GivenHashes(Map):
    """A table like `images`, as far as its hashes go."""

    inputs: ClassVar[dict[str, Input]] = {"catalog": each(CATALOG)}
    hashes: tuple[tuple[str, ...], ...]

    def output_schema(self, **inputs: object) -> pa.Schema:
        return HASHES

    def run(self, part: int, *, catalog: pa.Table) -> Batches:
        hashes = [bytes.fromhex(text) for text in self.hashes[part]]
        columns = [catalog["image_id"].combine_chunks(), pa.array(hashes, HASHES.field("pdq").type)]
        yield pa.RecordBatch.from_arrays(columns, schema=HASHES)


def turned_copies(seed: int, *, num_pictures: int, num_images: int) -> np.ndarray:
    """(num_images, 32) uint8: hashes of mirrored and turned copies of few pictures, many of them equal."""
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (num_pictures, 32)).astype(np.uint8)
    copies = dihedral(pictures)[rng.integers(0, num_pictures, num_images), rng.integers(0, 8, num_images)]
    flips = np.zeros((num_images, 32), np.uint8)  # some copies differ by a bit, too
    flips[np.arange(num_images), rng.integers(0, 32, num_images)] = rng.integers(0, 2, num_images)
    return copies ^ flips


def components(num_nodes: int, pairs: np.ndarray) -> list[int]:
    """Component of each node, by smallest member."""
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(num_nodes, num_nodes))
    _, label = connected_components(graph, directed=False)
    _, first = np.unique(label, return_index=True)
    return first[label].tolist()


@pytest.mark.parametrize("num_lists", [1, 4])
def test_components_of_turned_and_identical_hashes_are_those_of_brute_force(tmp_path: Path, num_lists: int) -> None:
    hashes = turned_copies(num_lists, num_pictures=6, num_images=120)
    p = Pipeline(Store(tmp_path), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=("pool", "pool"), rows=60))
    hexed = tuple(tuple(row.tobytes().hex() for row in part) for part in (hashes[:60], hashes[60:]))
    images = p.add("images", GivenHashes(hashes=hexed), catalog=catalog)
    centres = p.add("centroids", FitLists(num_lists=num_lists), hashes=images, catalog=catalog)
    build = BuildLists(num_probes=num_lists)
    lists = p.add("lists", build, hashes=images, centroids=centres, catalog=catalog)
    p.add("neighbors", FindNeighbors(threshold=0.9, heldout_threshold=0.9), lists=lists, catalog=catalog)
    make(p)
    rows = p.store.table("neighbors").read_all()
    found = np.stack([rows[c].to_numpy() for c in ("query_id", "image_id")], axis=1)
    turned = np.unpackbits(dihedral(hashes), axis=2).astype(np.int64)  # (N, 8, 256)
    distance = np.stack([(turned != plain).sum(2).min(1) for plain in np.unpackbits(hashes, axis=1)])
    near = np.argwhere(1 - 2 * distance / 256 >= 0.9)
    assert components(120, (found >> 32) * 60 + (found & 0xFFFFFFFF)) == components(120, near)
