"""FitCopySpace: directions in which the copies of a picture lie together, fitted to planted copies."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.image_ids import Parts
from curate.engine.stage import Batches, Fold, Input, each, read_partials, whole
from curate.engine.table import Table
from curate.ops.copies.copyspace import SHRINKAGE, fit_copy_space
from curate.ops.vectors import VectorSpec, normalize, pack, unpack
from curate.stages.copies.planted import read_planted
from curate.stages.search.vectors import count_vectors, sample_schema, sample_vectors, share_of
from curate.tables import CATALOG, PLANTED, POOL, VECTORS, space_schema

SPECTRUM = 20
"""Cost of the eigenvalues of a matrix, in products of it with itself."""


class FitCopySpace(Fold):
    """Fits the discriminant of `ops/copies/copyspace.py`: edits from half of the planted images, axes from the pool."""

    inputs: ClassVar[dict[str, Input]] = {
        "embeddings": each(VECTORS),
        "planted": whole(PLANTED),
        "catalog": whole(CATALOG),
    }
    pinned: ClassVar[bool] = True

    dim: Annotated[int, Field(ge=2)] = 256
    """Dimensions that are kept; the last ones are zero where the pool has fewer than four times as many images."""
    shrinkage: Annotated[float, Field(gt=0, le=1)] = SHRINKAGE
    """Share of the identity in the covariance of edits, 0..1."""
    num_images: Annotated[int, Field(ge=4)] = 50_000
    """Images of the pool whose vectors are sampled to find the directions, about; all where there are fewer."""
    seed: int | None = None
    """Seed of that sampling; null: the run's seed."""
    sample_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the pool's images that is sampled, 0..1; null: as `num_images` says."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        spec = VectorSpec.of(inputs["planted"])
        return space_schema(spec.dim, model=spec.model, weights=spec.weights)

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return sample_schema(VectorSpec.of(inputs["embeddings"]))

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        count = count_vectors(inputs["embeddings"], ["pool"], Parts.of(inputs["catalog"]))
        return self.model_copy(update={"sample_share": self.sample_share or share_of(self.num_images, count)})

    def partial(self, part: int, *, embeddings: pa.Table, planted: Table, catalog: Table) -> Batches:
        """A sample of the vectors of one part of the pool."""
        if Parts.of(catalog).role[part] == POOL:
            spec = VectorSpec.of(embeddings.schema)
            vectors, _ = unpack(embeddings["vector"], spec)
            yield sample_vectors(vectors, spec, self.sample_share, seed=[self.seed or 0, part, 7])

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        """The space, as rows: the mean, then the axes."""
        assert partials is not None
        planted, sampled = read_planted(tables["planted"], half=0), read_partials(partials)
        pool = normalize(unpack(sampled["vector"], VectorSpec.of(sampled.schema))[0])
        found = fit_copy_space(planted.vectors, planted.image_ids, pool, dim=self.dim, shrinkage=self.shrinkage)
        axes = np.zeros((self.dim, planted.vectors.shape[1]), np.float32)
        axes[: found.axes.shape[1]] = found.axes.T
        columns = [pa.array(np.arange(-1, self.dim, dtype=np.int32)), pack(np.concatenate([found.mean[None], axes]))]
        yield pa.RecordBatch.from_arrays(columns, schema=self.output_schema(planted=tables["planted"].schema()))

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        vectors, planted = inputs["embeddings"], inputs["planted"]
        sample, dim = min(self.num_images, vectors.pool), vectors.dim
        made = Shape(pool=self.dim, row_bytes=4 * dim, dim=dim)
        demand = Demand(
            serial_products=2 * dim * dim * (2 * sample + planted.rows + SPECTRUM * dim),
            written=made.num_bytes,
            memory=3 * sample * dim * 8,
        )
        return demand, made
