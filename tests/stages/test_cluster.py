"""Clusters of planted concepts: fitted once, assigned to every image, as a tree where asked."""

from pathlib import Path

import numpy as np
import pytest

from curate.errors import ConfigError
from curate.ops.vectors import VectorSpec, unpack
from curate.stages.cluster import Assign, FitClusters, read_parents
from tests.stages.planted import all_vectors, make, planted


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
