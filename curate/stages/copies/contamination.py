"""Which images touch a held-out one: by an edge, or as the twin of one that does."""

from collections.abc import Iterator, Sequence

import numpy as np

from curate.engine.store import Table
from curate.stages.images.catalog import Parts
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

    def count(self, parts: Parts, role: int) -> int:
        """Images of a role."""
        numbers = np.flatnonzero(parts.role == role)
        spans = ((int(self._first[number]), int(self._first[number + 1])) for number in numbers)
        return sum(self._ones(start, stop) for start, stop in spans)

    def _ones(self, start: int, stop: int) -> int:
        bits = np.unpackbits(self._bits[start >> 3 : -(-stop // 8)], bitorder="little")
        return int(bits[start & 7 : (start & 7) + stop - start].sum())

    def has(self, image_ids: np.ndarray) -> np.ndarray:
        """(N,) bool."""
        byte, bit = self._place(image_ids)
        found: np.ndarray = (self._bits[byte] & bit) > 0
        return found

    def _place(self, image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        row = self._first[image_ids >> 32] + (image_ids & 0xFFFFFFFF)
        return row >> 3, np.left_shift(1, row & 7).astype(np.uint8)


def touching_heldout(neighbors: Sequence[Table], parts: Parts) -> ImageSet:
    """Pool and curated images that resemble a held-out one as closely as contamination does.

    Those with an edge to a held-out image (the tables of neighbours, equal bytes among them, hold none below its
    threshold), and those identical to such an image: FindNeighbors lets one image stand for all of its vector.
    """
    found = ImageSet(parts)
    if not (parts.role == HELDOUT).any():
        return found
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
