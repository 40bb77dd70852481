"""FindCandidates: the pairs that are to be verified; see `verified_pairs.py`."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.cost import Assumptions, Demand, Shape, Shapes, catalog_parts, edge_bytes
from curate.engine.demands import Sent, shuffled
from curate.engine.image_ids import Parts, part_of
from curate.engine.shuffle import Scattered, partition
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.table import Table
from curate.ops.edges import rank_in_group
from curate.stages.copies.crowd_members import CrowdMembers, members_read
from curate.stages.copies.find_crowds import CROWD_SHARE
from curate.stages.copies.verified_pairs import distinct_pairs, least_similarity, oriented
from curate.stages.search.find_truth import measured
from curate.tables import CATALOG, CROWDS, HELDOUT, NEIGHBORS, PAIRS, THRESHOLDS

PAIR_BYTES = 20
"""Bytes of a pair in memory."""


class FindCandidates(Shuffle):
    """Takes the pairs whose cosine does not decide, each once, and of an image the most similar ones alone.

    An image offers pairs with larger ids, so that the pairs together are at most as many as the images times the bound.
    """

    inputs: ClassVar[dict[str, Input]] = {
        "neighbors": each(NEIGHBORS),
        "crowds": whole(CROWDS, optional=True),
        "thresholds": whole(THRESHOLDS, optional=True),
        "catalog": whole(CATALOG),
    }
    version: ClassVar[int] = 4
    parts_like: ClassVar[str | None] = "catalog"

    threshold: Annotated[float, Field(ge=-1, le=1)] = 1.0
    """Cosine of a pair of pool and curated images from which on there is nothing to verify, -1..1; recipes set it."""
    heldout_threshold: Annotated[float, Field(ge=-1, le=1)] = 1.0
    """The same cosine for a pair with a held-out image, -1..1; recipes set it."""
    floor: Annotated[float, Field(ge=-1, le=1)] = -1.0
    """Least cosine of a pair that is tried, -1..1; in crowds all are that the search found. Recipes set it."""
    heldout_floor: Annotated[float, Field(ge=-1, le=1)] | None = None
    """The same cosine for a pair with a held-out image, -1..1; null: as `floor`. Recipes set it."""
    max_pairs: Annotated[int, Field(ge=1)] = 8
    """Pairs that an image offers at most, >= 1: copies are among its nearest images. On the bundled photographs 8
    offer 98 % of the copies that 64 do."""
    crowd_pairs: Annotated[int, Field(ge=1)] = 64
    """The same for an image in a crowd, >= 1. With as many look-alikes nearer than a copy, the copy is left to the
    hashes."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return PAIRS

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        return self.model_copy(update=measured(inputs.get("thresholds"), threshold="sure", heldout_threshold="sure"))

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return PAIRS

    def scatter(
        self, part: int, *, neighbors: pa.Table, crowds: Table | None, catalog: Table, thresholds: Table | None
    ) -> Iterator[Scattered]:
        """Each doubtful pair to the part of its query."""
        parts = Parts.of(catalog)
        doubtful = neighbors["similarity"].to_numpy() < least_similarity(self, neighbors, parts)
        heldout = parts.role_of(neighbors["query_id"].to_numpy()) == HELDOUT
        asked = self.floor if self.heldout_floor is None else self.heldout_floor
        floor = np.where(heldout, asked, self.floor).astype(np.float32)
        doubtful &= neighbors["similarity"].to_numpy() >= floor
        doubtful |= CrowdMembers.of(crowds).touch(neighbors)  # there no cosine decides
        pairs = oriented(neighbors.filter(pa.array(doubtful)), parts)
        yield from partition(pairs, part_of(pairs["query_id"].to_numpy()))

    def run(
        self, part: int, *, pieces: pa.Table, crowds: Table | None, catalog: Table, thresholds: Table | None
    ) -> Batches:
        pairs = distinct_pairs(pieces)
        query, similarity = pairs["query_id"].to_numpy(), pairs["similarity"].to_numpy()
        crowded = CrowdMembers.of(crowds).touch(pairs)
        order = np.lexsort((pairs["image_id"].to_numpy(), -similarity, crowded, query))
        # Pairs within crowds have a bound of their own, so that look-alikes do not crowd out the others.
        rank = rank_in_group(2 * np.unique(query[order], return_inverse=True)[1] + crowded[order])
        offered = np.sort(order[rank < np.where(crowded[order], self.crowd_pairs, self.max_pairs)])
        yield from pairs.take(offered).to_batches()

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        found: Shape = inputs["neighbors"]
        most = given.images * (self.max_pairs + CROWD_SHARE * self.crowd_pairs)
        offered, each = min(found.rows * given.doubted / 2, most), edge_bytes(given)
        made = Shape(pool=offered, row_bytes=each, parts=catalog_parts(inputs), columns=3)
        # A search finds most pairs in both directions, of which one is offered.
        sent = Sent(
            found.rows * given.doubted,
            found.parts,
            made.parts,
            row_bytes=each,
            memory_bytes=PAIR_BYTES / max(given.doubted, 1e-9),  # the way is laid out for all pairs
        )
        demand = Demand(rows=2 * found.rows, written=made.num_bytes)
        return Demand.phases([demand, shuffled(sent, given), members_read(inputs)]), made
