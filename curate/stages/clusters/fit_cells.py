"""FitCells: a few clusters of the pool's embeddings, each of which is then split into many."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.demands import folded
from curate.engine.image_ids import Parts
from curate.engine.stage import Batches, Fold, Input, each, whole
from curate.engine.table import Table
from curate.ops.clusters.hierarchy import TreeLevel, fit_leaves
from curate.ops.clusters.split import SAMPLE_PER_CELL
from curate.ops.vectors import VectorSpec, unpack
from curate.stages.clusters.fit_clusters import FitClusters
from curate.stages.clusters.rounds import level_rows, read_sample
from curate.stages.search.fit_lists import SEEDING_PASSES
from curate.stages.search.vectors import sample_schema, sample_vectors, share_of
from curate.tables import CATALOG, ROLES, VECTORS, clusters_schema


class FitCells(Fold):
    """Cells of the embedded images, fitted on a sample; no cells where the leaves are few enough to be fitted as one.

    Memory: the sample, at most `sample_bytes` of the clusters, and what `fit_kmeans` takes beside it.
    """

    inputs: ClassVar[dict[str, Input]] = {"embeddings": each(VECTORS), "catalog": whole(CATALOG)}
    pinned: ClassVar[bool] = True

    clusters: FitClusters
    """How the clusters are fitted that the cells are split into."""
    seed: int | None = None
    """Seed of the sampling and of k-means; null: the run's seed."""
    num_cells: Annotated[int, Field(ge=0)] | None = None
    """Number of cells, 0: none; null: one for 128 leaves, as many as a sample of `sample_bytes` can tell apart."""
    sample_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the vectors that is sampled, 0..1; null: 256 for each cell, as far as `sample_bytes` allows."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        spec = VectorSpec.of(inputs["embeddings"])
        return clusters_schema(spec.dim, model=spec.model, weights=spec.weights)

    def resources(self) -> dict[str, float]:
        return self.clusters.resources()

    def partial_schema(self, **inputs: Any) -> pa.Schema | None:
        return sample_schema(VectorSpec.of(inputs["embeddings"])) if self.num_cells else None

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        fit, count = self.clusters.with_levels(inputs["embeddings"], inputs["catalog"])
        dim = VectorSpec.of(inputs["embeddings"].schema()).dim
        assert not isinstance(fit.levels, str)
        cells = fit.num_cells(fit.levels[0], count, dim)
        return self.model_copy(update={"num_cells": cells, "sample_share": self._share(cells, count, dim)})

    def _share(self, cells: int, count: int, dim: int) -> float | None:
        if not cells:
            return None
        return share_of(min(cells * SAMPLE_PER_CELL, self.clusters.sample_bytes // (4 * dim)), count)

    def partial(self, part: int, *, embeddings: pa.Table, catalog: Table) -> Batches:
        if ROLES[Parts.of(catalog).role[part]] in self.clusters.roles:
            spec = VectorSpec.of(embeddings.schema)
            vectors, _ = unpack(embeddings["vector"], spec)
            yield sample_vectors(vectors, spec, self.sample_share, seed=[self.seed or 0, part])

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        if not self.num_cells or partials is None:
            return
        with partials.open(min(partials.committed())) as file:
            spec = VectorSpec.of(file.schema_arrow)
        x = read_sample(partials, spec)
        how = self.clusters.model_copy(update={"seed": self.seed}).how()
        cells = fit_leaves(x, min(self.num_cells, len(x)), r=0, how=how)
        top = TreeLevel(cells.centroids, np.full(len(cells.centroids), -1, np.int32), cells.num_images, cells.inertia)
        yield level_rows(top, 0, (), clusters_schema(spec.dim, model=spec.model, weights=spec.weights))

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        vectors: Shape = inputs["embeddings"]
        count = int(vectors.of(self.clusters.roles))
        levels = self.clusters.model_copy(update=self.clusters.estimate(count)).levels
        assert not isinstance(levels, str)
        cells = self.clusters.num_cells(levels[0], count, vectors.dim)
        made = Shape(pool=cells, row_bytes=4 * vectors.dim + 24, dim=vectors.dim, lists=cells)
        share = self._share(cells, count, vectors.dim)
        if share is None:
            looked_at = vectors.opened(2 / vectors.parts)  # for what the vectors are
            return Demand.phases([Demand(parts_read=1, note="not needed"), looked_at, folded(None, made, made)]), made
        sample = share * count
        products = 2 * sample * cells * vectors.dim * (self.clusters.num_iterations + SEEDING_PASSES)
        demand = Demand(
            serial_products=products,
            written=made.num_bytes,
            memory=sample * vectors.dim * 4 + (384 << 20),
            note=f"{cells} cells on {sample:.3g} images",
        )
        sampled = Shape(pool=sample, row_bytes=4 * vectors.dim, parts=vectors.parts, columns=1)
        return Demand.phases([demand, folded(sampled, made, made)]), made
