"""The streams of random numbers of a training, which one seed parts."""

from enum import IntEnum

import numpy as np


def drawn(numbers: np.ndarray, share: float, *, seed: int) -> np.ndarray:
    """(N,) bool: which of (N,) sample numbers are in a share of them, 0..1; each by itself, whatever the others are.

    Source: SplitMix64, Steele et al. 2014, "Fast splittable pseudorandom number generators".
    """
    with np.errstate(over="ignore"):
        mixed = np.asarray(numbers, np.uint64) + np.uint64(seed % 2**32) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    found: np.ndarray = (mixed >> np.uint64(11)).astype(np.float64) < share * 2.0**53
    return found


class Stream(IntEnum):
    """First word of the seeds of each purpose, so that purposes draw independently.

    `np.random.default_rng([Stream.MASKS, seed, number])` draws what belongs to `number` and to nothing before it. No
    generator's state has to be saved, and a new purpose leaves all others as they are.
    """

    GROUP_ORDER = 0
    """Order of the row groups of an epoch."""
    ROW_ORDER = 1
    """Order of the samples of a window."""
    AUGMENTATION = 2
    """Crops of a sample, and how they are changed."""
    MASKS = 3
    """Patches hidden in a forward pass."""
    DROP_PATH = 4
    """Stochastic depth of a forward pass, and what objectives draw on each rank."""
    ROUNDING = 5
    """How weights that are not whole are rounded to draws."""
    HOMOGENEOUS = 6
    """Which batches show one source alone."""
    CROP_SIZES = 7
    """Sides of the crops of a batch, where several are drawn from."""
    GUIDES = 8
    """Weights of the heads that read columns of the shards."""
