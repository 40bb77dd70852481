"""RankWithin and DropSimilar: SemDeDup, the similarity found once and the threshold chosen afterwards."""

import itertools
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.engine.deal import deal
from curate.engine.stage import Batches, Input, Map, Shuffle, each, whole
from curate.engine.store import Table
from curate.ops.copies.semdedup import Keep, most_similar_before, preference
from curate.ops.vectors import VectorSpec, normalize, to_float32, unpack
from curate.stages.search.lists import read_centroids
from curate.tables import CATALOG, CENTROIDS, DUPLICATES, LISTS, RANKED

SWEEP = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)
"""Values of eps of which the metrics tell what would be kept."""
SIMILAR = "similar"
"""Verdict beside those of `tables.VERDICTS`: another image of the cluster, the partner, stands for this one."""


class RankWithin(Map):
    """Every image of a cluster, with the one most like it among those that are preferred to it.

    The lists hold each image in the list of its cluster alone: `BuildLists(homes=..., probes=(), num_probes=1)`.
    Memory: a part of the lists, and 64 MB of products.
    """

    inputs: ClassVar[dict[str, Input]] = {"lists": each(LISTS), "centroids": whole(CENTROIDS)}

    keep: Keep = "hard"
    """Which image of several similar ones is preferred. hard: the farthest from the centroid, as in the paper; easy:
    the closest; random."""
    seed: int | None = None
    """Of `keep: random`; None: the run's seed."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return RANKED

    def run(self, part: int, *, lists: pa.Table, centroids: Table) -> Batches:
        centres, spec = normalize(read_centroids(centroids)), VectorSpec.of(lists.schema)
        number = lists["list_id"].to_numpy()
        for start, stop in _runs(number):
            rows = lists.slice(start, stop - start)
            x = normalize(to_float32(unpack(rows["vector"], spec)[0], spec))
            yield self._rank(rows["image_id"].to_numpy(), x, int(number[start]), centres)

    def _rank(self, ids: np.ndarray, x: np.ndarray, cluster: int, centres: np.ndarray) -> pa.RecordBatch:
        order = preference(x @ centres[cluster], ids, keep=self.keep, seed=self.seed or 0)
        similarity, place = most_similar_before(x[order])
        first = place < 0
        columns = [
            pa.array(ids[order]),
            pa.array(np.full(len(ids), cluster, np.int32)),
            pa.array(np.arange(len(ids), dtype=np.int32)),
            pa.array(similarity, mask=first),
            pa.array(ids[order][place], mask=first),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=RANKED)

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        dropped = np.zeros(len(SWEEP), np.int64)
        for rows in table.scan(["similarity"]):
            found = np.sort(rows["similarity"].drop_null().to_numpy())
            dropped += len(found) - np.searchsorted(found, 1 - np.array(SWEEP), side="right")
        kept = (table.num_rows() - dropped).tolist()
        return {"sweep": [{"eps": eps, "kept": n} for eps, n in zip(SWEEP, kept, strict=True)]}


class DropSimilar(Shuffle):
    """The verdicts of deduplication, and `similar` for images that resemble a preferred one of their cluster.

    An image goes if its similarity to any preferred one exceeds 1 - eps, stays that one or not, as in the paper.
    """

    inputs: ClassVar[dict[str, Input]] = {
        "ranked": each(RANKED),
        "duplicates": whole(DUPLICATES),
        "catalog": whole(CATALOG),
    }

    eps: Annotated[float, Field(ge=0, le=2)] = 0.05
    """Images of cosine above 1 - eps are the same to the backbone; look at the sweep in the report."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return DUPLICATES

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return RANKED

    def num_parts(self, **inputs: Any) -> int:
        return len(inputs["catalog"].parts())

    def scatter(
        self, part: int, *, ranked: pa.Table, duplicates: Table, catalog: Table
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        similar = ranked.filter(pc.greater(ranked["similarity"], 1 - self.eps)).sort_by("image_id")
        yield from deal(similar, similar["image_id"].to_numpy() >> 32)

    def run(self, part: int, *, pieces: pa.Table, duplicates: Table, catalog: Table) -> Batches:
        judged, pieces = duplicates.read(part).combine_chunks(), pieces.sort_by("image_id")
        place = pc.index_in(judged["image_id"], value_set=pieces["image_id"].combine_chunks())
        similar, found = place.is_valid(), pieces.take(place)
        new = {
            "verdict": pa.scalar(SIMILAR, pa.string()),
            "partner_id": found["partner_id"],
            "similarity": found["similarity"],
            "kind": pa.scalar("embedding", pa.string()),
            "direct": pa.scalar(True),
        }
        for name, value in new.items():
            column = pc.if_else(similar, value, judged[name])
            judged = judged.set_column(judged.schema.get_field_index(name), DUPLICATES.field(name), column)
        yield from judged.to_batches()

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        counts = {"kept": 0, SIMILAR: 0}
        for rows in table.scan(["verdict"]):
            for name in counts:
                counts[name] += pc.sum(pc.equal(rows["verdict"], name)).as_py() or 0
        return counts


def _runs(values: np.ndarray) -> Iterator[tuple[int, int]]:
    """(start, stop) of each run of equal values, which are >= 0."""
    return itertools.pairwise(np.flatnonzero(np.diff(values, prepend=-1, append=-1)).tolist())
