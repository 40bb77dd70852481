"""The clusters of a pool, however many: few are fitted at once, many by splitting cells."""

from curate.engine.pipeline import Pipeline, Ref
from curate.stages.clusters.fit_cells import FitCells
from curate.stages.clusters.fit_clusters import FitClusters
from curate.stages.clusters.fit_leaves import FitLeaves


def fit_clusters(p: Pipeline, fit: FitClusters, *, embeddings: Ref, catalog: Ref) -> Ref:
    """Cells and their leaves, which are empty tables where clusters are few; then the clusters of all levels."""
    given, of_leaves = {"embeddings": embeddings, "catalog": catalog}, fit.of_leaves()
    cells = p.add("internal/centroids/cells", FitCells(clusters=of_leaves, seed=fit.seed), **given)
    leaves = p.add("internal/centroids/leaves", FitLeaves(clusters=of_leaves, seed=fit.seed), cells=cells, **given)
    return p.add("internal/centroids/clusters", fit, leaves=leaves, **given)
