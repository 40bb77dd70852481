"""The example that a vector is most like."""

import numpy as np

BLOCK_VALUES = 1 << 24
"""Cosines that are held at once: 64 MB."""


def nearest_example(vectors: np.ndarray, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest cosine to an example, and which example that is: the first of several.

    Args:
        vectors: (N, D) float32, unit L2.
        examples: (E, D) float32, unit L2, E >= 1.

    Returns:
        (N,) float32 cosines and (N,) int64 places of examples.
    """
    rows = max(1, BLOCK_VALUES // len(examples))
    cosine, place = np.empty(len(vectors), np.float32), np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), rows):
        products = vectors[start : start + rows] @ examples.T
        best = products.argmax(axis=1)
        place[start : start + rows] = best
        cosine[start : start + rows] = np.take_along_axis(products, best[:, None], axis=1)[:, 0]
    return cosine, place
