"""Which images resemble a held-out one: by an edge, or as the twin of an image that has one."""

from collections.abc import Iterator, Sequence

import numpy as np

from curate.engine.image_ids import Parts, part_of, row_of
from curate.engine.numbers import plural
from curate.engine.table import Table
from curate.tables import HELDOUT


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


def touching_heldout(neighbors: Sequence[Table], parts: Parts) -> ImageSet:
    """Pool and curated images that resemble a held-out one as closely as contamination does.

    Those with an edge to a held-out image (the tables of neighbors, equal bytes among them, hold none below its
    threshold), and those identical to such an image: FindNeighbors lets one image stand for all of its vector.
    """
    found = ImageSet(parts)
    if not parts.numbers(HELDOUT):
        return found
    for query, image, _ in _edges(neighbors):
        for one, other in ((query, image), (image, query)):
            found.add(other[(parts.role_of(one) == HELDOUT) & (parts.role_of(other) != HELDOUT)])
    for query, image, similarity in _edges(neighbors):
        twins = (parts.role_of(query) == parts.role_of(image)) & (similarity >= 1)
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


def _edges(neighbors: Sequence[Table]) -> Iterator[tuple[np.ndarray, ...]]:
    names = ["query_id", "image_id", "similarity"]
    for rows in (rows for table in neighbors for rows in table.scan(names)):
        yield tuple(rows[name].to_numpy() for name in names)
