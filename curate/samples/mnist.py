"""The bundled handwritten digits."""

import numpy as np

from curate.samples.bundled import SAMPLES


def load_mnist5k() -> tuple[np.ndarray, np.ndarray]:
    """(5000, 28, 28) uint8 digits, white on black, and (5000,) int64 labels."""
    with np.load(SAMPLES / "mnist5k.npz") as data:
        return data["images"], data["labels"].astype(np.int64)
