"""MatchQueries: sample-based retrieval without collisions: an image serves one query of a set only."""

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.engine.stage import Batches, Fold, Input, whole
from curate.engine.store import Table
from curate.ops.edges import Edges
from curate.ops.selection.retrieval import match_queries
from curate.stages.images.catalog import parts_of
from curate.stages.search.rank_neighbors import curated_parts, nearest_rows
from curate.stages.selection.retrieve import BySample
from curate.tables import CATALOG, NEAREST


class MatchQueries(Fold):
    """Refills: each image goes to its most similar query, the others go on to their next nearest.

    Who gets what depends on all queries of a set, so the candidates of one set are in memory at once: about 120
    bytes for each of its queries times the candidates of a query. A million queries with 256 candidates: 31 GB.
    """

    inputs: ClassVar[dict[str, Input]] = {"nearest": whole(NEAREST), "catalog": whole(CATALOG)}

    sample: BySample
    """Images per query."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NEAREST

    def num_parts(self, **inputs: Any) -> int:
        return 1

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        parts = parts_of(tables["catalog"])
        numbers = curated_parts(parts)
        found = [Edges.empty()]
        for rank in np.unique(parts.rank[numbers]):
            mine = np.flatnonzero(parts.rank[numbers] == rank)  # part p of `nearest` holds the p-th curated part
            edges = Edges.concat([_edges(tables["nearest"].read(part)) for part in mine.tolist()])
            found.append(match_queries(edges, self.sample.of(parts.source[numbers[mine[0]]])))
        matched = Edges.concat(found)
        yield nearest_rows(matched.take(np.argsort(matched.query_ids, kind="stable")))


def _edges(rows: pa.Table) -> Edges:
    return Edges(*(rows[name].to_numpy() for name in NEAREST.names[:3]))
