"""Which digests stand in a list of them."""

import numpy as np


def is_listed(listed: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """(Q,) bool: whether each digest is one of the list.

    Args:
        listed: (N, W) uint8, in ascending order of their bytes.
        queries: (Q, W) uint8.
    """
    if len(listed) == 0 or len(queries) == 0:
        return np.zeros(len(queries), bool)
    known, wanted = (_whole(rows) for rows in (listed, queries))
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    found: np.ndarray = known[place] == wanted
    return found


def _whole(rows: np.ndarray) -> np.ndarray:
    """(N,) rows as values that compare byte by byte."""
    rows = np.ascontiguousarray(rows, np.uint8)
    return rows.view(np.dtype((np.void, rows.shape[1]))).ravel()
