"""KeepNear: pairs so alike that their cosine decides alone; see `verified_pairs.py` for those that it leaves."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self

import pyarrow as pa
from pydantic import Field

from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.finished import Finished
from curate.engine.image_ids import Parts
from curate.engine.show import Section
from curate.engine.stage import Batches, Input, Map, each, whole
from curate.engine.table import Table
from curate.stages.copies.crowd_members import CrowdMembers, members_read
from curate.stages.copies.verified_pairs import least_similarity
from curate.stages.search.find_truth import measured
from curate.stages.search.neighbors import similarity_section, threshold_fact
from curate.tables import CATALOG, CROWDS, NEIGHBORS, THRESHOLDS


class KeepNear(Map):
    """Keeps the pairs whose cosine decides alone, of those that a looser search found; in crowds none does."""

    inputs: ClassVar[dict[str, Input]] = {
        "neighbors": each(NEIGHBORS),
        "crowds": whole(CROWDS, optional=True),
        "thresholds": whole(THRESHOLDS, optional=True),
        "catalog": whole(CATALOG),
    }
    version: ClassVar[int] = 2

    threshold: Annotated[float, Field(ge=-1, le=1)] = 1.0
    """Least cosine of a pair of pool and curated images, -1..1; recipes set it."""
    heldout_threshold: Annotated[float, Field(ge=-1, le=1)] = 1.0
    """Least cosine of a pair with a held-out image, -1..1; recipes set it."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NEIGHBORS

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        return self.model_copy(update=measured(inputs.get("thresholds"), threshold="sure", heldout_threshold="sure"))

    def run(
        self, part: int, *, neighbors: pa.Table, crowds: Table | None, catalog: Table, thresholds: Table | None
    ) -> Batches:
        least = least_similarity(self, neighbors, Parts.of(catalog))
        near = (neighbors["similarity"].to_numpy() >= least) & ~CrowdMembers.of(crowds).touch(neighbors)
        yield from neighbors.filter(pa.array(near)).to_batches()

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        found: Shape = inputs["neighbors"]
        made = found._replace(pool=found.rows * (1 - given.doubted), curated=0, heldout=0)
        demand = Demand(rows=found.rows, written=made.num_bytes)
        return Demand.sum([demand, members_read(inputs)]), made

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        yield threshold_fact(self, table)

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        yield from similarity_section(self, table, run)
