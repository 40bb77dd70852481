"""Clusters of planted concepts: fitted once, assigned to every image, as a tree where asked."""

from pathlib import Path

import numpy as np
import pytest

from curate.errors import ConfigError
from curate.ops.vectors import VectorSpec, unpack
from curate.pipeline import Pipeline
from curate.stages.cluster import Assign, FitClusters, read_parents
from curate.stages.lists import FitLists
from curate.store import Store
from tests.stages.planted import PlantedCatalog, PlantedVectors, all_vectors, make, planted


def clustered(root: Path, fit: FitClusters):
    p, catalog, vectors = planted(root)
    centres = p.add("centroids", fit, embeddings=vectors, catalog=catalog)
    p.add("assignments", Assign(), embeddings=vectors, centroids=centres)
    make(p)
    return p


def test_every_image_gets_its_nearest_centroid(tmp_path: Path) -> None:
    p = clustered(tmp_path, FitClusters(levels=(12,)))
    rows = p.store.table("centroids").read_all()
    centroids, _ = unpack(rows["centroid"], VectorSpec.of(rows.schema))
    ids, x = all_vectors(p)
    assigned = p.store.table("assignments").read_all()
    assert assigned["image_id"].to_pylist() == ids.tolist()
    cosines = x @ centroids.T
    assert np.allclose(assigned["similarity"].to_numpy(), cosines.max(1), atol=1e-5)
    assert (assigned["cluster_id"].to_numpy() == cosines.argmax(1)).all()


def test_tree_has_a_parent_for_every_node_and_counts_only_fitted_images(tmp_path: Path) -> None:
    p = clustered(tmp_path, FitClusters(levels=(12, 3), num_resamplings=2))
    table = p.store.table("centroids")
    assert table.metrics["clusters"] == [12, 3]
    (parents,) = read_parents(table)
    assert set(parents.tolist()) == {0, 1, 2}
    rows = table.read_all().to_pandas()
    pool_vectors = 2 * 51
    assert rows.groupby("level")["num_images"].sum().tolist() == [pool_vectors, pool_vectors]


def test_more_clusters_than_images_names_the_largest_valid_number(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"levels=\[500\]: 102 images are left to cluster; .* at most 102"):
        clustered(tmp_path, FitClusters(levels=(500,)))


def test_auto_is_resolved_from_the_images_that_are_left(tmp_path: Path) -> None:
    p = clustered(tmp_path, FitClusters(levels="auto_flat"))
    manifest = p.store.table("centroids").manifest()
    assert manifest is not None
    assert manifest.config["levels"] == "auto_flat"
    assert manifest.resolved["levels"] == [102 // 20]


def test_five_levels_resample_the_fifth_as_the_fourth(tmp_path: Path) -> None:
    five, given = (5, 4, 3, 2, 1), (0, 10, 5, 3, 3)
    tables = []
    for name, fit in (("a", FitClusters(levels=five)), ("b", FitClusters(levels=five, points_per_centroid=given))):
        p = clustered(tmp_path / name, fit.model_copy(update={"num_resamplings": 1}))
        tables.append(p.store.table("centroids").read_all())
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (FitClusters(levels=(3, 12)), r"levels=\[3, 12\]: .* leaves first, each smaller"),
        (FitClusters(levels=(12, 3), points_per_centroid=(0,)), r"points_per_centroid=\[0\]: .* each of 2 levels"),
    ],
)
def test_levels_that_do_not_descend_are_an_error_before_any_compute(
    fit: FitClusters, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        clustered(tmp_path, fit)
    assert not list(tmp_path.rglob("part-*.parquet"))


def test_auto_levels_that_the_given_resampling_does_not_fit_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"points_per_centroid=\[0, 3\]: .* each of 1 levels"):
        clustered(tmp_path, FitClusters(levels="auto", points_per_centroid=(0, 3)))


def sampled(root: Path, fit: FitClusters | FitLists) -> tuple[int, int]:
    """Images fitted and centroids found, of two parts of 60 images that have 2 and 51 vectors left."""
    p = Pipeline(Store(root), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=("pool", "pool")))
    vectors = p.add("vectors", PlantedVectors(keep_first=(3, 60)), catalog=catalog)
    p.add("centroids", fit, embeddings=vectors, catalog=catalog)
    make(p)
    sizes = p.store.table("centroids").read_all(["num_images"])["num_images"].to_numpy()
    return int(sizes.sum()), len(sizes)


@pytest.mark.parametrize("levels", [20, 53])
def test_sample_follows_the_images_left_in_each_part(levels: int, tmp_path: Path) -> None:
    fitted, found = sampled(tmp_path, FitClusters(levels=(levels,), max_points_per_cluster=1, spherical=False))
    assert levels <= fitted <= levels + 2  # rounded up in both parts
    assert found >= levels - 1  # a duplicate may leave one empty


def test_sample_of_lists_follows_the_images_left_in_each_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.stages.lists.SAMPLE_PER_LIST", 2)
    fitted, found = sampled(tmp_path, FitLists(num_lists=20))
    assert 40 <= fitted <= 42
    assert found == 20


def test_more_lists_than_vectors_name_the_largest_valid_number(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"num_lists=55: 53 images are to be listed; set it from 1 to 53"):
        sampled(tmp_path, FitLists(num_lists=55))
