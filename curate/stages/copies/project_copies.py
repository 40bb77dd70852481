"""ProjectCopies: a general embedding in the space in which copies lie together."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.figures import Figures
from curate.engine.finished import Finished
from curate.engine.stage import Batches, Input, Map, each, whole
from curate.engine.table import Table
from curate.engine.tallies import Tally
from curate.ops.vectors import VectorSpec, pack, to_float32, unpack
from curate.stages.copies.copy_space import read_space
from curate.stages.images.embed import EmbedFigures
from curate.stages.images.image_tally import VectorTally
from curate.tables import SPACE, VECTORS, embeddings_schema

SUFFIX = "+space"
"""End of the model id of projected vectors, so that no threshold of the model itself is taken for theirs."""


class ProjectCopies(Map):
    """Projects embeddings into the copy space."""

    inputs: ClassVar[dict[str, Input]] = {"embeddings": each(VECTORS), "space": whole(SPACE)}
    tells_by_figures: ClassVar[bool] = True

    dim: Annotated[int, Field(ge=2)] = 256
    """Dimensions of the space; recipes set it."""

    tally: ClassVar[type[Tally] | None] = VectorTally

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

    def summarize(self, table: Table, **inputs: Any) -> EmbedFigures:
        return EmbedFigures.count(table)

    # -- telling about it ------------------------------------------------------------------------------------

    def rows_in(self, figures: Figures, **inputs: Any) -> int | None:
        """Vectors that were projected."""
        assert isinstance(figures, EmbedFigures)
        return figures.embedded

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        vectors: Shape = inputs["embeddings"]
        made = vectors._replace(row_bytes=8 + 2 * self.dim, dim=self.dim)
        products = 2 * vectors.rows * vectors.dim * self.dim
        return Demand(products=products, written=made.num_bytes), made

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        origin = [other.name for key in self.inputs for other in run.inputs_of(table, key)]
        yield "Models", f"{table.name}: {type(self).__name__} of {', '.join(origin)}"
