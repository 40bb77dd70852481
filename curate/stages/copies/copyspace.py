"""FitCopySpace and ProjectCopies: a general embedding turned into a copy-detecting one, by planted copies."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.stage import Batches, Fold, Input, Map, each, whole
from curate.engine.store import Table
from curate.ops.copies.copyspace import SHRINKAGE, CopySpace, fit_copy_space
from curate.ops.vectors import VectorSpec, normalize, pack, to_float32, unpack
from curate.stages.copies.plant import read_planted
from curate.stages.images.catalog import parts_of
from curate.stages.images.embed import count_embedded
from curate.stages.search.lists import count_vectors, sample_schema, sample_vectors, share_of
from curate.tables import CATALOG, PLANTED, ROLES, SPACE, VECTORS, embeddings_schema, space_schema

POOL = ROLES.index("pool")
SUFFIX = "+space"
"""Of the model id of projected vectors, so that no threshold of the model itself is taken for theirs."""


class FitCopySpace(Fold):
    """The discriminant of `ops/copies/copyspace.py`: edits from half of the planted images, axes from the pool."""

    inputs: ClassVar[dict[str, Input]] = {
        "embeddings": each(VECTORS),
        "planted": whole(PLANTED),
        "catalog": whole(CATALOG),
    }
    pinned: ClassVar[bool] = True

    dim: Annotated[int, Field(ge=2)] = 256
    """Dimensions that are kept; the last ones are zero where the pool has fewer than four times as many images."""
    shrinkage: Annotated[float, Field(gt=0, le=1)] = SHRINKAGE
    """Share of the identity in the covariance of edits."""
    num_images: Annotated[int, Field(ge=4)] = 50_000
    """Images of the pool whose directions are taken."""
    seed: int | None = None
    """Of their sample; None: the run's seed."""
    sample_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the pool that is sampled; None: as `num_images` says."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        spec = VectorSpec.of(inputs["planted"])
        return space_schema(spec.dim, model=spec.model, weights=spec.weights)

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return sample_schema(VectorSpec.of(inputs["embeddings"]))

    def num_parts(self, **inputs: Any) -> int:
        return 1

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        count = count_vectors(inputs["embeddings"], ["pool"], parts_of(inputs["catalog"]))
        return self.model_copy(update={"sample_share": self.sample_share or share_of(self.num_images, count)})

    def partial(self, part: int, *, embeddings: pa.Table, planted: Table, catalog: Table) -> Batches:
        if parts_of(catalog).role[part] == POOL:
            spec = VectorSpec.of(embeddings.schema)
            vectors, _ = unpack(embeddings["vector"], spec)
            yield sample_vectors(vectors, spec, self.sample_share, seed=[self.seed or 0, part, 7])

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        assert partials is not None
        planted, pieces = read_planted(tables["planted"], half=0), map(partials.read, sorted(partials.committed()))
        pool = np.concatenate([unpack(rows["vector"], VectorSpec.of(rows.schema))[0] for rows in pieces])
        x, group = planted.vectors, planted.image_ids
        found = fit_copy_space(x, group, normalize(pool), dim=self.dim, shrinkage=self.shrinkage)
        axes = np.zeros((self.dim, x.shape[1]), np.float32)
        axes[: found.axes.shape[1]] = found.axes.T
        columns = [pa.array(np.arange(-1, self.dim, dtype=np.int32)), pack(np.concatenate([found.mean[None], axes]))]
        schema = self.output_schema(planted=tables["planted"].schema())
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


class ProjectCopies(Map):
    """Embeddings in the copy space."""

    inputs: ClassVar[dict[str, Input]] = {"embeddings": each(VECTORS), "space": whole(SPACE)}

    dim: Annotated[int, Field(ge=2)] = 256
    """Of the space; recipes set it."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        spec = VectorSpec.of(inputs["embeddings"])
        return embeddings_schema(self.dim, dtype="float16", model=spec.model + SUFFIX, weights=spec.weights)

    def run(self, part: int, *, embeddings: pa.Table, space: Table) -> Batches:
        spec = VectorSpec.of(embeddings.schema)
        stored, rows = unpack(embeddings["vector"], spec)
        vectors = np.zeros((len(embeddings), self.dim), np.float16)
        valid = np.zeros(len(embeddings), bool)
        if len(rows):
            vectors[rows] = read_space(space).project(to_float32(stored, spec))
            valid[rows] = True
        columns = [embeddings["image_id"].combine_chunks(), pack(vectors, valid=valid)]
        yield pa.RecordBatch.from_arrays(columns, schema=self.output_schema(embeddings=embeddings.schema))

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        return count_embedded(table)


def read_space(space: Table) -> CopySpace:
    """The space of a table of `FitCopySpace`."""
    rows = space.read_all().combine_chunks()
    vectors, _ = unpack(rows["vector"], VectorSpec.of(rows.schema))
    return CopySpace(vectors[0], np.ascontiguousarray(vectors[1:].T))
