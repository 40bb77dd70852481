"""FindCrowds: images that resemble many pictures which no strong evidence ties together; see `crowd_members.py`."""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.engine.cost import Assumptions, Demand, Shape, Shapes, catalog_parts
from curate.engine.demands import folded, one_process
from curate.engine.figures import Figures
from curate.engine.finished import Finished, pick
from curate.engine.image_ids import Parts
from curate.engine.numbers import count, plural, share
from curate.engine.show import LIST_KEPT, Block, Gallery, Picture, Section, Text
from curate.engine.stage import Batches, Fold, Input, whole
from curate.engine.table import Table
from curate.engine.tallies import Tally, tally_batch
from curate.models.thresholds import STRONG_HASH
from curate.ops.copies.components import DisjointSet
from curate.ops.copies.crowds import count_groups, mark_groups
from curate.ops.copies.graph import CatalogParts, CopyGraph
from curate.stages.copies.crowd_members import CrowdMembers
from curate.stages.search.find_truth import measured
from curate.tables import CATALOG, CROWDS, NEIGHBORS, THRESHOLDS

logger = logging.getLogger(__name__)

NODE_BYTES = 28
"""Bytes of memory that an image of the catalog takes."""
CROWD_SHARE = 0.05
"""Share of the images in crowds, as the cost law assumes."""
NUM_SHOWN = 48
"""Images of crowds that the report shows."""
TITLE = "Pictures that look alike"
"""Title of the report's section on crowds."""


class CrowdFigures(Figures):
    """How much of the catalog looks alike."""

    images: int
    """Images of the catalog."""
    crowded: int
    """Those that stand in a crowd."""
    pairs: int
    """Pairs by likeness that touch one of them, each direction by itself."""


class CrowdTally(Tally):
    """What the process counts that finds the crowds."""

    pairs: int = 0
    """Pairs by likeness that touch a crowd, each direction by itself."""


