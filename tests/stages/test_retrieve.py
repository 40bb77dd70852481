"""Caps of cluster-based retrieval: what auto means, and values too large for the pool."""

from pathlib import Path

import numpy as np
import pytest

from curate.errors import ConfigError
from curate.stages.retrieve import ByCluster, BySample, Retrieve
from curate.store import Table
from curate.tables import ASSIGNMENTS, CATALOG
from tests.stages.planted import given_table

LEAVES = ([0] * 10 + [1] * 4 + [7] * 6, [0] * 3 + [2] * 2)
"""Clusters of the pool and of the curated images."""


def tables(root: Path) -> dict[str, Table]:
    catalog = given_table(root, "catalog", CATALOG, [])
    manifest = catalog.manifest()
    parts = [{"source": "web", "role": "pool", "rows": 30}, {"source": "pets", "role": "curated", "rows": 5}]
    metrics = {"parts": parts, "sources": ["web", "pets"]}
    catalog.write_manifest(type(manifest)(**{**manifest.__dict__, "metrics": metrics}))
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
    message = rf"retrieve.cluster.{name}=21: 20 pool images are left; set it to 20 or less, or to auto"
    with pytest.raises(ConfigError, match=message):
        Retrieve(route="both", cluster=ByCluster(**{name: 21})).resolve(**tables(tmp_path))


def test_caps_of_clusters_are_not_checked_where_only_samples_are_retrieved(tmp_path: Path) -> None:
    stage = Retrieve(route="sample", sample=BySample(k=3), cluster=ByCluster(per_cluster=21))
    assert stage.resolve(**tables(tmp_path)) == stage
