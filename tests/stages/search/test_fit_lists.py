"""Coarse centroids of inverted lists: how many, and on what they are fitted."""

from pathlib import Path

import numpy as np
import pytest

from curate.config import parse
from curate.engine.cost import Assumptions, Shape
from curate.engine.pipeline import Pipeline
from curate.engine.store import Store
from curate.errors import ConfigError
from curate.ops.clusters.coarse import GROUPED_FROM
from curate.stages.search.centroids import num_leaves, read_centroids, read_lists
from curate.stages.search.fit_lists import ROWS_PER_LIST, SAMPLE_PER_LIST, SEEDING_PASSES, FitLists
from tests.stages.planted import PlantedCatalog, PlantedVectors, make


def fitted(root: Path, fit: FitLists) -> Pipeline:
    """Lists of two parts of 60 images that have 2 and 51 vectors left."""
    p = Pipeline(Store(root), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=("pool", "pool")))
    vectors = p.add("vectors", PlantedVectors(keep_first=(3, 60)), catalog=catalog)
    p.add("centroids", fit, embeddings=vectors, catalog=catalog)
    make(p)
    return p


def test_sample_follows_the_images_left_in_each_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.stages.search.fit_lists.SAMPLE_PER_LIST", 2)
    table = fitted(tmp_path, FitLists(num_lists=20)).store.table("centroids")
    assert 40 <= sum(table.read_all(["num_images"])["num_images"].to_pylist()) <= 42  # rounded up in both parts
    assert num_leaves(table) == 20


def test_lists_are_read_as_they_were_fitted(tmp_path: Path) -> None:
    table = fitted(tmp_path, FitLists(num_lists=5)).store.table("centroids")
    lists = read_lists(table)
    assert len(lists.group) == 0
    assert np.allclose(lists.centroids, read_centroids(table), atol=1e-6)
    assert np.allclose(np.linalg.norm(lists.centroids, axis=1), 1, atol=1e-5)


def test_more_lists_than_vectors_name_the_largest_valid_number(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^num_lists=55: 53 images are to be listed; set it from 1 to 53"):
        fitted(tmp_path, FitLists(num_lists=55))


def test_an_error_names_the_key_that_was_typed(tmp_path: Path) -> None:
    class Search(FitLists):
        lists: FitLists = FitLists()

    mounted = parse(Search, {"lists": {"num_lists": 55}}, where="x.yaml").lists
    with pytest.raises(ConfigError, match=r"^lists\.num_lists=55: "):
        fitted(tmp_path, mounted)


@pytest.mark.parametrize(("images", "lists"), [(100, 1), (19_999, 1), (20_000, 20), (10**9, 65_536)])
def test_auto_is_one_list_for_a_thousand_images_within_bounds(images: int, lists: int) -> None:
    assert FitLists().estimate(images) == {"num_lists": lists}
    assert FitLists(num_lists=7).estimate(images) == {}
    _, made = FitLists().cost({"embeddings": Shape(images, dim=16)}, Assumptions(images=images))
    assert (made.rows, made.lists) == (lists, lists)


def test_cost_counts_every_list_that_a_vector_meets() -> None:
    def products(images: int) -> float:
        return FitLists().cost({"embeddings": Shape(images, dim=16)}, Assumptions(images=images))[0].serial_products

    few, most = products(500_000), products(2_000_000)
    assert few == 2 * 500 * SAMPLE_PER_LIST * 500 * 16 * (10 + SEEDING_PASSES)
    assert most == pytest.approx(16 * few)  # all lists meet all vectors
    assert products(GROUPED_FROM * ROWS_PER_LIST) < most / 10  # through groups of lists
