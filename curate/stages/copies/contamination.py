"""FindContaminated: which images resemble a held-out one, by an edge or as the twin of an image that has one."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.engine.cost import PASS_ROWS, Assumptions, Demand, Shape, Shapes, catalog_parts
from curate.engine.demands import folded, one_process
from curate.engine.image_ids import Parts, ids_of_part, part_of, row_of
from curate.engine.numbers import plural
from curate.engine.stage import Batches, Fold, Input, whole
from curate.engine.table import Table
from curate.ops.copies.decided import Counting, Decided
from curate.ops.copies.graph import KINDS, CopyEdges
from curate.stages.copies.resolve_decisions import read_decided
from curate.tables import CATALOG, CONTAMINATED, CURATED, DECIDED, HELDOUT, NEIGHBORS, POOL

CONTAMINATED_SHARE = 0.01
"""Share of the images that resemble a held-out one, as the cost law assumes."""


class FindContaminated(Fold):
    """Pool and curated images that resemble a held-out one as closely as contamination does.

    One process: a bit an image of the catalog, and one batch of pairs.
    """

    inputs: ClassVar[dict[str, Input]] = {
        "neighbors": whole(NEIGHBORS, many=True),
        "catalog": whole(CATALOG),
        "decided": whole(DECIDED, optional=True),
    }
    parts_like: ClassVar[str | None] = "catalog"
    state_by_image: ClassVar[bool] = True

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return CONTAMINATED

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        parts = Parts.of(tables["catalog"])
        found = touching_heldout(tables["neighbors"], parts, read_decided(tables["decided"]))
        for number in sorted(parts.numbers(POOL) + parts.numbers(CURATED)):
            ids = ids_of_part(number, int(parts.rows[number]))
            yield pa.RecordBatch.from_arrays([pa.array(ids[found.has(ids)])], schema=CONTAMINATED)

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        pairs = sum(table.rows for table in inputs["neighbors"]) if given.heldout else 0
        touching = CONTAMINATED_SHARE * given.images if given.heldout else 0
        made = Shape(pool=touching, row_bytes=8, parts=catalog_parts(inputs), columns=1)
        images = given.num_images(("pool", "curated", "heldout"))
        demand = Demand(
            serial_rows=2 * PASS_ROWS * pairs,
            written=made.num_bytes,
            memory=images / 8,
        )
        alone = one_process([table.scanned(2) for table in inputs["neighbors"]] if given.heldout else [])
        return Demand.phases([demand, alone, folded(None, made, made, by_image=True)]), made


class ImageSet:
    """A set of images of the catalog, one bit each: 150 MB for 1.2 billion."""

    def __init__(self, parts: Parts) -> None:
        self._first = np.concatenate([[0], np.cumsum(parts.rows)])
        self._bits = np.zeros(int(self._first[-1]) // 8 + 1, np.uint8)

    def add(self, image_ids: np.ndarray) -> None:
        """Put images into the set; those that are there stay."""
        byte, bit = self._place(image_ids)
        np.bitwise_or.at(self._bits, byte, bit)

    def count(self, parts: Parts, role: int) -> int:
        """Images of a role that are in the set."""
        spans = ((int(self._first[number]), int(self._first[number + 1])) for number in parts.numbers(role))
        return sum(self._ones(start, stop) for start, stop in spans)

    def _ones(self, start: int, stop: int) -> int:
        bits = np.unpackbits(self._bits[start >> 3 : -(-stop // 8)], bitorder="little")
        return int(bits[start & 7 : (start & 7) + stop - start].sum())

    def has(self, image_ids: np.ndarray) -> np.ndarray:
        """(N,) bool: whether each image is in the set."""
        byte, bit = self._place(image_ids)
        found: np.ndarray = (self._bits[byte] & bit) > 0
        return found

    def _place(self, image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        row = self._first[part_of(image_ids)] + row_of(image_ids)
        return row >> 3, np.left_shift(1, row & 7).astype(np.uint8)


def touching_heldout(neighbors: Sequence[Table], parts: Parts, decided: Decided | None = None) -> ImageSet:
    """Pool and curated images that resemble a held-out one as closely as contamination does.

    Those with an edge to a held-out image (the tables of neighbors, equal bytes among them, hold none below its
    threshold), and those identical to such an image: FindNeighbors lets one image stand for all of its vector.
    Pairs that a person called no copies do not count.
    """
    found = ImageSet(parts)
    if not parts.numbers(HELDOUT):
        return found
    counting = Counting(decided or Decided.nothing())
    for edges in counting.edges(copy_edges(neighbors)):
        query, image = edges.query_ids, edges.image_ids
        for one, other in ((query, image), (image, query)):
            found.add(other[(parts.role_of(one) == HELDOUT) & (parts.role_of(other) != HELDOUT)])
    for edges in counting.edges(copy_edges(neighbors)):
        query, image = edges.query_ids, edges.image_ids
        twins = (parts.role_of(query) == parts.role_of(image)) & (edges.similarity >= 1)
        for one, other in ((query[twins], image[twins]), (image[twins], query[twins])):
            found.add(other[found.has(one)])
    return found


def curated_warning(num_curated: int) -> str:
    """What a person should know of curated images that resemble held-out ones, >= 1: nothing removes them."""
    verb = "resembles" if num_curated == 1 else "resemble"
    return (
        f"{plural(num_curated, 'curated image')} of this run {verb} held-out images as closely as contamination does. "
        "Curated images are added as they are, and these with them: see the section on held-out images."
    )


def copy_edges(neighbors: Sequence[Table]) -> Iterator[CopyEdges]:
    """The rows of tables of pairs."""
    kinds = pa.array(KINDS)
    for rows in (rows for table in neighbors for rows in table.scan()):
        kind = pc.index_in(rows["kind"], value_set=kinds).to_numpy().astype(np.int8)
        yield CopyEdges(rows["query_id"].to_numpy(), rows["image_id"].to_numpy(), rows["similarity"].to_numpy(), kind)
