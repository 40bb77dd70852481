"""FitLeaves: cells split into the leaves of the clusters, a bounded number of images at a time.

Images are shuffled by the nearest cell, a sample of them where there are many, and each task runs k-means within its
cells. So millions of leaves are fitted by as many tasks as the pool is large, each of bounded memory
(`ops/clusters/split.py`). Which images are sampled is decided by their ids, so that tasks need not know of each other.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.demands import Sent, shuffled
from curate.engine.image_ids import Parts
from curate.engine.shuffle import Scattered, partition
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.table import Table
from curate.ops.clusters.guide import NearestSearch, products_guided
from curate.ops.clusters.hierarchy import TreeLevel, fit_leaves
from curate.ops.clusters.split import share_leaves
from curate.ops.random_keys import random_keys
from curate.ops.vectors import VectorSpec, normalize, pack, unpack
from curate.stages.clusters.fit_clusters import FitClusters
from curate.stages.clusters.rounds import level_rows
from curate.stages.search.centroids import read_centroids
from curate.stages.search.fit_lists import SEEDING_PASSES
from curate.tables import CATALOG, CENTROIDS, ROLES, VECTORS, clusters_schema, vector_type


class Splitting(NamedTuple):
    """What becomes of each cell."""

    leaves: np.ndarray
    """(C,) int64, leaves into which it is split, by its share of the inertia"""
    share: np.ndarray
    """(C,) float64, 0..1, of its images that are taken"""
    bucket: np.ndarray
    """(C,) int64, ascending: the part of the output in which it is split"""


class FitLeaves(Shuffle):
    """The leaves of the clusters where they are many, fitted cell by cell; no rows where there are no cells.

    Memory: a task holds the images of its cells, at most half of `sample_bytes` of the clusters in float32, as they are
    stored and one cell of them in float32.
    """

    inputs: ClassVar[dict[str, Input]] = {
        "embeddings": each(VECTORS),
        "cells": whole(CENTROIDS),
        "catalog": whole(CATALOG),
    }
    pinned: ClassVar[bool] = True

    clusters: FitClusters
    """How the clusters are fitted."""
    seed: int | None = None
    """Seed of the sampling and of k-means; null: the run's seed."""
    num_leaves: Annotated[int, Field(ge=1)] | None = None
    """Leaves in all; null: as the clusters say."""
    num_images: Annotated[int, Field(ge=1)] | None = None
    """Images that the leaves are to be fitted for; null: those that are there."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        spec = VectorSpec.of(inputs["embeddings"])
        return clusters_schema(spec.dim, model=spec.model, weights=spec.weights)

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        spec = VectorSpec.of(inputs["embeddings"])
        fields = [pa.field("cell", pa.int32(), nullable=False), pa.field("vector", vector_type(spec.dim, spec.dtype))]
        return pa.schema(fields, metadata=inputs["embeddings"].metadata)

    def resources(self) -> dict[str, float]:
        return self.clusters.resources()

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        fit, count = self.clusters.with_levels(inputs["embeddings"], inputs["catalog"])
        assert not isinstance(fit.levels, str)
        return self.model_copy(update={"num_leaves": fit.levels[0], "num_images": count})

    def num_parts(self, **inputs: Any) -> int:
        cells = inputs["cells"]
        return int(self._splitting(cells).bucket[-1]) + 1 if cells.num_rows() else 1

    def num_scatter(self, **inputs: Any) -> int:
        return super().num_scatter(**inputs) if inputs["cells"].num_rows() else 1

    def _splitting(self, cells: Table) -> Splitting:
        assert self.num_leaves is not None
        assert self.num_images is not None
        rows = cells.read_all(["num_images", "inertia"])
        sampled, inertia = rows["num_images"].to_numpy(), rows["inertia"].to_numpy()
        expected = sampled / sampled.sum() * self.num_images
        most = min(1.0, self.num_leaves * self.clusters.max_points_per_cluster / self.num_images)
        wanted = self.clusters.sample_share or most
        room = self.clusters.sample_bytes // (8 * VectorSpec.of(cells.schema()).dim)
        share = np.minimum(wanted, room / np.maximum(expected, 1))
        leaves = share_leaves(np.ceil(expected).astype(np.int64), self.num_leaves, weights=inertia)
        taken = np.cumsum(share * expected)
        return Splitting(leaves, share, np.unique((taken - share * expected) // room, return_inverse=True)[1])

    def scatter(self, part: int, *, embeddings: pa.Table, cells: Table, catalog: Table) -> Iterator[Scattered]:
        if not cells.num_rows() or ROLES[Parts.of(catalog).role[part]] not in self.clusters.roles:
            return
        splitting, spec = self._splitting(cells), VectorSpec.of(embeddings.schema)
        vectors, rows = unpack(embeddings["vector"], spec)
        keys = random_keys(embeddings["image_id"].to_numpy()[rows], seed=self.seed or 0, purpose="leaves")
        draw = keys / 2.0**64  # (N,) 0..1
        drawn = np.flatnonzero(draw < splitting.share.max())  # the others need no cell
        search = NearestSearch.over(read_centroids(cells), spherical=self.clusters.spherical)
        cell, _ = search.nearest(normalize(vectors[drawn]))
        taken = draw[drawn] < splitting.share[cell]
        drawn, cell = drawn[taken], cell[taken]
        columns = [pa.array(cell.astype(np.int32)), pack(vectors[drawn])]
        yield from partition(
            pa.Table.from_arrays(columns, schema=self.piece_schema(embeddings=embeddings.schema)),
            splitting.bucket[cell],
        )

    def run(self, part: int, *, pieces: pa.Table, cells: Table, catalog: Table) -> Batches:
        if not cells.num_rows():
            return
        splitting, spec = self._splitting(cells), VectorSpec.of(pieces.schema)
        first = np.concatenate([[0], np.cumsum(splitting.leaves)])
        schema = clusters_schema(spec.dim, model=spec.model, weights=spec.weights)
        of, (vectors, _) = pieces["cell"].to_numpy(), unpack(pieces["vector"], spec)
        order = np.argsort(of, kind="stable")
        ends = np.cumsum(np.bincount(of, minlength=len(splitting.leaves)))
        for cell in np.flatnonzero(splitting.bucket == part).tolist():
            rows = order[(ends[cell - 1] if cell else 0) : ends[cell]]
            wanted = min(int(splitting.leaves[cell]), len(rows))
            if wanted:
                yield self._split(normalize(vectors[rows]), wanted, cell, int(first[cell]), schema)

    def _split(self, x: np.ndarray, wanted: int, cell: int, first: int, schema: pa.Schema) -> pa.RecordBatch:
        """The leaves of one cell as rows, numbered from `first` on."""
        seed = int(np.random.SeedSequence([self.seed or 0, cell]).generate_state(1)[0])
        how = self.clusters.model_copy(update={"seed": seed}).how()
        r = (*self.clusters.points_per_centroid, 0)[0]
        nodes = fit_leaves(x, wanted, r=r, how=how)
        count = len(nodes.centroids)
        level = TreeLevel(nodes.centroids, np.full(count, cell, np.int32), nodes.num_images, nodes.inertia)
        rows = level_rows(level, 0, (), schema)
        numbers = pa.array(np.arange(first, first + count, dtype=np.int32))
        return rows.set_column(rows.schema.get_field_index("cluster_id"), schema.field("cluster_id"), numbers)

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        vectors, cells = inputs["embeddings"], inputs["cells"].lists
        fit = self.clusters
        if not cells:
            looked_at = vectors.opened(2 / vectors.parts)  # for what the vectors are
            return Demand.phases([Demand(parts_read=1, note="not needed"), looked_at]), Shape(dim=vectors.dim)
        count = vectors.of(fit.roles)
        levels = fit.model_copy(update=fit.estimate(int(count))).levels
        assert not isinstance(levels, str)
        # A cell gives at most what a task holds, by `room` of `_splitting`, if cells are about as large as each other.
        taken = min(count, levels[0] * fit.max_points_per_cluster, cells * (fit.sample_bytes // (8 * vectors.dim)))
        parts = max(1, math.ceil(taken / (fit.sample_bytes // (8 * vectors.dim))))
        made = Shape(pool=levels[0], row_bytes=4 * vectors.dim + 44, dim=vectors.dim, lists=levels[0], parts=parts)
        within = taken * levels[0] / cells * (fit.num_iterations + SEEDING_PASSES)
        demand = Demand(
            products=2 * vectors.dim * (taken * products_guided(cells) + within),
            rows=taken,
            written=made.num_bytes,
            memory=fit.sample_bytes + (384 << 20),
            note=f"{levels[0]} leaves on {taken:.3g} images",
        )
        sent = Sent(taken, vectors.parts, made.parts, row_bytes=vectors.row_bytes + 3, raw=True)
        read = inputs["cells"].scanned(2 * vectors.parts + made.parts)
        return Demand.phases([demand, shuffled(sent, given), read]), made
