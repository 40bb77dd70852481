"""Which images touch a held-out one: by an edge, by equal bytes, or as the twin of one that does."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.stages.catalog import Parts
from curate.store import Table
from curate.tables import ROLES

HELDOUT = ROLES.index("heldout")


class ImageSet:
    """Images of the catalog, one bit each: 150 MB for 1.2 billion."""

    def __init__(self, parts: Parts) -> None:
        self._first = np.concatenate([[0], np.cumsum(parts.rows)])
        self._bits = np.zeros(int(self._first[-1]) // 8 + 1, np.uint8)

    def add(self, image_ids: np.ndarray) -> None:
        byte, bit = self._place(image_ids)
        np.bitwise_or.at(self._bits, byte, bit)

    def has(self, image_ids: np.ndarray) -> np.ndarray:
        """(N,) bool."""
        byte, bit = self._place(image_ids)
        found: np.ndarray = (self._bits[byte] & bit) > 0
        return found

    def _place(self, image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        row = self._first[image_ids >> 32] + (image_ids & 0xFFFFFFFF)
        return row >> 3, np.left_shift(1, row & 7).astype(np.uint8)


def touching_heldout(
    neighbors: Sequence[Table], images: Table, parts: Parts, *, numbers: Iterable[int] | None = None
) -> ImageSet:
    """Pool and curated images that resemble a held-out one as closely as contamination does.

    Those with an edge to a held-out image (the tables of neighbours hold none below its threshold), with the bytes
    of one, and those identical to such an image: FindNeighbors lets one image stand for all of its vector.

    Args:
        numbers: parts whose bytes are compared, a column of hashes each; None: all.
    """
    found = ImageSet(parts)
    if not (parts.role == HELDOUT).any():
        return found
    for ids in _with_bytes_of_heldout(images, parts, range(len(parts.rows)) if numbers is None else numbers):
        found.add(ids)
    for query, image, _ in _edges(neighbors):
        for one, other in ((query, image), (image, query)):
            found.add(other[(parts.role[one >> 32] == HELDOUT) & (parts.role[other >> 32] != HELDOUT)])
    for query, image, similarity in _edges(neighbors):
        twins = (parts.role[query >> 32] == parts.role[image >> 32]) & (similarity >= 1)
        for one, other in ((query[twins], image[twins]), (image[twins], query[twins])):
            found.add(other[found.has(one)])
    return found


def _edges(neighbors: Sequence[Table]) -> Iterator[tuple[np.ndarray, ...]]:
    names = ["query_id", "image_id", "similarity"]
    for rows in (rows for table in neighbors for rows in table.scan(names)):
        yield tuple(rows[name].to_numpy() for name in names)


def _with_bytes_of_heldout(images: Table, parts: Parts, numbers: Iterable[int]) -> Iterator[np.ndarray]:
    heldout = np.flatnonzero(parts.role == HELDOUT).tolist()
    hashes = [images.read(part, ["sha256"])["sha256"].drop_null() for part in heldout]
    known = pa.chunked_array([chunk for column in hashes for chunk in column.chunks], pa.binary(32)).combine_chunks()
    for part in numbers if len(known) else ():
        if parts.role[part] != HELDOUT:
            rows = images.read(part, ["image_id", "sha256"])
            same = pc.is_in(rows["sha256"], value_set=known, skip_nulls=True).to_numpy()
            yield rows["image_id"].to_numpy()[same]
