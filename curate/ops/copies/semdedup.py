"""SemDeDup: the images of a cluster in an order of preference, and how alike each is to one before it.

Source: Abbas et al. 2023, arXiv:2303.09540, section 3.
"""

from typing import Literal

import numpy as np

from curate.ops.random_keys import random_keys

Keep = Literal["hard", "easy", "random"]
BLOCK_ROWS = 4096
"""Rows of a block of products: 64 MB of float32."""


def preference(to_centroid: np.ndarray, image_ids: np.ndarray, *, keep: Keep, seed: int) -> np.ndarray:
    """(N,) int64: the images of a cluster, the one to keep first; equal ones by id.

    Args:
        to_centroid: (N,) cosine to the centroid.
        keep: hard: the farthest from the centroid first; easy: the closest; random: by `seed` and id alone.
    """
    if keep == "random":
        return np.argsort(random_keys(image_ids, seed=seed, purpose="semdedup"))
    return np.lexsort((image_ids, to_centroid if keep == "hard" else -to_centroid))


def most_alike_before(x: np.ndarray, *, block_rows: int = BLOCK_ROWS) -> tuple[np.ndarray, np.ndarray]:
    """The largest cosine of each row to a row before it; memory is that of one block of products.

    Args:
        x: (N, D) float32, unit L2, in order of preference.

    Returns:
        similarity: (N,) float32; nan for the first row.
        place: (N,) int64, the row it belongs to, the first of equals; -1 for the first row.
    """
    similarity, place = np.full(len(x), np.nan, np.float32), np.full(len(x), -1, np.int64)
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
            best[better], place[rows[better]] = value[better], first + nearest[better]
    found = place >= 0
    similarity[found] = np.einsum("nd,nd->n", x[found], x[place[found]])  # row by row: the same in blocks of any size
    return similarity, place
