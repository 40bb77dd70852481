"""How pairs of images are verified as copies, and what the three stages that do it share.

A cosine alone cannot tell a cropped copy from another photograph of the same castle. So the search is loose, and a
pair counts in one of two ways. Pairs of a strict cosine count as they are (`KeepNear`). Those between the loose cosine
and the strict one are doubtful: they are judged by the mean of their cosine and of the correlation of two small luma
pictures in their best alignment (`ops/copies/alignment.py`).

The difficulty is to bring both small pictures to the pair, where the pictures of all images fill no one's memory. Two
shuffles do it: `FindCandidates` sends each pair to the part of its query and adds that picture; `VerifyCopies` sends
pair and picture to the part of the other image. So a task holds the small pictures of one part of the catalog alone.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from curate.engine.image_ids import Parts
from curate.engine.table import Table
from curate.ops.vectors import VectorSpec, pack, unpack
from curate.stages.search.neighbors import Thresholded
from curate.tables import HELDOUT, NEIGHBORS

ROWS_AT_ONCE = 16_384
"""Pairs whose small pictures are unpacked together."""


def least_similarity(stage: Thresholded, pairs: pa.Table, parts: Parts) -> np.ndarray:
    """(N,) float32: the threshold of each pair, another one where its query is held out."""
    assert stage.threshold is not None
    assert stage.heldout_threshold is not None
    heldout = parts.role_of(pairs["query_id"].to_numpy()) == HELDOUT
    return np.where(heldout, stage.heldout_threshold, stage.threshold).astype(np.float32)


class SmallPictures:
    """The small pictures of one part of the catalog, by image id."""

    def __init__(self, pictures: Table, part: int) -> None:
        self.spec = VectorSpec.of(pictures.schema())
        table = pictures.read(part)
        self._vectors, rows = unpack(table["vector"], self.spec)
        self._ids = table["image_id"].to_numpy()[rows]

    def of(self, image_ids: np.ndarray) -> np.ndarray:
        """(N, D) vectors of images that all have one."""
        rows = np.searchsorted(self._ids, image_ids)
        vectors: np.ndarray = self._vectors[rows]
        return vectors


def oriented(pairs: pa.Table, parts: Parts) -> pa.Table:
    """Pairs whose query has the smaller id; held-out images, which are only queries, stay in their place.

    Either direction of a pair may be missing, where one of its images has nearer neighbors than it may list.
    """
    query, image = pairs["query_id"].to_numpy(), pairs["image_id"].to_numpy()
    swap = (parts.role_of(query) != HELDOUT) & (query > image)
    first, second = np.where(swap, image, query), np.where(swap, query, image)
    columns = [pa.array(first), pa.array(second), pairs["similarity"], pairs["kind"]]
    return pa.Table.from_arrays(columns, schema=NEIGHBORS)


def distinct_pairs(pairs: pa.Table) -> pa.Table:
    """Pairs in order of (query, image), each once though both directions and several lists found it."""
    ordered = pairs.sort_by([("query_id", "ascending"), ("image_id", "ascending"), ("similarity", "descending")])
    query, image = ordered["query_id"].to_numpy(), ordered["image_id"].to_numpy()
    first = np.ones(len(ordered), bool)
    first[1:] = (np.diff(query) != 0) | (np.diff(image) != 0)
    return ordered.filter(pa.array(first))


def with_pictures(pairs: pa.Table, lookup: SmallPictures, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Pairs in the schema of candidates: each with the small picture of its query."""
    for start in range(0, len(pairs), ROWS_AT_ONCE):
        rows = pairs.slice(start, ROWS_AT_ONCE)
        columns = [rows[name].combine_chunks() for name in ("query_id", "image_id", "similarity")]
        vectors = pack(lookup.of(rows["query_id"].to_numpy()))
        yield pa.RecordBatch.from_arrays([*columns, vectors], schema=schema)
