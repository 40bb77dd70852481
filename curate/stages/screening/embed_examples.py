"""EmbedExamples: the pictures of a folder, embedded, for others to be compared with.

They are few and small, so they are read in one task; what they are is known by their content. They are decoded at the
size at which a pass decodes images, so that an image of equal bytes has the same vector.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from curate.config import Execution, absolute_path
from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.finished import Finished
from curate.engine.numbers import plural
from curate.engine.stage import Batches, Map
from curate.engine.table import Table
from curate.errors import ConfigError, SourceError
from curate.models.backbones.load import describe, weights_for_plan
from curate.models.files.digest import hash_file
from curate.opening import read_regular
from curate.ops.images.decoding import inspect_picture
from curate.ops.images.preprocess import preprocess
from curate.ops.vectors import pack
from curate.stages.images.embed import Embed
from curate.stages.images.pictures import TRUSTING
from curate.tables import examples_schema

MAX_EXAMPLES = 10_000
"""Pictures at most: every image is compared with each of them."""


class EmbedExamples(Map):
    """One unit vector for each picture of a folder."""

    parts_like: ClassVar[str | None] = "one"
    pins_are_data: ClassVar[bool] = True

    source: Annotated[str, Execution()] = Field(min_length=1)
    """Folder of pictures, with those below it; known by their content, so it may move."""
    embed: Embed
    """The model whose vectors are compared."""
    decode_side: int = 256
    """Pixels of the short side that decoding keeps at least, as in the pass over the images."""

    @field_validator("source")
    @classmethod
    def _absolute(cls, path: str) -> str:
        return absolute_path(path)

    def output_schema(self, **inputs: Any) -> pa.Schema:
        info = describe(self.embed.model, self.embed.weights, fetch=True)
        return examples_schema(info.dim, model=self.embed.model, weights=info.weights_hash)

    def files(self) -> list[tuple[str, Path]]:
        """(path within the folder, file) of the pictures, in order.

        Raises:
            ConfigError: there is no such folder, it is empty, or it holds too many.
        """
        folder = Path(self.source)
        if not folder.is_dir():
            raise self._error("no such folder; give one that holds the examples as files")
        found = sorted(
            (path.relative_to(folder).as_posix(), path)
            for path in folder.rglob("*")
            if path.is_file() and not any(step.startswith(".") for step in path.relative_to(folder).parts)
        )
        if not 0 < len(found) <= MAX_EXAMPLES:
            raise self._error(f"holds {len(found):,} files; 1 to {MAX_EXAMPLES:,} pictures are needed")
        return found

    def _error(self, text: str) -> ConfigError:
        return self.field_error("source", f"={self.source}: {text}")

    def pins(self) -> dict[str, str]:
        listed = "\n".join(f"{hash_file(path)} {name}" for name, path in self.files())
        pictures = hashlib.sha256(listed.encode("utf-8", "surrogatepass")).hexdigest()
        return {**self.embed.pins(), "pictures": pictures}

    def resources(self) -> dict[str, float]:
        return self.embed.resources()

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        return self.model_copy(update={"embed": self.embed.resolve((previous or {}).get("embed"))})

    def is_resolved(self) -> bool:
        return self.embed.is_resolved()

    def resolve_on_worker(self) -> Self:
        return self.model_copy(update={"embed": self.embed.resolve_on_worker()})

    def run(self, part: int) -> Batches:
        files = self.files()
        for start in range(0, len(files), self.embed.batch_size):
            some = files[start : start + self.embed.batch_size]
            vectors = self.embed.embed([self._pixels(path) for _, path in some]).astype(np.float32)
            columns = [pa.array([name for name, _ in some], pa.string()), pack(vectors)]
            yield pa.RecordBatch.from_arrays(columns, schema=self.output_schema())

    def _pixels(self, path: Path) -> np.ndarray:
        try:
            seen = inspect_picture(
                read_regular(path), TRUSTING, min_side=max(self.decode_side, self.embed.least_side())
            )
        except OSError as error:
            raise SourceError(f"{path}: an example cannot be read: {error.strerror or error}") from error
        if seen.picture is None:
            raise SourceError(f"{path}: an example is {seen.reject} ({seen.detail}); take it out of the folder")
        return preprocess(seen.picture, self.embed.backbone().preprocess)

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        from curate.models.flops import forward_flops

        weights = weights_for_plan(self.embed.model, self.embed.weights)
        number, dim = len(self.files()), describe(self.embed.model, weights).dim
        made = Shape(pool=number, row_bytes=4 * dim + 20, dim=dim, columns=2)
        demand = Demand(forward=number * forward_flops(self.embed.model, weights), written=made.num_bytes)
        return demand.with_reading(number, given), made

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        pictures = table.complete_manifest().pins.get("pictures", "")[:digits]
        yield "Examples", f"{table.name}: {plural(table.num_rows(), 'picture')} (digest {pictures})"
