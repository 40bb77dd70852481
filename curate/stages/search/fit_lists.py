"""FitLists: the coarse centroids of inverted lists."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.demands import folded
from curate.engine.image_ids import Parts
from curate.engine.stage import Batches, Fold, Input, each, read_partials, whole
from curate.engine.table import Table
from curate.ops.clusters.coarse import GROUPED_FROM, CoarseLists, fit_lists, nearest_lists
from curate.ops.vectors import VectorSpec, normalize, unpack
from curate.stages.search.centroids import list_rows
from curate.stages.search.vectors import (
    HASHES,
    Role,
    count_vectors,
    either,
    read_vectors,
    sample_schema,
    sample_vectors,
    share_of,
    vector_spec,
    vectors_shape,
)
from curate.tables import CATALOG, ROLES, VECTORS, centroids_schema

ROWS_PER_LIST = 1000
"""Images for each list, by `auto`."""
EXACT_BELOW = 20_000
"""Images below which one list, hence an exact join, is faster than several."""
MAX_LISTS = 65_536
"""Lists at most by `auto`; beyond 65 million images they grow, which a GPU multiplies and a shuffle prefers."""
SAMPLE_PER_LIST = 64
"""Vectors sampled for each coarse centroid."""
MAX_SAMPLE = 1 << 21
"""Vectors that k-means of the lists sees at most."""
SEEDING_PASSES = 8
"""Cost of seeding k-means (greedy k-means++ or k-means||), in Lloyd iterations."""


class FitLists(Fold):
    """Coarse centroids, fitted on a sample of the vectors that the lists will store."""

    inputs: ClassVar[dict[str, Input]] = {
        "embeddings": each(VECTORS, optional=True),
        "hashes": each(HASHES, optional=True),
        "catalog": whole(CATALOG),
    }
    version: ClassVar[int] = 3
    pinned: ClassVar[bool] = True

    num_lists: int | Literal["auto"] = "auto"
    """Number of inverted lists; auto: one (an exact join) below 20,000 images, else one for every 1,000 images."""
    stored: tuple[Role, ...] = ("pool", "curated")
    """Roles whose images the lists store."""
    num_iterations: int = 10
    """Lloyd iterations of k-means."""
    seed: int | None = None
    """Seed of the sampling and of k-means; null: the run's seed."""
    sample_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the vectors that k-means sees, 0..1; null: 64 vectors for each list, or all where there are fewer."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        spec = vector_spec(inputs["embeddings"], inputs["hashes"])
        return centroids_schema(spec.dim, model=spec.model, weights=spec.weights)

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return sample_schema(vector_spec(inputs["embeddings"], inputs["hashes"]))

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        count = count_vectors(either(inputs), self.stored, Parts.of(inputs["catalog"]))
        if self.num_lists != "auto" and not 1 <= self.num_lists <= max(1, count):
            raise self.field_error(
                "num_lists",
                f"={self.num_lists}: {count} images are to be listed; set it from 1 to {max(1, count)}, or to auto",
            )
        resolved = self.model_copy(update=self.estimate(count))
        if self.sample_share is not None:
            return resolved
        assert isinstance(resolved.num_lists, int)
        share = share_of(min(MAX_SAMPLE, resolved.num_lists * SAMPLE_PER_LIST), count)
        return resolved.model_copy(update={"sample_share": share})

    def estimate(self, num_images: int) -> dict[str, Any]:
        if self.num_lists != "auto":
            return {}
        return {"num_lists": 1 if num_images < EXACT_BELOW else min(MAX_LISTS, num_images // ROWS_PER_LIST)}

    def partial(self, part: int, *, embeddings: pa.Table | None, hashes: pa.Table | None, catalog: Table) -> Batches:
        if ROLES[Parts.of(catalog).role[part]] in self.stored:
            listed = read_vectors(embeddings, hashes)
            yield sample_vectors(listed.vectors, listed.spec, self.sample_share, seed=[self.seed or 0, part])

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        assert partials is not None
        assert isinstance(self.num_lists, int)
        sample = read_partials(partials)
        spec = VectorSpec.of(sample.schema)
        x = normalize(unpack(sample["vector"], spec)[0])
        num_lists = max(1, min(self.num_lists, len(x)))  # a small share given by hand may leave fewer vectors
        if len(x) == 0:
            lists = CoarseLists.flat(np.zeros((1, spec.dim), np.float32))
        else:
            lists = fit_lists(x, num_lists, seed=self.seed or 0, num_iterations=self.num_iterations)
        sizes = np.bincount(nearest_lists(x, lists, 1)[:, 0], minlength=len(lists.centroids))
        yield from list_rows(lists, sizes, centroids_schema(spec.dim, model=spec.model, weights=spec.weights))

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """k-means of the sample, in one process.

        Few lists all meet all vectors; many have two levels: the vectors of a group meet the lists of the group, so
        that all meet the square root of them twice. Lists and sample grow with N, so that what an image takes grows
        with the number of lists, then with its root, until the sample is as large as it gets.
        """
        vectors = vectors_shape(inputs)
        count = int(vectors.of(self.stored))
        lists = self.model_copy(update=self.estimate(count)).num_lists
        assert isinstance(lists, int)
        sample = min(MAX_SAMPLE, lists * SAMPLE_PER_LIST, count)
        met = lists if lists < GROUPED_FROM else 2 * math.sqrt(lists)
        products = 2 * sample * met * vectors.dim * (self.num_iterations + SEEDING_PASSES)
        made = Shape(pool=lists, row_bytes=4 * vectors.dim, dim=vectors.dim, lists=lists)
        memory = 3 * sample * vectors.dim * 4
        demand = Demand(serial_products=products, written=made.num_bytes, memory=memory, settles=True)
        sampled = Shape(pool=sample, row_bytes=4 * vectors.dim, parts=vectors.parts, columns=1)
        return Demand.phases([demand, folded(sampled, made, made)]), made
