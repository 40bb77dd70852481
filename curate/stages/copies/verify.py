"""KeepNear, FindCandidates, VerifyCopies: pairs that a network finds alike are laid over each other before they count.

A cosine alone cannot tell a cropped copy from another photograph of the same castle. So the search is loose. Pairs of
a strict cosine count as they are (KeepNear); those between the two are judged by the mean of cosine and correlation of
two small luma pictures in their best alignment (`ops/copies/alignment.py`). Two shuffles bring the small pictures of
both images to the pair: by the part of the query, then by the part of the image, so that a task holds one part of them.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Execution
from curate.engine.deal import deal
from curate.engine.stage import Batches, Input, Map, Shuffle, each, whole
from curate.engine.store import Table
from curate.models.device import resolve_device
from curate.models.thresholds import verification
from curate.ops.copies.alignment import align, alignment_score
from curate.ops.vectors import VectorSpec, pack, unpack
from curate.stages.images.catalog import Parts, parts_of
from curate.tables import CANDIDATES, CATALOG, NEIGHBORS, ROLES, VECTORS, candidates_schema

HELDOUT = ROLES.index("heldout")
ROWS_AT_ONCE = 16_384
"""Pairs whose pictures are unpacked together."""


class KeepNear(Map):
    """The pairs whose cosine decides alone, of those that a looser search found."""

    inputs: ClassVar[dict[str, Input]] = {"neighbors": each(NEIGHBORS), "catalog": whole(CATALOG)}

    threshold: Annotated[float, Field(ge=-1, le=1)]
    """Least cosine of a pair of pool and curated images."""
    heldout_threshold: Annotated[float, Field(ge=-1, le=1)]
    """Least cosine of a pair with a held-out image."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NEIGHBORS

    def run(self, part: int, *, neighbors: pa.Table, catalog: Table) -> Batches:
        least = _least(self, neighbors, parts_of(catalog))
        yield from neighbors.filter(pa.array(neighbors["similarity"].to_numpy() >= least)).to_batches()


