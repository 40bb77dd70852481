"""How much of the truth a search through inverted lists finds, and how many lists it must visit for that."""

import numpy as np

from curate.ops.blocks import blocks

BLOCK_ROWS = 4096
"""Pairs looked at together: K x 32 KiB of products."""


def list_rank(queries: np.ndarray, neighbors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """(E,) int64: how many lists are nearer to each query than the list that holds its neighbor.

    A search that visits more lists than this finds the neighbor.

    Args:
        queries, neighbors: (E, D) float32, unit L2; row by row a query and the vector to be found.
        centroids: (K, D) float32, unit L2, of the inverted lists; a vector lies in the list of its nearest one.
    """
    rank = np.empty(len(queries), np.int64)
    for rows in blocks(len(queries), BLOCK_ROWS):
        own = (neighbors[rows] @ centroids.T).argmax(axis=1)
        product = queries[rows] @ centroids.T
        rank[rows] = (product > np.take_along_axis(product, own[:, None], 1)).sum(axis=1)
    return rank


def choose_num_probes(rank: np.ndarray, *, target: float, most: int) -> int:
    """The fewest lists that a query must visit, 1 to `most`, so that at least `target` of the pairs are found.

    Args:
        rank: (E,) int, E >= 1, of sampled pairs, see `list_rank`.
        target: share of the pairs, 0..1; where `most` lists do not reach it, `most` is the answer.
    """
    share = np.searchsorted(np.sort(rank), np.arange(1, most + 1)) / len(rank)
    return min(most, int(np.searchsorted(share, target)) + 1)


def recall(wanted: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Share of the pairs that were found, and its standard error; a pair that is wanted twice counts twice.

    Args:
        wanted: (E, 2) int64 pairs of ids, E >= 1, that an exact search gives.
        found: (F, 2) int64 pairs of ids.
    """
    pair = np.dtype([("a", np.int64), ("b", np.int64)])
    keys = [np.ascontiguousarray(pairs, np.int64).view(pair).ravel() for pairs in (wanted, found)]
    share = float(np.isin(keys[0], np.unique(keys[1])).mean())
    return share, (share * (1 - share) / len(wanted)) ** 0.5
