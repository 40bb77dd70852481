"""MatchQueries: sample-based retrieval without collisions: an image serves one query of a set only."""

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.engine.cost import Assumptions, Demand, Shape, Shapes, edge_bytes
from curate.engine.demands import folded, one_process
from curate.engine.image_ids import Parts
from curate.engine.stage import Batches, Fold, Input, whole
from curate.engine.table import Table
from curate.ops.edges import Edges
from curate.ops.selection.retrieval import match_queries
from curate.stages.search.rank_neighbors import curated_parts, nearest_rows
from curate.stages.selection.by_sample import BySample
from curate.tables import CATALOG, NEAREST

PAIR_BYTES = 120
"""Memory of a candidate pair while its set is matched."""


class MatchQueries(Fold):
    """Refills: each image goes to its most similar query, the others go on to their next nearest.

    Who gets what depends on all queries of a set, so the candidates of one set are in memory at once: about 120
    bytes for each of its queries times the candidates of a query. A million queries with 256 candidates: 31 GB.
    """

    inputs: ClassVar[dict[str, Input]] = {"nearest": whole(NEAREST), "catalog": whole(CATALOG)}

    sample: BySample
    """How many images each query gets."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NEAREST

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        parts = Parts.of(tables["catalog"])
        numbers = curated_parts(parts)
        found = [Edges.empty()]
        for rank in np.unique(parts.rank[numbers]):
            mine = np.flatnonzero(parts.rank[numbers] == rank)  # part p of `nearest` holds the p-th curated part
            edges = Edges.concat([_edges(tables["nearest"].read(part)) for part in mine.tolist()])
            found.append(match_queries(edges, self.sample.k_of(parts.source[numbers[mine[0]]])))
        matched = Edges.concat(found)
        yield nearest_rows(matched.take(np.argsort(matched.query_ids, kind="stable")))

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """Sorts of all candidates in one process, a few rounds of them."""
        found = inputs["nearest"]
        made = Shape(pool=given.curated * self.sample.largest_k, row_bytes=edge_bytes(given))
        demand = Demand(serial_rows=4 * found.rows, written=made.num_bytes, memory=PAIR_BYTES * found.rows)
        return Demand.phases([demand, one_process([found.scanned()]), folded(None, made, made)]), made


def _edges(rows: pa.Table) -> Edges:
    return Edges(*(rows[name].to_numpy() for name in NEAREST.names[:3]))
