"""How much of the truth a search through inverted lists finds, and how many lists it must look into."""

import numpy as np

from curate.ops.blocks import blocks

BLOCK_ROWS = 4096


def rank_of_home(asking: np.ndarray, found: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """(E,) int64: how many lists are nearer to the asking vector than the home of the one to be found.

    Args:
        asking, found: (E, D) float32, unit L2.
        centroids: (K, D) float32, unit L2, of the lists.
    """
    rank = np.empty(len(found), np.int64)
    for rows in blocks(len(found), BLOCK_ROWS):
        home = (found[rows] @ centroids.T).argmax(axis=1)
        product = asking[rows] @ centroids.T
        rank[rows] = (product > np.take_along_axis(product, home[:, None], 1)).sum(axis=1)
    return rank


def probes_for(rank: np.ndarray, *, target: float, most: int) -> int:
    """The fewest lists to look into, 1 to `most`, so that at least `target` of the pairs are found.

    Args:
        rank: (E,) int, E >= 1, lists that are nearer to the query than the one that holds the answer.
    """
    share = np.searchsorted(np.sort(rank), np.arange(1, most + 1)) / len(rank)
    return min(most, int(np.searchsorted(share, target)) + 1)


def recall(wanted: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Share of the pairs that were found, and its standard error; a pair that is wanted twice counts twice.

    Args:
        wanted: (E, 2) int64 pairs of ids, E >= 1.
        found: (F, 2) int64 pairs of ids.
    """
    pair = np.dtype([("a", np.int64), ("b", np.int64)])
    keys = [np.ascontiguousarray(pairs, np.int64).view(pair).ravel() for pairs in (wanted, found)]
    share = float(np.isin(keys[0], np.unique(keys[1])).mean())
    return share, (share * (1 - share) / len(wanted)) ** 0.5
