"""CompareExamples: how like the most similar of some example pictures each image is."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Execution, Settings
from curate.engine.cost import ID_BYTES, SIMILARITY_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.finished import Finished, ImagePlace
from curate.engine.stage import Batches, Input, Map, each, whole
from curate.engine.store import Store
from curate.engine.table import Table
from curate.errors import TableError
from curate.ops.screening.nearest_example import nearest_example
from curate.ops.vectors import VectorSpec, normalize, to_float32, unpack
from curate.stages.screening.embedding import Embedding
from curate.stages.screening.score_head import SCORE_NAME
from curate.tables import EXAMPLES, IMAGE_ID, VECTORS, column, score


class Examples(Settings):
    """Pictures that others are compared with."""

    name: str = Field(pattern=SCORE_NAME, max_length=60)
    """Name of the score: the largest cosine to one of the pictures, -1..1."""
    source: Annotated[str, Execution()] = Field(min_length=1)
    """Folder of pictures, with those below it; known by their content, so it may move."""
    embed: Embedding = "copy"
    """What is compared: copy, the embeddings of copy detection, which find the same picture; ssl, the recipe's own
    backbone, which finds what shows the same; or the settings of a model such as {model: dinov2_vits14}."""
    above: Annotated[float, Field(ge=-1, le=1)]
    """Cosine above which an image looks like the examples, -1..1. It belongs to the model; `curate sweep` shows what
    others would take."""
    with_copies: bool = False
    """Whether all copies of an image that is rejected go with it, whatever their own scores."""


class CompareExamples(Map):
    """The largest cosine of each image to an example."""

    inputs: ClassVar[dict[str, Input]] = {"embeddings": each(VECTORS), "examples": whole(EXAMPLES)}

    name: str = Field(pattern=SCORE_NAME, max_length=60)
    """Name of the score."""

    def score_names(self) -> tuple[str, ...]:
        """Names of its columns of scores."""
        return (self.name,)

    def output_schema(self, **inputs: Any) -> pa.Schema:
        spec, examples = VectorSpec.of(inputs["embeddings"]), VectorSpec.of(inputs["examples"])
        if (spec.model, spec.weights, spec.dim) != (examples.model, examples.weights, examples.dim):
            raise TableError(
                f"{self.name}: embeddings are of {spec.model} ({spec.dim}), examples of {examples.model} "
                f"({examples.dim}); both must be of one model"
            )
        doc = f"largest cosine of the embeddings of {spec.model} to an example, -1..1"
        return pa.schema(
            [
                IMAGE_ID,
                score(self.name, pa.float32(), doc, model=spec.model, weights=spec.weights),
                column("example", pa.string(), "that example; null: the image has no embedding", nullable=True),
            ]
        )

    def run(self, part: int, *, embeddings: pa.Table, examples: Table) -> Batches:
        names, known = _read_examples(examples)
        spec = VectorSpec.of(embeddings.schema)
        vectors, rows = unpack(embeddings["vector"], spec)
        cosine, place = np.zeros(len(embeddings), np.float32), np.full(len(embeddings), -1)
        cosine[rows], place[rows] = nearest_example(normalize(to_float32(vectors, spec)), known)
        missing = place < 0
        columns = [
            embeddings["image_id"].combine_chunks(),
            pa.array(cosine, mask=missing),
            names.take(pa.array(place, mask=missing)),
        ]
        schema = self.output_schema(embeddings=embeddings.schema, examples=examples.schema())
        yield pa.RecordBatch.from_arrays(columns, schema=schema)

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        vectors, examples = inputs["embeddings"], inputs["examples"]
        made = vectors._replace(row_bytes=ID_BYTES + SIMILARITY_BYTES + 1, columns=3, dim=0, widths={})
        demand = Demand(products=2 * vectors.rows * examples.rows * vectors.dim, written=made.num_bytes)
        return Demand.phases([demand, examples.scanned()]), made

    def explain(self, image: ImagePlace, table: Table, run: Finished) -> Iterator[str]:
        for row in run.rows_of(image, table):
            if row["example"] is not None:
                yield f"cosine {row[self.name]:.4f} to the example {row['example']}"


def _read_examples(examples: Table) -> tuple[pa.Array, np.ndarray]:
    """Names and (E, D) float32 vectors, read once a process."""
    content = tuple(part.content for part in examples.parts())
    return _read(examples.store.address, examples.name, content)


@lru_cache(maxsize=4)
def _read(root: str, name: str, content: tuple[str, ...]) -> tuple[pa.Array, np.ndarray]:
    rows = Store(root).table(name).read_all()
    spec = VectorSpec.of(rows.schema)
    return rows["example"].combine_chunks(), normalize(to_float32(unpack(rows["vector"], spec)[0], spec))
