"""FindCandidates: the pairs that are to be verified, with the small picture of one image; see `verified_pairs.py`."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.cost import EDGE_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.image_ids import Parts, part_of
from curate.engine.shuffle import partition
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.table import Table
from curate.ops.vectors import VectorSpec, pack
from curate.stages.copies.verified_pairs import ROWS_AT_ONCE, SmallPictures, least_similarity
from curate.tables import CATALOG, HELDOUT, NEIGHBORS, VECTORS, candidates_schema


class FindCandidates(Shuffle):
    """Takes the pairs whose cosine does not decide, each once, with the small picture of its query."""

    inputs: ClassVar[dict[str, Input]] = {
        "neighbors": each(NEIGHBORS),
        "pictures": whole(VECTORS),
        "catalog": whole(CATALOG),
    }
    parts_like: ClassVar[str | None] = "catalog"

    threshold: Annotated[float, Field(ge=-1, le=1)]
    """Cosine of a pair of pool and curated images from which on there is nothing to verify, -1..1."""
    heldout_threshold: Annotated[float, Field(ge=-1, le=1)]
    """The same cosine for a pair with a held-out image, -1..1."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        spec = VectorSpec.of(inputs["pictures"])
        return candidates_schema(spec.dim, dtype=spec.dtype, model=spec.model, weights=spec.weights)

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return NEIGHBORS

    def scatter(
        self, part: int, *, neighbors: pa.Table, pictures: Table, catalog: Table
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Each doubtful pair to the part of its query."""
        parts = Parts.of(catalog)
        doubtful = neighbors["similarity"].to_numpy() < least_similarity(self, neighbors, parts)
        pairs = _oriented(neighbors.filter(pa.array(doubtful)), parts)
        yield from partition(pairs, part_of(pairs["query_id"].to_numpy()))

    def run(self, part: int, *, pieces: pa.Table, pictures: Table, catalog: Table) -> Batches:
        schema = self.output_schema(pictures=pictures.schema())
        pairs, lookup = _distinct(pieces), SmallPictures(pictures, part)
        for start in range(0, len(pairs), ROWS_AT_ONCE):
            rows = pairs.slice(start, ROWS_AT_ONCE)
            columns = [rows[name].combine_chunks() for name in ("query_id", "image_id", "similarity")]
            vectors = pack(lookup.of(rows["query_id"].to_numpy()))
            yield pa.RecordBatch.from_arrays([*columns, vectors], schema=schema)

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """Half of the pairs of a loose search are doubtful."""
        found, pictures = inputs["neighbors"], inputs["pictures"]
        made = Shape(pool=found.rows / 2, row_bytes=EDGE_BYTES + pictures.row_bytes)
        read = 2 * found.num_bytes + pictures.num_bytes
        return Demand(rows=2 * found.rows, read=read, written=made.num_bytes, scratch=found.num_bytes), made


def _oriented(pairs: pa.Table, parts: Parts) -> pa.Table:
    """Pairs whose query has the smaller id; held-out images, which are only queries, stay in their place.

    Either direction of a pair may be missing, where one of its images has nearer neighbors than it may list.
    """
    query, image = pairs["query_id"].to_numpy(), pairs["image_id"].to_numpy()
    swap = (parts.role_of(query) != HELDOUT) & (query > image)
    first, second = np.where(swap, image, query), np.where(swap, query, image)
    columns = [pa.array(first), pa.array(second), pairs["similarity"], pairs["kind"]]
    return pa.Table.from_arrays(columns, schema=NEIGHBORS)


def _distinct(pairs: pa.Table) -> pa.Table:
    """Pairs in order of (query, image), each once though both directions and several lists found it."""
    ordered = pairs.sort_by([("query_id", "ascending"), ("image_id", "ascending"), ("similarity", "descending")])
    query, image = ordered["query_id"].to_numpy(), ordered["image_id"].to_numpy()
    first = np.ones(len(ordered), bool)
    first[1:] = (np.diff(query) != 0) | (np.diff(image) != 0)
    return ordered.filter(pa.array(first))
