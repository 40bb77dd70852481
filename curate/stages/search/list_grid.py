"""Inverted lists that are too large for one task, stored as several.

The difficulty: a picture with a million copies makes a list of a million vectors, and its queries are as many. Cutting
the list by rows alone would leave every piece with all queries. So a list is stored as a grid of S x S lists: each of
its vectors belongs to one row of the grid and is stored in all S lists of that row, each of its queries belongs to one
column and is sent to all S lists of that column. A vector and a query then meet in exactly one list, which holds the
S-th part of either. Row and column follow from a random key of the image, the same for both.
"""

from typing import NamedTuple, Self

import numpy as np

from curate.ops.random_keys import random_keys


class ListGrid(NamedTuple):
    """Numbers of the lists that are stored: one for most centroids, S x S for those of large lists."""

    first: np.ndarray
    """(K,) int64, number of the first list of each centroid"""
    size: np.ndarray
    """(K,) int64, S >= 1"""

    @classmethod
    def of(cls, size: np.ndarray) -> Self:
        """The grids of these sizes, one after the other."""
        return cls(np.cumsum(size**2) - size**2, size)

    @property
    def num_lists(self) -> int:
        """Lists in all."""
        return int((self.size**2).sum())

    def stored(self, centroids: np.ndarray, image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places and lists, (M,) int64 each, of every list that stores an image.

        Args:
            centroids: (N,) int, the centroid of each image.
            image_ids: (N,) int64.
        """
        places, column = self._repeat(centroids)
        of = centroids[places]
        return places, self.first[of] + self._line(centroids, image_ids)[places] * self.size[of] + column

    def queried(self, centroids: np.ndarray, image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places and lists, (M,) int64 each, of every list that an image is sent to as a query.

        Args:
            centroids: (N, P) int, the centroids whose lists each image probes.
            image_ids: (N,) int64.
        """
        asking, flat = np.repeat(np.arange(len(centroids)), centroids.shape[1]), centroids.ravel()
        places, row = self._repeat(flat)
        of, column = flat[places], self._line(flat, image_ids[asking])[places]
        return asking[places], self.first[of] + row * self.size[of] + column

    def meeting(self, centroids: np.ndarray, image_ids: np.ndarray) -> np.ndarray:
        """(N,) int64: the list in which each image, stored under its centroid (N,), would meet itself as a query."""
        return self.first[centroids] + self._line(centroids, image_ids) * (self.size[centroids] + 1)

    def _line(self, centroids: np.ndarray, image_ids: np.ndarray) -> np.ndarray:
        """(N,) int64 in 0..S-1: row of each image where it is stored, and column where it is a query."""
        key = random_keys(image_ids, seed=0, purpose="deal")
        return (key % self.size[centroids].astype(np.uint64)).astype(np.int64)

    def _repeat(self, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each place in `centroids` (N,) S times, with the numbers 0..S-1."""
        count = self.size[centroids]
        places = np.repeat(np.arange(len(centroids)), count)
        return places, np.arange(len(places)) - np.repeat(np.cumsum(count) - count, count)
