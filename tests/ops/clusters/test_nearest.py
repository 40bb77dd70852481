"""Nearest centroids: equal to brute force, whatever the shape of the blocks."""

import numpy as np
import pytest

from curate.ops.clusters import nearest
from curate.ops.clusters.nearest import find_nearest


@pytest.mark.parametrize("shape", [(7, 3), (1, 1), (4096, 8192)])
@pytest.mark.parametrize("spherical", [False, True])
def test_blocks_give_what_brute_force_gives(spherical, shape, monkeypatch):
    monkeypatch.setattr(nearest, "BLOCK_ROWS", shape[0])
    monkeypatch.setattr(nearest, "BLOCK_CENTROIDS", shape[1])
    rng = np.random.default_rng(0)
    x, centroids = rng.normal(size=(50, 6)).astype(np.float32), rng.normal(size=(11, 6)).astype(np.float32)
    product, distance = x @ centroids.T, ((x[:, None] - centroids[None]) ** 2).sum(-1)
    cluster_id, score = find_nearest(x, centroids, spherical=spherical)
    assert cluster_id.tolist() == (product.argmax(1) if spherical else distance.argmin(1)).tolist()
    assert score == pytest.approx(product.max(1) if spherical else distance.min(1), abs=1e-5)
    assert (cluster_id.dtype, score.dtype) == (np.int32, np.float32)


def test_of_equal_centroids_the_first_is_taken(monkeypatch):
    monkeypatch.setattr(nearest, "BLOCK_CENTROIDS", 2)
    x = np.eye(3, dtype=np.float32)
    for spherical in (False, True):
        cluster_id, _ = find_nearest(x, np.tile(x, (4, 1)), spherical=spherical)
        assert cluster_id.tolist() == [0, 1, 2]


def test_no_vectors_have_no_nearest():
    assert [part.shape for part in find_nearest(np.empty((0, 3), np.float32), np.eye(3, dtype=np.float32))] == [
        (0,)
    ] * 2
