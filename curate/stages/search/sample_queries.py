"""SampleQueries: some images whose true neighbors will be known, to choose and to judge a search."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.demands import folded
from curate.engine.image_ids import Parts
from curate.engine.stage import Batches, Fold, Input, each, read_partials, whole
from curate.engine.table import Table
from curate.ops.vectors import pack
from curate.stages.search.vectors import (
    HASHES,
    Role,
    count_vectors,
    either,
    read_vectors,
    share_of,
    vector_spec,
    vectors_shape,
)
from curate.tables import CATALOG, ROLES, VECTORS, embeddings_schema


class SampleQueries(Fold):
    """A seeded sample of the images that search; pinned, so that appended data do not change it."""

    inputs: ClassVar[dict[str, Input]] = {
        "embeddings": each(VECTORS, optional=True),
        "hashes": each(HASHES, optional=True),
        "catalog": whole(CATALOG),
    }
    pinned: ClassVar[bool] = True

    num_queries: Annotated[int, Field(ge=0)] = 2000
    """Number of images at about which the sample aims."""
    queries: tuple[Role, ...] = ("pool",)
    """Roles whose images are sampled."""
    seed: int | None = None
    """Seed of the sampling; null: the run's seed."""
    sample_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the images that is sampled, 0..1; null: as `num_queries` says."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        spec = vector_spec(inputs["embeddings"], inputs["hashes"])
        return embeddings_schema(spec.dim, dtype=spec.dtype, model=spec.model, weights=spec.weights)

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return self.output_schema(**inputs)

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        if self.sample_share is not None:
            return self
        asking = count_vectors(either(inputs), self.queries, Parts.of(inputs["catalog"]))
        return self.model_copy(update={"sample_share": share_of(self.num_queries, asking)})

    def partial(self, part: int, *, embeddings: pa.Table | None, hashes: pa.Table | None, catalog: Table) -> Batches:
        assert self.sample_share is not None
        listed = read_vectors(embeddings, hashes)
        asks = ROLES[Parts.of(catalog).role[part]] in self.queries
        chosen = np.random.default_rng([self.seed or 0, part, 5]).random(len(listed.ids)) < self.sample_share * asks
        schema = self.output_schema(
            embeddings=None if embeddings is None else embeddings.schema,
            hashes=None if hashes is None else hashes.schema,
        )
        columns = [pa.array(listed.ids[chosen]), pack(listed.vectors[chosen])]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        assert partials is not None
        yield from read_partials(partials).to_batches()

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        vectors = vectors_shape(inputs)
        count = min(self.num_queries, vectors.of(self.queries))
        sampled = vectors._replace(pool=count, curated=0, heldout=0)
        made = sampled._replace(parts=1)
        return Demand.phases([Demand(written=made.num_bytes), folded(sampled, made, made)]), made
