"""Images of equal bytes, as few edges as tell the groups."""

import numpy as np

from curate.tables import CURATED, HELDOUT, POOL


def equal_bytes(
    image_ids: np.ndarray, sha256: np.ndarray, *, role: np.ndarray, rank: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of equal bytes: each image to one of its digest, a star and not a clique.

    Pool images go to the one of lowest source rank, then smallest id, which would stand for them; pool and held-out,
    pool and curated, curated and held-out images to the outside image of smallest id.

    Args:
        image_ids: (N,) int64.
        sha256: (N, 32) uint8.
        role: (N,) int8, index into `tables.ROLES`.
        rank: (N,) int, place of the source in the config.

    Returns:
        query_ids, image_ids: (E,) int64; of pairs with a held-out image that one asks.
    """
    digests = np.ascontiguousarray(sha256).view("S32")[:, 0]
    _, code = np.unique(digests, return_inverse=True)
    order = np.lexsort((image_ids, np.where(role == POOL, rank, 0)))[::-1]
    asking, answering = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for other, center in ((POOL, POOL), (POOL, CURATED), (POOL, HELDOUT), (CURATED, HELDOUT)):
        first = np.full(len(digests), -1, np.int64)
        centers = order[role[order] == center]
        first[code[centers]] = image_ids[centers]  # the last write wins: the preferred one
        rows = np.flatnonzero(role == other)
        target = first[code[rows]]
        real = (target >= 0) & (target != image_ids[rows])
        query, image = image_ids[rows[real]], target[real]
        asking.append(image if center == HELDOUT else query)
        answering.append(query if center == HELDOUT else image)
    return np.concatenate(asking), np.concatenate(answering)
