"""SemDeDup: the images of a cluster in an order of preference, and how similar each is to one before it.

Source: Abbas et al. 2023, arXiv:2303.09540, section 3.
"""

from typing import Literal

import numpy as np

from curate.ops.random_keys import random_keys

Keep = Literal["hard", "easy", "random"]
BLOCK_ROWS = 4096
"""Rows and columns of a block of products: 64 MiB of float32."""


def preference(to_centroid: np.ndarray, image_ids: np.ndarray, *, keep: Keep, seed: int) -> np.ndarray:
    """(N,) int64: positions of a cluster's images, the one to keep first; equal ones in order of their ids.

    Args:
        to_centroid: (N,) float, cosine to the centroid.
        image_ids: (N,) int64.
        keep: hard: the farthest from the centroid first; easy: the closest; random: by `seed` and id alone.
    """
    if keep == "random":
        return np.argsort(random_keys(image_ids, seed=seed, purpose="semdedup"))
    return np.lexsort((image_ids, to_centroid if keep == "hard" else -to_centroid))


def most_similar_before(x: np.ndarray, *, block_rows: int = BLOCK_ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Find the row before each that is most similar to it; memory is that of one block of products.

    Args:
        x: (N, D) float32, unit L2, in order of preference.

    Returns:
        similarity: (N,) float32, cosine; NaN for the first row.
        row: (N,) int64, the row that is most similar, the first of equals; -1 for the first row.
    """
    similarity, found = np.full(len(x), np.nan, np.float32), np.full(len(x), -1, np.int64)
    for start in range(0, len(x), block_rows):
        rows = np.arange(start, min(start + block_rows, len(x)))
        best = np.full(len(rows), -np.inf, np.float32)
        for first in range(0, start + 1, block_rows):
            product = x[rows] @ x[first : first + block_rows].T
            if first == start:
                product[np.triu_indices(len(rows))] = -np.inf  # itself, and those after it
            nearest = product.argmax(axis=1)
            value = product[np.arange(len(rows)), nearest]
            better = value > best
            best[better], found[rows[better]] = value[better], first + nearest[better]
    later = found >= 0
    similarity[later] = np.einsum("nd,nd->n", x[later], x[found[later]])  # row by row: the same in blocks of any size
    return similarity, found
