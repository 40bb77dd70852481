"""Deduplicate: components of copies, and what stays of each."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.ops.components import size_histogram
from curate.ops.duplicates import CURATED, HELDOUT, KINDS, AcceptedImages, CopyEdges, Deduplication, deduplicate
from curate.stage import Batches, Fold, Input, whole
from curate.stages.catalog import Parts, parts_of
from curate.stages.inspect import accepted_mask
from curate.store import Table
from curate.tables import CATALOG, DUPLICATES, IMAGES, NEIGHBORS, VERDICTS

GIANT_SHARE = 0.05
"""Share of the pool above which one component suggests that a loose threshold chains images together."""


class Deduplicate(Fold):
    """Self- and relative deduplication; the edges come with their thresholds applied."""

    inputs: ClassVar[dict[str, Input]] = {
        "catalog": whole(CATALOG),
        "images": whole(IMAGES),
        "neighbors": whole(NEIGHBORS, many=True),
    }

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return DUPLICATES

    def num_parts(self, **inputs: Any) -> int:
        return len(inputs["catalog"].parts())

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        images = _accepted(tables["images"], parts_of(tables["catalog"]))
        edges = CopyEdges.concat([_no_edges(), *(_edges(rows) for t in tables["neighbors"] for rows in t.scan())])
        anything = dict.fromkeys(KINDS, -1.0)
        yield _batch(deduplicate(images, edges, self_threshold=anything, relative_threshold=anything))

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        """The rows of one part of the catalog."""
        ids = state["image_id"].to_numpy()
        start, end = np.searchsorted(ids, [part << 32, (part + 1) << 32])
        yield from state.slice(start, end - start).to_batches()

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        rows = table.read_all(["component_id", "verdict"])
        names, counts = np.unique(rows["verdict"].to_numpy(zero_copy_only=False), return_counts=True)
        _, labels = np.unique(rows["component_id"].to_numpy(), return_inverse=True)
        sizes, number = size_histogram(labels) if len(labels) else (np.empty(0), np.empty(0))
        metrics: dict[str, Any] = dict.fromkeys(VERDICTS, 0) | dict(zip(names.tolist(), counts.tolist(), strict=True))
        metrics["component_sizes"] = dict(zip(map(str, sizes.tolist()), number.tolist(), strict=True))
        contaminated = curated_heldout(inputs["neighbors"], inputs["images"], parts_of(inputs["catalog"]))
        metrics["curated_heldout"] = len(contaminated)
        largest = int(sizes.max(initial=0))
        metrics["largest_component"] = largest
        if largest > max(100, GIANT_SHARE * len(rows)):
            metrics["warning"] = (
                f"one component holds {largest} of {len(rows)} images: look at it in the report, and raise the "
                "threshold if these are different pictures"
            )
        return metrics


def curated_heldout(neighbors: Sequence[Table], images: Table, parts: Parts) -> np.ndarray:
    """(M,) int64, ascending: curated images that resemble a held-out one; they are reported, not judged.

    These are the ones with the bytes of a held-out image, with an edge to one, and those identical to them.
    """
    found, same = [_curated_with_heldout_bytes(images, parts)], [np.empty((2, 0), np.int64)]
    for rows in (rows for table in neighbors for rows in table.scan(["query_id", "image_id", "similarity"])):
        query, image = rows["query_id"].to_numpy(), rows["image_id"].to_numpy()
        asks, answers = parts.role[query >> 32], parts.role[image >> 32]
        found.append(image[(asks == HELDOUT) & (answers == CURATED)])
        identical = (asks == CURATED) & (answers == CURATED) & (rows["similarity"].to_numpy() >= 1)
        same.append(np.stack([query, image])[:, identical])
    direct = np.unique(np.concatenate(found))
    query, image = np.concatenate(same, axis=1)  # one image stands for all with its vector, see FindNeighbors
    return np.unique(np.concatenate([direct, query[np.isin(image, direct)]]))


def _curated_with_heldout_bytes(images: Table, parts: Parts) -> np.ndarray:
    """(M,) int64: curated images whose sha256 a held-out image has."""
    numbers = {role: np.flatnonzero(parts.role == role).tolist() for role in (HELDOUT, CURATED)}
    hashes = [images.read(part, ["sha256"])["sha256"].drop_null() for part in numbers[HELDOUT]]
    known = pa.chunked_array([chunk for column in hashes for chunk in column.chunks], pa.binary(32)).combine_chunks()
    found = [np.empty(0, np.int64)]
    for part in numbers[CURATED]:
        rows = images.read(part, ["image_id", "sha256"])
        same = pa.compute.is_in(rows["sha256"], value_set=known, skip_nulls=True).to_numpy()
        found.append(rows["image_id"].to_numpy()[same])
    return np.concatenate(found)


def _accepted(images: Table, parts: Parts) -> AcceptedImages:
    ids, pixels, sha256 = [], [], []
    for rows in images.scan(["image_id", "width", "height", "sha256", "reject"]):
        good = rows.filter(pa.array(accepted_mask(rows)))
        ids.append(good["image_id"].to_numpy())
        pixels.append(good["width"].to_numpy().astype(np.int64) * good["height"].to_numpy())
        sha256.append(np.frombuffer(b"".join(good["sha256"].to_pylist()), np.uint8).reshape(-1, 32))
    image_ids = np.concatenate(ids)
    part = image_ids >> 32
    return AcceptedImages(image_ids, parts.role[part], np.concatenate(pixels), parts.rank[part], np.concatenate(sha256))


def _no_edges() -> CopyEdges:
    return CopyEdges(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int8))


def _edges(rows: pa.Table) -> CopyEdges:
    kinds = {name: index for index, name in enumerate(KINDS)}
    kind = np.array([kinds[k] for k in rows["kind"].to_pylist()], np.int8)
    return CopyEdges(rows["query_id"].to_numpy(), rows["image_id"].to_numpy(), rows["similarity"].to_numpy(), kind)


def _batch(found: Deduplication) -> pa.RecordBatch:
    kept = found.partner_ids < 0
    columns = [
        pa.array(found.image_ids),
        pa.array(found.component_ids),
        pa.array(np.array(VERDICTS, object)[found.verdict], pa.string()),
        pa.array(found.partner_ids, mask=kept),
        pa.array(found.similarity, pa.float32(), mask=kept),
        pa.array(np.array([*KINDS, ""], object)[found.kind], pa.string(), mask=kept),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=DUPLICATES)
