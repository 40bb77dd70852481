"""Keys that put images in a random order which their ids and a seed alone decide.

A draw is then "the images of smallest key", and stays the same whatever parts, batches or processes see the images, in
whatever order; an image that is added or removed moves no other. Numbers from a generator would depend on all of that.
"""

import zlib

import numpy as np

from curate.ops.float_order import to_ordered_integers

GAMMA, MIX_1, MIX_2 = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def random_keys(image_ids: np.ndarray, *, seed: int, purpose: str) -> np.ndarray:
    """(N,) uint64 that look random, and are never equal for two ids.

    Args:
        image_ids: (N,) int64.
        purpose: what is drawn; another purpose gives an independent order under the same seed.

    Source: the mixing function of SplitMix64 (Steele, Lea, Flood 2014), which maps 64 bits one to one.
    """
    start = np.random.SeedSequence([seed, zlib.crc32(purpose.encode())]).generate_state(1, np.uint64)[0]
    x = image_ids.astype(np.uint64) * GAMMA + start
    x = (x ^ (x >> np.uint64(30))) * MIX_1
    x = (x ^ (x >> np.uint64(27))) * MIX_2
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed


def nearest_keys(similarity: np.ndarray, image_ids: np.ndarray, *, seed: int, purpose: str) -> np.ndarray:
    """(N,) uint64 that put the most similar image first, and equally similar ones in random order.

    Args:
        similarity: (N,) float; its float32 value fills the upper half of the key.
        image_ids: (N,) int64; the upper half of their random keys fills the lower half.
        purpose: as in `random_keys`.
    """
    ascending = to_ordered_integers(similarity.astype(np.float32) + np.float32(0))  # +0: the two zeros are one
    chance = random_keys(image_ids, seed=seed, purpose=purpose) >> np.uint64(32)
    return (~ascending).astype(np.uint64) << np.uint64(32) | chance
