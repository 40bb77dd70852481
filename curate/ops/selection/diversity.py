"""How diverse a set of vectors is."""

import numpy as np

from curate.ops.entropy import effective_number


def vendi_score(x: np.ndarray) -> float:
    """Effective number of distinct vectors, 1..N: exp of the entropy of the eigenvalues of X X^T / N.

    These are the eigenvalues of X^T X / N, and zeros, so that D x D values are enough. Scores compare only between sets
    of equal N.

    Args:
        x: (N, D) float32, unit L2, N >= 1.

    Source: Friedman and Dieng 2023, arXiv:2210.02410, with the cosine as kernel.
    """
    x = x.astype(np.float64)
    return effective_number(np.maximum(np.linalg.eigvalsh(x.T @ x / len(x)), 0))
