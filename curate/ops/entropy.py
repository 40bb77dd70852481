"""How evenly images spread over categories or clusters."""

import numpy as np


def normalized_entropy(counts: np.ndarray) -> float:
    """Entropy of the shares of K categories, divided by ln K: 1 is even, 0 is all in one.

    Args:
        counts: (K,) images per category, >= 0. Give absent categories as zeros: two samples compare only
            over the same K. With K = 1 the answer is 1, as nothing is uneven.

    Raises:
        ValueError: a negative count, or no image at all.
    """
    return float(_shannon_entropy(counts) / np.log(len(counts))) if len(counts) > 1 else float(_shares(counts)[0])


def effective_number(counts: np.ndarray) -> float:
    """exp(entropy): the number of equally frequent categories that would be as diverse, 1..K.

    Args:
        counts: (K,) images per category, or any weights >= 0.

    Raises:
        ValueError: a negative count, or no image at all.

    Source: Hill 1973, diversity number of order 1.
    """
    return float(np.exp(_shannon_entropy(counts)))


def _shannon_entropy(counts: np.ndarray) -> float:
    """In nats, of the shares of the categories that hold any image."""
    shares = _shares(counts)
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def _shares(counts: np.ndarray) -> np.ndarray:
    """(K,) float64, sums to 1."""
    counts = np.asarray(counts, dtype=np.float64)
    if counts.size and counts.min() < 0:
        raise ValueError(f"counts: {counts.min():g} is negative; counts are images per category")
    if counts.sum() == 0:
        raise ValueError("counts: no image in any category; entropy needs at least one")
    return counts / counts.sum()
