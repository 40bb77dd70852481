"""Deduplicate: components of copies, and what stays of each."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.engine.stage import Batches, Fold, Input, whole
from curate.engine.store import Table
from curate.ops.copies.duplicates import Judged, deduplicate
from curate.ops.copies.graph import KINDS, AcceptedImages, CatalogParts, CopyEdges, Oversized
from curate.ops.roles import CURATED
from curate.stages.copies.contamination import touching_heldout
from curate.stages.images.catalog import parts_of
from curate.stages.images.inspect import accepted_mask
from curate.tables import CATALOG, DUPLICATES, IMAGES, NEIGHBORS, VERDICTS

GIANT_SHARE = 0.05
"""Share of the pool above which one component suggests that a loose threshold chains images together."""
GIANT_SIZE = 100
"""Images that a component may have in any pool."""
CHAIN_SHARE = 0.5
"""Of a component's other images, those like the kept one; fewer: a chain more than copies of one picture."""


class Deduplicate(Fold):
    """Self- and relative deduplication; the edges come with their thresholds applied, those of equal bytes among them.

    One process makes the state: 24 bytes an image of the catalog, and one batch of edges.
    """

    inputs: ClassVar[dict[str, Input]] = {
        "catalog": whole(CATALOG),
        "images": whole(IMAGES),
        "neighbors": whole(NEIGHBORS, many=True),
    }
    version: ClassVar[int] = 2

    oversized: Oversized | None = None
    """Guard against chains: a stricter threshold inside components that are too large; None: a warning alone."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return DUPLICATES

    def num_parts(self, **inputs: Any) -> int:
        return len(inputs["catalog"].parts())

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        parts = parts_of(tables["catalog"])
        found = deduplicate(
            CatalogParts(parts.role, parts.rank, parts.rows),
            lambda: map(_accepted, tables["images"].scan(["image_id", "width", "height", "reject"])),
            lambda: _edges(tables["neighbors"]),
            oversized=self.oversized,
        )
        yield from map(_batch, found)

    def state_images(self, part: int) -> tuple[int, int]:
        return part << 32, (part + 1) << 32

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        metrics: dict[str, Any] = dict.fromkeys(VERDICTS, 0)
        images_by_size: dict[int, int] = {}
        largest = _Largest()
        for rows in table.scan(["component_id", "component_size", "verdict", "direct"]):
            for name, column in (("verdict", metrics), ("component_size", images_by_size)):
                for entry in rows[name].value_counts().to_pylist():
                    column[entry["values"]] = column.get(entry["values"], 0) + entry["counts"]
            largest.add(rows)
        metrics["component_sizes"] = {str(size): images // size for size, images in sorted(images_by_size.items())}
        parts = parts_of(inputs["catalog"])
        metrics["curated_heldout"] = touching_heldout(inputs["neighbors"], parts).count(parts, CURATED)
        metrics["largest_component"] = largest.size
        if largest.size > max(GIANT_SIZE, GIANT_SHARE * table.num_rows()):
            metrics["warning"] = largest.warning(table.num_rows())
        return metrics


class _Largest:
    """The largest component, the first of those of one size."""

    def __init__(self) -> None:
        self.size, self.component, self.direct = 0, -1, 0

    def add(self, rows: pa.Table) -> None:
        size, component = rows["component_size"].to_numpy(), rows["component_id"].to_numpy()
        if len(size) and size.max() > self.size:
            self.size, self.component, self.direct = int(size.max()), int(component[size.argmax()]), 0
        mine = rows.filter(pa.array(component == self.component))
        self.direct += pa.compute.sum(mine["direct"], min_count=0).as_py()

    def warning(self, num_images: int) -> str:
        """What to look at, and what to do."""
        share = self.direct / max(1, self.size - 1)
        kind = (
            "they hang together as a chain more than as copies of one picture"
            if share < CHAIN_SHARE
            else "they may well be copies of one picture"
        )
        return (
            f"one component holds {self.size} of {num_images} images, and {share:.0%} of them resemble the image that "
            f"stays: {kind}. Look at it in the report; if these are different pictures, raise the threshold, or cut "
            f"such components: copies.deduplicate.oversized={{size: {GIANT_SIZE}, threshold: 0.95}}"
        )


def _accepted(rows: pa.Table) -> AcceptedImages:
    good = rows.filter(pa.array(accepted_mask(rows)))
    pixels = good["width"].to_numpy().astype(np.int64) * good["height"].to_numpy()
    return AcceptedImages(good["image_id"].to_numpy(), pixels)


def _edges(neighbors: Sequence[Table]) -> Iterator[CopyEdges]:
    kinds = pa.array(KINDS)
    for rows in (rows for table in neighbors for rows in table.scan()):
        kind = pa.compute.index_in(rows["kind"], value_set=kinds).to_numpy().astype(np.int8)
        yield CopyEdges(rows["query_id"].to_numpy(), rows["image_id"].to_numpy(), rows["similarity"].to_numpy(), kind)


def _batch(found: Judged) -> pa.RecordBatch:
    kept = found.partner_ids < 0
    columns = [
        pa.array(found.image_ids),
        pa.array(found.component_ids),
        pa.array(found.component_size.astype(np.int32)),
        _names(found.verdict, VERDICTS),
        pa.array(found.partner_ids, mask=kept),
        pa.array(found.similarity, pa.float32(), mask=kept),
        _names(np.where(kept, -1, found.kind), KINDS),
        pa.array(found.direct, mask=kept),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=DUPLICATES)


def _names(codes: np.ndarray, names: Sequence[str]) -> pa.Array:
    """Strings by code; null where it is negative."""
    numbers = pa.array(codes.astype(np.int8), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(numbers, pa.array(names)).cast(pa.string())
