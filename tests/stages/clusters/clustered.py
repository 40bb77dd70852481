"""Clusters of planted vectors, made."""

from pathlib import Path

import numpy as np

from curate.engine.image_ids import part_of
from curate.engine.pipeline import Pipeline
from curate.stages.clusters.assign import Assign
from curate.stages.clusters.fit_clusters import FitClusters
from tests.stages.planted import all_vectors, make, planted


def clustered(root: Path, fit: FitClusters, assign: Assign | None = None) -> Pipeline:
    """Tables `centroids` and `assignments` over two parts of the pool, one curated and one held out."""
    p, catalog, vectors = planted(root)
    centroids = p.add("centroids", fit, embeddings=vectors, catalog=catalog)
    p.add("assignments", assign or Assign(), embeddings=vectors, centroids=centroids)
    make(p)
    return p


def pool_vectors(p: Pipeline) -> np.ndarray:
    """(N, D) vectors of the two pool parts, which come first."""
    ids, x = all_vectors(p)
    return x[part_of(ids) < 2]
