"""How many distinct things a set of vectors shows."""

import numpy as np

from curate.ops.entropy import effective_number


def vendi_score(x: np.ndarray) -> float:
    """Effective number of distinct vectors, 1..N: exp of the entropy of the eigenvalues of X X^T / N.

    The eigenvalues of X^T X / N are the same but for zeros, so D x D values are enough. Only scores of sets of equal N
    compare.

    Args:
        x: (N, D) float32, unit L2, N >= 1.

    Source: Friedman and Dieng 2023, arXiv:2210.02410, with the cosine as kernel.
    """
    x = x.astype(np.float64)
    return effective_number(np.maximum(np.linalg.eigvalsh(x.T @ x / len(x)), 0))
