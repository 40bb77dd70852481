"""DoubtCrowds: pairs that count by their similarity alone, in crowds near hashes; see `crowd_members.py`."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.figures import Figures
from curate.engine.finished import Finished
from curate.engine.image_ids import Parts
from curate.engine.numbers import plural
from curate.engine.show import Section, Text
from curate.engine.stage import Batches, Input, Map, each, whole
from curate.engine.table import Table
from curate.models.thresholds import NEAREST_HASH, STRONG_HASH
from curate.stages.copies.crowd_members import CrowdMembers, members_read
from curate.stages.copies.find_crowds import TITLE
from curate.stages.copies.verified_pairs import least_similarity
from curate.tables import CATALOG, CROWDS, NEIGHBORS

HASH_CROWD = 2
"""Groups of other images with near hashes from which on hashes must be nearer to count."""


class DoubtFigures(Figures):
    """How many pairs were left out."""

    doubted: int
    """Pairs that look-alikes may have."""


class DoubtCrowds(Map):
    """Leaves out the pairs of images in crowds, but for hashes at most 31 bits apart; 16 where others are near."""

    inputs: ClassVar[dict[str, Input]] = {
        "neighbors": each(NEIGHBORS),
        "crowds": whole(CROWDS, optional=True),
        "catalog": whole(CATALOG),
    }
    version: ClassVar[int] = 2

    threshold: Annotated[float, Field(ge=-1, le=1)] = -1.0
    """Least similarity of a pair of pool and curated images anywhere, -1..1; recipes set it."""
    heldout_threshold: Annotated[float, Field(ge=-1, le=1)] = -1.0
    """The same for a pair with a held-out image, -1..1; recipes set it."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NEIGHBORS

    def run(self, part: int, *, neighbors: pa.Table, crowds: Table | None, catalog: Table) -> Batches:
        members = CrowdMembers.of(crowds)
        least = np.where(members.where(HASH_CROWD).touch(neighbors), NEAREST_HASH, STRONG_HASH).astype(np.float32)
        hashed = pc.equal(neighbors["kind"], "hash").to_numpy(zero_copy_only=False)
        strong = hashed & (neighbors["similarity"].to_numpy() >= least)
        near = neighbors["similarity"].to_numpy() >= least_similarity(self, neighbors, Parts.of(catalog))
        yield from neighbors.filter(pa.array(near & (strong | ~members.touch(neighbors)))).to_batches()

    def summarize(self, table: Table, **inputs: Any) -> DoubtFigures:
        return DoubtFigures(doubted=inputs["neighbors"].num_rows() - table.num_rows())

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        found: Shape = inputs["neighbors"]
        demand = Demand(rows=found.rows, written=found.num_bytes)
        return Demand.sum([demand, members_read(inputs)]), found

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        doubted = DoubtFigures.of(table).doubted
        if doubted:
            yield Section(TITLE, (Text(f"{table.name}: {plural(doubted, 'pair')} did not count."),))
