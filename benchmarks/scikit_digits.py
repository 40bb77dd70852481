"""The 1,797 handwritten digits of 8 x 8 pixels in scikit-learn (UCI, CC BY 4.0)."""

import numpy as np


def load_scikit_digits() -> tuple[np.ndarray, np.ndarray]:
    """(N, 8, 8, 3) uint8 pictures and (N,) int64 labels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    gray = np.round(found.images * (255 / 16)).astype(np.uint8)  # of 0 to 16
    return np.repeat(gray[..., None], 3, axis=3), found.target.astype(np.int64)