class FindCrowds(Fold):
    """Counts, of every image, the groups of images that it resembles: images of a group are tied by strong evidence.

    Strong are equal bytes, and PDQ hashes at most 31 bits apart. One process: 28 bytes an image of the catalog, and one
    batch of pairs.
    """

    inputs: ClassVar[dict[str, Input]] = {
        "catalog": whole(CATALOG),
        "near": whole(NEIGHBORS, many=True),
        "strong": whole(NEIGHBORS, many=True),
        "thresholds": whole(THRESHOLDS, optional=True),
    }
    version: ClassVar[int] = 2
    parts_like: ClassVar[str | None] = "catalog"
    state_by_image: ClassVar[bool] = True
    tally: ClassVar[type[Tally] | None] = CrowdTally

    alike: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Cosine from which on two images look alike, -1..1; null: as measured or known for the model, else any of the
    pairs that the search found."""

    pool_share: Annotated[float, Field(gt=0, le=1)] = 0.02
    """Share of the catalog's images that the groups which an image in a crowd resembles are as many as, 0..1: a few
    crops of one picture are many in a small pool alone."""
    min_groups: Annotated[int, Field(ge=2, le=60)] = 4
    """So many groups beside its own are needed in any pool, 2..60."""
    enough_groups: Annotated[int, Field(ge=2, le=60)] = 24
    """So many are enough in any pool, 2..60: copies of one picture without near hashes are hardly ever so many."""

    alike_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of the catalog in crowds from which on the catalog as a whole looks alike, 0..1: then one such group is
    enough, since a small pool shows of most crowds a part."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return CROWDS

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        return self.model_copy(update=measured(inputs.get("thresholds"), alike="alike"))

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        parts = Parts.of(tables["catalog"])
        graph = CopyGraph(CatalogParts(parts.role, parts.rank, parts.rows), ())
        forest = DisjointSet(graph.size)
        for rows in _scan(tables["strong"]):
            sure = rows["similarity"].to_numpy() >= np.float32(STRONG_HASH)  # equal bytes have 1
            forest.union(*(graph.nodes(rows[name].to_numpy()[sure]) for name in ("query_id", "image_id")))
        near, strong = (self._alike(tables["near"]), _scan(tables["strong"]))
        groups, by_hash = (_num_groups(graph, forest.roots(), pairs) for pairs in (near, strong))
        crowded = groups >= min(max(self.min_groups, math.ceil(self.pool_share * graph.size)), self.enough_groups)
        if crowded.sum() >= self.alike_share * graph.size:
            crowded = groups >= 1
        nodes = np.flatnonzero(crowded)
        columns = [
            pa.array(graph.image_ids(nodes)),
            *(pa.array(number[nodes].astype(np.int16)) for number in (groups, by_hash)),
        ]
        crowds = pa.RecordBatch.from_arrays(columns, schema=CROWDS)
        yield crowds
        members = CrowdMembers(*(crowds[name].to_numpy() for name in ("image_id", "hash_groups")))
        pairs = sum(int(members.touch(rows).sum()) for rows in self._alike(tables["near"])) if len(nodes) else 0
        yield tally_batch(CrowdTally(pairs=pairs), CROWDS)

    def _alike(self, near: Sequence[Table]) -> Iterator[pa.Table]:
        """The pairs of images that look alike."""
        for rows in _scan(near):
            yield rows if self.alike is None else rows.filter(pc.greater_equal(rows["similarity"], self.alike))

    def summarize(self, table: Table, **inputs: Any) -> CrowdFigures:
        pairs = CrowdTally.of(table).pairs
        found = CrowdFigures(images=inputs["catalog"].num_rows(), crowded=table.num_rows(), pairs=pairs)
        if found.crowded:
            logger.warning("warning: %s", self._warning(found))
        return found

    def _warning(self, found: CrowdFigures) -> str:
        part = share(found.crowded, found.images)
        return (
            f"pictures look alike: {count(found.crowded)} of {plural(found.images, 'image')} ({part}) resemble many "
            f"others that no hash ties together, by {count(found.pairs)} pairs. Such a pair counts only if it stands "
            "out of what both images resemble, or by a near hash; edited copies among these images may stay. If they "
            "are copies of one picture, set copies.crowds=trust"
        )

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        near, strong = (sum(table.rows for table in inputs[name]) for name in ("near", "strong"))
        read = [shape.scanned(2) for shape in (*inputs["near"], *inputs["strong"])]  # near: for groups and figures
        made = Shape(pool=given.images * CROWD_SHARE, row_bytes=5, parts=catalog_parts(inputs), columns=3)
        demand = Demand(
            serial_rows=given.images + 2 * (near + strong), written=made.num_bytes, memory=NODE_BYTES * given.images
        )
        alone = one_process(read)
        return Demand.phases([demand, alone, folded(None, made, made, by_image=True)]), made

    def headline(self, table: Table, run: Finished) -> str | None:
        found = CrowdFigures.of(table).crowded
        return f"{count(found)} look alike" if found else None

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        found = CrowdFigures.of(table)
        if found.crowded:
            text = f"{count(found.crowded)} of {plural(found.images, 'image')}; their pairs count where they stand out"
            yield TITLE, text

    def warn(self, table: Table, run: Finished) -> Iterator[str]:
        found = CrowdFigures.of(table)
        if found.crowded:
            yield self._warning(found)

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        found = CrowdFigures.of(table)
        if not found.crowded:
            return
        rows = run.sample(table, ["image_id", "groups"]).rows
        chosen = pick(np.arange(len(rows)), NUM_SHOWN, run.rng("crowds"))
        pictures = tuple(
            Picture(row["image_id"], (f"like {row['groups']} groups",)) for row in rows.take(chosen).to_pylist()
        )
        told = self._warning(found)
        blocks: list[Block] = [
            Text(f"{told[0].upper()}{told[1:]}."),
            Gallery(pictures, more=found.crowded - len(pictures), rest=LIST_KEPT),
        ]
        yield Section(TITLE, tuple(blocks))


def _num_groups(graph: CopyGraph, group: np.ndarray, pairs: Iterable[pa.Table]) -> np.ndarray:
    """(N,) int64: of each node the groups beside its own that pairs lead to."""
    seen = np.zeros(graph.size, np.uint64)
    for rows in pairs:
        a, b = (graph.nodes(rows[name].to_numpy()) for name in ("query_id", "image_id"))
        mark_groups(seen, a, group[b])
        mark_groups(seen, b, group[a])
    return count_groups(seen, group)


def _scan(tables: Sequence[Table]) -> Iterator[pa.Table]:
    for table in tables:
        yield from table.scan()
