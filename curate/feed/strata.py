"""Batches that cover the clusters of the images as evenly as a window of the order allows.

The difficulty. A batch drawn at random holds some clusters twice as often as it should and misses others, the more so
the smaller it is. What is shown, and how often, must not change, nor what makes the order of samples a pure function.

The solution deals a window like a deck of cards. The samples of a window are sorted by cluster, clusters and the
samples of each in random order, and dealt to the window's batches one after another, again and again. A run of cards of
one cluster so spreads over all batches, which get equally many of it or differ by one. A batch that reaches over the
end of a window gets a part of its samples in each; such parts are dealt to as often as they have places.
"""

import numpy as np

FACTOR = np.uint32(0x9E3779B1)
"""Multiplier of the hash of paths: 2^32 by the golden ratio, odd."""


def path_strata(offsets: np.ndarray, values: np.ndarray, level: int) -> np.ndarray:
    """The cluster of each image at a level of its path, as a number.

    Shorter paths count as they are, so that all images without a cluster are one stratum. Two paths of several steps
    may share a number, one pair in four billion; they are then dealt as one cluster.

    Args:
        offsets: (N + 1,) path i is values[offsets[i]:offsets[i + 1]], root first.
        values: steps of all paths, >= 0.
        level: steps that count, >= 1.

    Returns:
        (N,) uint32.
    """
    lengths, found = np.diff(offsets), np.zeros(len(offsets) - 1, np.uint32)
    for step in range(level):
        rows = np.flatnonzero(lengths > step)
        steps = values[offsets[rows] + step].astype(np.uint32) + np.uint32(1)
        found[rows] = found[rows] * FACTOR + steps  # modulo 2^32
    return found


def deal(strata: np.ndarray, *, start: int, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """An order of the samples of a window in which every batch covers the strata evenly.

    The counts of a stratum in two whole batches of the window differ by one at most. Samples of one batch are in random
    order, so that the parts of it that processes and passes get are even on average.

    Args:
        strata: (N,) the stratum of each sample.
        start: number of the window's first sample in its stream, which is made of whole batches.
        batch_size: samples of a batch.
        rng: draws the order of strata, of samples and of batches.

    Returns:
        (N,) int64, the sample at each place; a permutation.
    """
    number = len(strata)
    _, codes = np.unique(strata, return_inverse=True)
    ranks = rng.permutation(codes.max(initial=-1) + 1)[codes]
    cards = np.lexsort((rng.random(number), ranks))
    batches = (start + np.arange(number)) // batch_size - start // batch_size  # (N,) of each place
    sizes = np.bincount(batches)
    place = np.arange(number) - np.concatenate([[0], np.cumsum(sizes)])[batches]  # within its batch
    places = np.argsort((place + rng.random(len(sizes))[batches]) / sizes[batches], kind="stable")
    order = np.empty(number, np.int64)
    order[places] = cards
    return order[np.lexsort((rng.random(number), batches))]
