"""Keys that put images in a random order which their ids and a seed alone decide."""

import zlib

import numpy as np

GAMMA, MIX_1, MIX_2 = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def random_keys(image_ids: np.ndarray, *, seed: int, purpose: str) -> np.ndarray:
    """(N,) uint64 that look random, never equal for two ids; another purpose gives an independent order.

    Source: the mixing function of SplitMix64 (Steele, Lea, Flood 2014), which maps 64 bits one to one.
    """
    start = np.random.SeedSequence([seed, zlib.crc32(purpose.encode())]).generate_state(1, np.uint64)[0]
    x = image_ids.astype(np.uint64) * GAMMA + start
    x = (x ^ (x >> np.uint64(30))) * MIX_1
    x = (x ^ (x >> np.uint64(27))) * MIX_2
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed


def nearest_keys(similarity: np.ndarray, image_ids: np.ndarray, *, seed: int, purpose: str) -> np.ndarray:
    """(N,) uint64 that put the most similar first, equal ones at random; of `similarity` no bit is lost."""
    bits = (similarity.astype(np.float32) + np.float32(0)).view(np.uint32)  # +0: the two zeros are one
    ascending = np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31))  # float order as integer order
    chance = random_keys(image_ids, seed=seed, purpose=purpose) >> np.uint64(32)
    return (~ascending).astype(np.uint64) << np.uint64(32) | chance
