"""ChooseImages: the images that occur in candidates, which a later pass opens; see `verified_pairs.py`."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes, catalog_parts
from curate.engine.demands import Sent, shuffled
from curate.engine.image_ids import part_of
from curate.engine.shuffle import Scattered, partition
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.table import Table
from curate.tables import CATALOG, CHOSEN, PAIRS

SENT_ID_BYTES = 1
"""Bytes of an id on its way."""


class ChooseImages(Shuffle):
    """Lists every image of a pair once, with its part of the catalog."""

    inputs: ClassVar[dict[str, Input]] = {"candidates": each(PAIRS), "catalog": whole(CATALOG)}
    parts_like: ClassVar[str | None] = "catalog"

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return CHOSEN

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return CHOSEN

    def scatter(self, part: int, *, candidates: pa.Table, catalog: Table) -> Iterator[Scattered]:
        """The images of the pairs of one part to their parts."""
        ids = np.unique(np.concatenate([candidates[name].to_numpy() for name in ("query_id", "image_id")]))
        ids = ids[ids >= 0]  # planted copies are no images of the catalog
        yield from partition(pa.table([ids], schema=CHOSEN), part_of(ids))

    def run(self, part: int, *, pieces: pa.Table, catalog: Table) -> Batches:
        ids = np.unique(pieces["image_id"].to_numpy())
        yield from pa.table([ids], schema=CHOSEN).to_batches()

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        pairs: Shape = inputs["candidates"]
        chosen = min(given.images * given.chosen, 2 * pairs.rows)
        made = Shape(pool=chosen, row_bytes=ID_BYTES, parts=catalog_parts(inputs), columns=1)
        # Images of a part of pairs, each once: its own, and those of other parts.
        sent = Sent(min(2 * pairs.rows, 2 * chosen), pairs.parts, made.parts, row_bytes=SENT_ID_BYTES, memory_bytes=8)
        demand = Demand(rows=2 * pairs.rows, written=made.num_bytes)
        return Demand.phases([demand, shuffled(sent, given)]), made
