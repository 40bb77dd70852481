"""RankNeighbors: the k nearest of each query, gathered from all lists that the query looked in."""

import itertools
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.deal import deal
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.store import Table
from curate.ops.edges import Edges, merge_top_k, rank_in_group
from curate.stages.images.catalog import Parts, parts_of
from curate.tables import CATALOG, NEAREST, NEIGHBORS, ROLES

CURATED = ROLES.index("curated")
QUERIES_AT_ONCE = 1024
"""Queries whose candidates are sorted together: small sorts stay in the processor's cache."""


class RankNeighbors(Shuffle):
    """Edges of curated queries, dealt to one part for each curated part of the catalog and ranked there.

    A part holds the candidates of one part's queries in memory: about 80 bytes for each of its queries times k times
    the parts of the lists that it looked in.
    """

    inputs: ClassVar[dict[str, Input]] = {"neighbors": each(NEIGHBORS), "catalog": whole(CATALOG)}

    k: Annotated[int, Field(ge=1)]
    """Images per query."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NEAREST

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return pa.schema(list(NEAREST)[:3])

    def num_parts(self, **inputs: Any) -> int:
        return max(1, len(curated_parts(parts_of(inputs["catalog"]))))

    def scatter(self, part: int, *, neighbors: pa.Table, catalog: Table) -> Iterator[tuple[int, pa.RecordBatch]]:
        parts = curated_parts(parts_of(catalog))
        query_part = neighbors["query_id"].to_numpy() >> 32
        asked = neighbors.select(NEAREST.names[:3]).filter(pa.array(np.isin(query_part, parts)))
        yield from deal(asked, np.searchsorted(parts, asked["query_id"].to_numpy() >> 32))

    def run(self, part: int, *, pieces: pa.Table, catalog: Table) -> Batches:
        edges = Edges(*(pieces[name].to_numpy() for name in NEAREST.names[:3]))
        yield nearest_rows(Edges.concat([Edges.empty(), *(merge_top_k(e, self.k) for e in _by_queries(edges))]))


def _by_queries(edges: Edges) -> Iterator[Edges]:
    """The edges of one part's queries, some queries at a time, in order."""
    row = edges.query_ids & 0xFFFFFFFF
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
