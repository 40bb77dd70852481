"""ScoreHead: a score of each image by a small head on its embedding, such as aesthetic quality or safety.

A head costs nothing beside the embedding, which it shares with whatever else needs that one. It belongs to the model
whose embeddings it was trained on: those of another model, of the same length even, give numbers without a meaning. So
a head says which models it takes, and any other is an error before anything is embedded.
"""

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from curate.config import Execution, absolute_path
from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.finished import Finished, ImagePlace
from curate.engine.stage import Batches, Input, Map, each
from curate.engine.table import Table
from curate.errors import ConfigError, WeightsError
from curate.models.files.declaration import declaration_path
from curate.models.files.digest import hash_file
from curate.models.files.scoring_heads import ScoringHead, read_scoring_head
from curate.models.files.weights import find_weight_file
from curate.ops.vectors import VectorSpec, normalize, to_float32, unpack
from curate.stages.screening.embedding import Embedding
from curate.tables import IMAGE_ID, VECTORS, score

SCORE_NAME = r"^[a-z][a-z0-9_]*$"
"""What a score may be called: `where` and rules name it."""
HEAD_OPERATIONS = 3e6
"""Operations of a head for a vector: two for each weight of the largest published one."""
SCORE_BYTES = 3.5


class ScoreHead(Map):
    """Scores every image that has an embedding."""

    inputs: ClassVar[dict[str, Input]] = {"embeddings": each(VECTORS)}

    name: str = Field(pattern=SCORE_NAME, max_length=60)
    """Name of the score."""
    head: Annotated[str, Execution()] = Field(min_length=1)
    """File of the head: a published one for CLIP embeddings (aesthetics, safety), or one with a declaration beside it;
    a .safetensors or a torch file of plain tensors. Known by its content, so it may move."""
    embed: Annotated[Embedding, Execution()]
    """The embeddings that it scores: copy, those of copy detection; ssl, the recipe's own; or the settings of a model
    such as {model: open_clip/ViT-L-14:openai}. What is embedded anyway is not embedded again."""
    model: str | None = None
    """Id of the model whose embeddings the head takes, where neither its layout nor its declaration names the one that
    is used here; null: these say it."""

    @field_validator("head")
    @classmethod
    def _absolute(cls, path: str) -> str:
        return absolute_path(path)

    def score_names(self) -> tuple[str, ...]:
        """Names of its columns of scores."""
        return (self.name,)

    def output_schema(self, **inputs: Any) -> pa.Schema:
        found, spec = self._read(), VectorSpec.of(inputs["embeddings"])
        self._check(found, spec)
        doc = f"{found.doc}; by a head on {spec.model}"
        return pa.schema([IMAGE_ID, score(self.name, pa.float32(), doc, model=spec.model, weights=self._digest())])

    def pins(self) -> dict[str, str]:
        return {"head": self._digest()}

    def _digest(self) -> str:
        """Of the file; its declaration is in it where there is one."""
        return self._read_with_digest()[1]

    def _read(self) -> ScoringHead:
        return self._read_with_digest()[0]

    def _read_with_digest(self) -> tuple[ScoringHead, str]:
        try:
            return read_head(self.head)
        except WeightsError as error:
            raise self.field_error("head", f": {error}") from error

    def _check(self, found: ScoringHead, spec: VectorSpec) -> None:
        """Raise unless the head takes these embeddings.

        Raises:
            ConfigError: they are another model's.
        """
        models = found.models if self.model is None else (self.model,)
        if spec.model not in models:
            raise self._error(f"takes embeddings of {' or '.join(models)}, these are of {spec.model}")
        if spec.dtype == "bits" or spec.dim != found.head.dim:
            raise self._error(f"takes {found.head.dim} values, an embedding of {spec.model} has {spec.dim}")

    def _error(self, text: str) -> ConfigError:
        remedy = "set `embed` to the model that it was made for"
        return self.field_error("head", f"={Path(self.head).name}: {text}; {remedy}")

    def run(self, part: int, *, embeddings: pa.Table) -> Batches:
        spec = VectorSpec.of(embeddings.schema)
        vectors, rows = unpack(embeddings["vector"], spec)
        scores, known = np.zeros(len(embeddings), np.float32), np.zeros(len(embeddings), bool)
        scores[rows] = self._read().head.score(normalize(to_float32(vectors, spec)))
        known[rows] = True
        columns = [embeddings["image_id"].combine_chunks(), pa.array(scores, mask=~known)]
        yield pa.RecordBatch.from_arrays(columns, schema=self.output_schema(embeddings=embeddings.schema))

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        vectors: Shape = inputs["embeddings"]
        made = vectors._replace(row_bytes=ID_BYTES + SCORE_BYTES, columns=2, dim=0, widths={})
        return Demand(products=HEAD_OPERATIONS * vectors.rows, written=made.num_bytes), made

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        head = table.complete_manifest().pins.get("head", "")[:digits]
        doc = table.schema().field(self.name).metadata[b"doc"].decode()
        yield "Models", f"{table.name}: {Path(self.head).name} ({head}), {doc}"

    def explain(self, image: ImagePlace, table: Table, run: Finished) -> Iterator[str]:
        for row in run.rows_of(image, table):
            if row[self.name] is not None:
                yield f"{row[self.name]:.4f}"


@lru_cache(maxsize=16)
def _read(path: str, content: str) -> ScoringHead:
    return read_scoring_head(path)


def read_head(path: str) -> tuple[ScoringHead, str]:
    """A head and the digest of its file and declaration, read once a process.

    Raises:
        WeightsError: it cannot be read.
    """
    file = find_weight_file(path)
    parts = [hash_file(one) for one in (file, declaration_path(file)) if one.is_file()]
    content = parts[0] if len(parts) == 1 else hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return _read(path, content), content
