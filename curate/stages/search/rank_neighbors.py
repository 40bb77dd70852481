"""RankNeighbors: the k nearest of each query, gathered from all lists that the query probed."""

import itertools
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.cost import Assumptions, Demand, Shape, Shapes, edge_bytes
from curate.engine.demands import Sent, shuffled
from curate.engine.image_ids import Parts, part_of, row_of
from curate.engine.shuffle import Scattered, partition
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.table import Table
from curate.ops.edges import Edges, merge_top_k, rank_in_group
from curate.tables import CATALOG, CURATED, NEAREST, NEIGHBORS

QUERIES_AT_ONCE = 1024
"""Queries whose candidates are sorted together: small sorts stay in the processor's cache."""

RANK_BYTES = 2
"""Bytes of a rank."""


class RankNeighbors(Shuffle):
    """The pairs of curated queries, gathered in one part for each curated part of the catalog and ranked there.

    Of what the lists find for a query, its k nearest stay on the way, so that a part holds k pairs for each of its
    queries from each run of a scatter task, and `executor.task_memory / 4` of them at once.
    """

    inputs: ClassVar[dict[str, Input]] = {"neighbors": each(NEIGHBORS), "catalog": whole(CATALOG)}

    k: Annotated[int, Field(ge=1)]
    """Number of images for each query."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NEAREST

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return pa.schema(list(NEAREST)[:3])

    def num_parts(self, **inputs: Any) -> int:
        return max(1, len(curated_parts(Parts.of(inputs["catalog"]))))

    def scatter(self, part: int, *, neighbors: pa.Table, catalog: Table) -> Iterator[Scattered]:
        parts = curated_parts(Parts.of(catalog))
        asked = neighbors.select(NEAREST.names[:3])
        asked = asked.filter(pa.array(np.isin(part_of(asked["query_id"].to_numpy()), parts)))
        yield from partition(asked, np.searchsorted(parts, part_of(asked["query_id"].to_numpy())))

    def condense(self, pieces: pa.Table) -> pa.Table:
        return pa.Table.from_arrays(list(map(pa.array, self._nearest(pieces))), schema=pieces.schema)

    def run(self, part: int, *, pieces: pa.Table, catalog: Table) -> Batches:
        yield nearest_rows(self._nearest(pieces))

    def _nearest(self, pieces: pa.Table) -> Edges:
        """The k nearest of each query."""
        edges = Edges(*(pieces[name].to_numpy() for name in NEAREST.names[:3]))
        return Edges.concat([Edges.empty(), *(merge_top_k(e, self.k) for e in _by_queries(edges))])

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        found: Shape = inputs["neighbors"]
        catalog: Shape | None = inputs.get("catalog")
        parts = 1 if catalog is None else catalog.parts_of("curated", given)
        made = Shape(
            pool=min(found.rows, given.curated * self.k), row_bytes=RANK_BYTES + edge_bytes(given), parts=parts
        )
        sent = Sent(found.rows, found.parts, made.parts, row_bytes=edge_bytes(given), memory_bytes=20)
        demand = Demand(rows=3 * found.rows, written=made.num_bytes)
        return Demand.phases([demand, shuffled(sent, given)]), made


def _by_queries(edges: Edges) -> Iterator[Edges]:
    """The edges of one part's queries, some queries at a time, in order."""
    row = row_of(edges.query_ids)
    last = int(row.max(initial=0))
    order = np.argsort(row.astype(np.min_scalar_type(last)), kind="stable")  # 16 bits are sorted by counting
    bounds = np.searchsorted(row[order], np.arange(0, last + QUERIES_AT_ONCE + 1, QUERIES_AT_ONCE))
    for start, end in itertools.pairwise(bounds):
        yield edges.take(order[start:end])


def curated_parts(parts: Parts) -> np.ndarray:
    """(C,) int64, ascending: parts of the catalog that hold curated images."""
    return np.flatnonzero(parts.role == CURATED)


def nearest_rows(edges: Edges) -> pa.RecordBatch:
    """Edges in order of (query, strongest first, image) as rows of NEAREST."""
    order = np.lexsort((edges.query_ids, edges.image_ids))
    columns = [*edges, rank_in_group(edges.query_ids).astype(np.int32)]
    return pa.RecordBatch.from_arrays([pa.array(column[order]) for column in columns], schema=NEAREST)