class FindCandidates(Shuffle):
    """The pairs whose cosine does not decide, each once, with the query's small picture."""

    inputs: ClassVar[dict[str, Input]] = {
        "neighbors": each(NEIGHBORS),
        "pictures": whole(VECTORS),
        "catalog": whole(CATALOG),
    }

    threshold: Annotated[float, Field(ge=-1, le=1)]
    """Cosine of a pair of pool and curated images from which on there is nothing to verify."""
    heldout_threshold: Annotated[float, Field(ge=-1, le=1)]
    """The same for a pair with a held-out image."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        spec = VectorSpec.of(inputs["pictures"])
        return candidates_schema(spec.dim, dtype=spec.dtype, model=spec.model, weights=spec.weights)

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return NEIGHBORS

    def num_parts(self, **inputs: Any) -> int:
        return len(inputs["catalog"].parts())

    def scatter(
        self, part: int, *, neighbors: pa.Table, pictures: Table, catalog: Table
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        parts = parts_of(catalog)
        doubtful = neighbors["similarity"].to_numpy() < _least(self, neighbors, parts)
        pairs = _oriented(neighbors.filter(pa.array(doubtful)), parts)
        yield from deal(pairs, pairs["query_id"].to_numpy() >> 32)

    def run(self, part: int, *, pieces: pa.Table, pictures: Table, catalog: Table) -> Batches:
        spec = VectorSpec.of(pictures.schema())
        schema = candidates_schema(spec.dim, dtype=spec.dtype, model=spec.model, weights=spec.weights)
        pairs = _distinct(pieces)
        lookup = _Pictures(pictures, part)
        for start in range(0, len(pairs), ROWS_AT_ONCE):
            rows = pairs.slice(start, ROWS_AT_ONCE)
            columns = [rows[name].combine_chunks() for name in ("query_id", "image_id", "similarity")]
            vectors = pack(lookup.of(rows["query_id"].to_numpy()))
            yield pa.RecordBatch.from_arrays([*columns, vectors], schema=schema)


class VerifyCopies(Shuffle):
    """The candidates that can be laid over each other well enough."""

    inputs: ClassVar[dict[str, Input]] = {
        "candidates": each(CANDIDATES),
        "pictures": whole(VECTORS),
        "catalog": whole(CATALOG),
    }

    threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Least score of a pair of pool and curated images; None: the value known for the model."""
    heldout_threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Least score of a pair with a held-out image; None: the value known for the model."""
    weight: Annotated[float, Field(gt=0)] = 0.45
    """Of the correlation beside the cosine; chosen on planted copies, where 0.3 to 0.6 do about as well."""
    model: str = ""
    """Of the copy embedding, which the thresholds belong to; recipes set it."""
    device: Annotated[str, Execution()] = "auto"
    """auto, cpu, cuda or cuda:N."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NEIGHBORS

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        schema: pa.Schema = inputs["candidates"]
        return schema

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        if self.threshold is not None and self.heldout_threshold is not None:
            return self
        known = verification(self.model)
        given = {"threshold": self.threshold, "heldout_threshold": self.heldout_threshold}
        chosen = {"threshold": known.threshold, "heldout_threshold": known.heldout_threshold}
        return self.model_copy(update={name: chosen[name] for name, value in given.items() if value is None})

    def resources(self) -> dict[str, float]:
        return {"GPU": 1} if resolve_device(self.device).type == "cuda" else {}

    def num_parts(self, **inputs: Any) -> int:
        return len(inputs["catalog"].parts())

    def scatter(
        self, part: int, *, candidates: pa.Table, pictures: Table, catalog: Table
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        yield from deal(candidates, candidates["image_id"].to_numpy() >> 32)

    def run(self, part: int, *, pieces: pa.Table, pictures: Table, catalog: Table) -> Batches:
        pairs = pieces.sort_by([("image_id", "ascending"), ("query_id", "ascending")])
        lookup, parts = _Pictures(pictures, part), parts_of(catalog)
        for start in range(0, len(pairs), ROWS_AT_ONCE):
            yield self._judge(pairs.slice(start, ROWS_AT_ONCE), lookup, parts)

    def _judge(self, rows: pa.Table, lookup: "_Pictures", parts: Parts) -> pa.RecordBatch:
        """The edges among these pairs."""
        queries, _ = unpack(rows["vector"], lookup.spec)
        images = lookup.of(rows["image_id"].to_numpy())
        correlation = align(queries, images, device=str(resolve_device(self.device)))
        score = alignment_score(rows["similarity"].to_numpy(), correlation, weight=self.weight)
        kept = score >= _least(self, rows, parts)
        columns = [rows["query_id"].to_numpy()[kept], rows["image_id"].to_numpy()[kept], score[kept]]
        kinds = pa.array(["aligned"] * int(kept.sum()), pa.string())
        return pa.RecordBatch.from_arrays([*map(pa.array, columns), kinds], schema=NEIGHBORS)

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        return {"tried": inputs["candidates"].num_rows(), "aligned": table.num_rows()}


class _Pictures:
    """The small pictures of one part of the catalog, by image id."""

    def __init__(self, pictures: Table, part: int) -> None:
        self.spec = VectorSpec.of(pictures.schema())
        table = pictures.read(part)
        self._vectors, rows = unpack(table["vector"], self.spec)
        self._ids = table["image_id"].to_numpy()[rows]

    def of(self, ids: np.ndarray) -> np.ndarray:
        """(N, D) vectors of images that all have one."""
        rows = np.searchsorted(self._ids, ids)
        vectors: np.ndarray = self._vectors[rows]
        return vectors


def _least(stage: KeepNear | FindCandidates | VerifyCopies, pairs: pa.Table, parts: Parts) -> np.ndarray:
    """(N,) float32: the threshold of each pair, by whether its query is held out."""
    assert stage.threshold is not None
    assert stage.heldout_threshold is not None
    heldout = parts.role[pairs["query_id"].to_numpy() >> 32] == HELDOUT
    return np.where(heldout, stage.heldout_threshold, stage.threshold).astype(np.float32)


def _oriented(pairs: pa.Table, parts: Parts) -> pa.Table:
    """Pairs that ask from the smaller id; held-out images, which only ask, stay in their place.

    Either direction of a pair may be missing, where one of its images has nearer neighbours than it may list.
    """
    query, image = pairs["query_id"].to_numpy(), pairs["image_id"].to_numpy()
    swap = (parts.role[query >> 32] != HELDOUT) & (query > image)
    columns = [np.where(swap, image, query), np.where(swap, query, image), pairs["similarity"], pairs["kind"]]
    return pa.Table.from_arrays([pa.array(c) if isinstance(c, np.ndarray) else c for c in columns], schema=NEIGHBORS)


def _distinct(pairs: pa.Table) -> pa.Table:
    """Pairs in order of (query, image), each once though both directions and several lists found it."""
    ordered = pairs.sort_by([("query_id", "ascending"), ("image_id", "ascending"), ("similarity", "descending")])
    query, image = ordered["query_id"].to_numpy(), ordered["image_id"].to_numpy()
    first = np.ones(len(ordered), bool)
    first[1:] = (np.diff(query) != 0) | (np.diff(image) != 0)
    return ordered.filter(pa.array(first))
