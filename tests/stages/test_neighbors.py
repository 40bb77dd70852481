"""Inverted lists and the join inside them, against brute force."""

from pathlib import Path

import numpy as np
import pytest

from curate.errors import ConfigError
from curate.stages.lists import BuildLists, FitLists
from curate.stages.neighbors import FindNeighbors
from tests.stages.planted import all_vectors, make, planted

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
    with pytest.raises(ConfigError, match="planted: no calibrated self threshold"):
        joined(tmp_path, num_lists=1, num_probes=1, search=FindNeighbors())
    assert not list(tmp_path.iterdir())
