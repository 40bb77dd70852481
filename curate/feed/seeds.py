"""The streams of random numbers of a training, which one seed parts."""

from enum import IntEnum


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
