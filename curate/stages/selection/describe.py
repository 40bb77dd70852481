"""DescribeSet: figures of the curated set itself, beside those of the pool it was chosen from."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.finished import Finished
from curate.engine.image_ids import Parts
from curate.engine.numbers import plural
from curate.engine.show import Numbers, Section
from curate.engine.stage import Batches, Fold, Input, whole
from curate.engine.table import Table
from curate.ops.random_keys import random_keys
from curate.ops.selection.diversity import vendi_score
from curate.ops.vectors import VectorSpec, normalize, to_float32, unpack
from curate.stages.copies.contamination import ImageSet
from curate.stages.selection.retrieved import curated_sets
from curate.tables import CATALOG, CURATED, FIGURES, NEIGHBORS, POOL, SELECTION, VECTORS

VENDI, COPIES_LEFT = "Vendi score", "images with a copy left"
MEANING = {
    VENDI: "how many entirely different images would be as diverse; larger is more diverse",
    COPIES_LEFT: "selected images that resemble another selected one; curated sets enter as they are",
}
"""What a figure says; the others are of curated sets."""


class DescribeSet(Fold):
    """Diversity, near-copies left, and how near the selection comes to each curated set.

    The pool is what the backbone embedded: the images that deduplication kept. Memory: the samples, one part of the
    embeddings, and a bit an image of the catalog.
    """

    inputs: ClassVar[dict[str, Input]] = {
        "selection": whole(SELECTION),
        "embeddings": whole(VECTORS),
        "neighbors": whole(NEIGHBORS, many=True),
        "catalog": whole(CATALOG),
    }

    num_samples: Annotated[int, Field(ge=2)] = 2000
    """Images of the pool, of the selection, and of each curated set that are looked at."""
    seed: int | None = None
    """Seed of the samples; null: the seed of the run."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return FIGURES

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        selection, embeddings, parts = tables["selection"], tables["embeddings"], Parts.of(tables["catalog"])
        chosen, size = ImageSet(parts), selection.num_rows()
        for rows in selection.scan(["image_id"]):
            chosen.add(rows["image_id"].to_numpy())
        figures = [*self._diversity(embeddings, parts, chosen), _copies_left(tables["neighbors"], chosen, size)]
        for name, numbers in curated_sets(parts).items():
            figures += self._coverage(embeddings, parts, chosen, numbers, name)
        columns = [pa.array(column, f.type) for column, f in zip(zip(*figures, strict=True), FIGURES, strict=True)]
        yield pa.RecordBatch.from_arrays(columns, schema=FIGURES)

    def _diversity(self, embeddings: Table, parts: Parts, chosen: ImageSet) -> "Iterator[Figure]":
        """Of samples of equal size, since the score grows with it."""
        pool = self._sample(embeddings, parts.numbers(POOL))
        mine = self._sample(embeddings, sorted(parts.numbers(POOL) + parts.numbers(CURATED)), chosen)
        size = min(len(pool), len(mine))
        for name, x in (("pool", pool), ("selection", mine)):
            if size:
                yield Figure(VENDI, name, vendi_score(x[:size]), size)

    def _sample(self, embeddings: Table, numbers: Sequence[int], among: ImageSet | None = None) -> np.ndarray:
        """(n, D) float32 of unit norm: `num_samples` random vectors of these parts, the first ones random too."""
        keys, vectors = np.empty(0, np.uint64), None
        for ids, x in _vectors(embeddings, numbers):
            mine = np.ones(len(ids), bool) if among is None else among.has(ids)
            keys = np.concatenate([keys, random_keys(ids[mine], seed=self.seed or 0, purpose="describe")])
            vectors = x[mine] if vectors is None else np.concatenate([vectors, x[mine]])
            first = np.argsort(keys)[: self.num_samples]
            keys, vectors = keys[first], vectors[first]
        return np.empty((0, 1), np.float32) if vectors is None else vectors

    def _coverage(
        self, embeddings: Table, parts: Parts, chosen: ImageSet, numbers: Sequence[int], source: str
    ) -> "Iterator[Figure]":
        """Mean cosine of a curated image to the nearest pool image, of all and of those selected."""
        asking = self._sample(embeddings, numbers)
        if len(asking) == 0:
            return
        nearest = np.full((2, len(asking)), -np.inf, np.float32)
        for ids, x in _vectors(embeddings, parts.numbers(POOL)):
            for row, mine in enumerate((np.ones(len(ids), bool), chosen.has(ids))):
                if mine.any():
                    nearest[row] = np.maximum(nearest[row], (asking @ x[mine].T).max(axis=1))
        for name, found in zip(("pool", "selection"), nearest, strict=True):
            if np.isfinite(found).all():
                yield Figure(f"nearest to {source}", name, float(found.mean(dtype=np.float64)), len(asking))

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """Every vector meets the sample of the curated sets; all of it in one process."""
        vectors: Shape = inputs["embeddings"]
        asking = self.num_samples if given.curated else 0
        products = 2 * vectors.rows * asking * vectors.dim
        return Demand(serial_products=products, serial_rows=vectors.rows, read=3 * vectors.num_bytes), Shape()

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        rows = table.read_all().to_pylist()
        values = {(row["name"], row["set"]): row["value"] for row in rows}
        measured_on = {row["name"]: row["num_images"] for row in rows}
        body = tuple(
            (
                name,
                *(_number(values.get((name, of))) for of in ("pool", "selection")),
                plural(num_images, "image"),
                MEANING.get(name, "mean cosine of a curated image to the nearest pool image"),
            )
            for name, num_images in measured_on.items()
        )
        numbers = Numbers(("", "pool", "selection", "measured on", ""), body)
        yield Section("The selection beside the pool", (numbers,), first=True)


class Figure(NamedTuple):
    """A row of the table."""

    name: str
    set: str
    value: float
    num_images: int


def _vectors(embeddings: Table, numbers: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and unit vectors of these parts, one part after the other."""
    for number in numbers:
        table = embeddings.read(number)
        spec = VectorSpec.of(table.schema)
        stored, rows = unpack(table["vector"], spec)
        if len(rows):
            yield table["image_id"].to_numpy()[rows], normalize(to_float32(stored, spec))


def _copies_left(neighbors: list[Table], chosen: ImageSet, size: int) -> Figure:
    """Selected images that resemble another selected one as closely as copies do."""
    found = [np.empty(0, np.int64)]
    for rows in (rows for table in neighbors for rows in table.scan(["query_id", "image_id"])):
        query, image = rows["query_id"].to_numpy(), rows["image_id"].to_numpy()
        both = chosen.has(query) & chosen.has(image)
        found += [query[both], image[both]]
    return Figure(COPIES_LEFT, "selection", float(len(np.unique(np.concatenate(found)))), size)


def _number(value: float | None) -> int | float | None:
    """Counts without decimals."""
    return int(value) if value is not None and value == int(value) else value
