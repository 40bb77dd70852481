"""Near hashes are those that comparing with every hash finds."""

import numpy as np
import pytest

from curate.ops.images.hashes import HASH_BYTES, dihedral
from curate.ops.screening.near_hashes import BITS, NONE, NearHashes


def random_hashes(number: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (number, HASH_BYTES), np.uint8)


def changed(hashes: np.ndarray, bits: np.ndarray, seed: int = 0) -> np.ndarray:
    """Hashes with so many bits of each complemented."""
    rng = np.random.default_rng(seed)
    unpacked = np.unpackbits(hashes, axis=1)
    for row, number in zip(unpacked, bits.tolist(), strict=True):
        row[rng.choice(BITS, number, replace=False)] ^= 1
    return np.packbits(unpacked, axis=1)


def brute_force(
    listed: np.ndarray, groups: np.ndarray, queries: np.ndarray, *, radius: int, oriented: bool
) -> np.ndarray:
    """(Q, G) distances by comparing all with all."""
    forms = dihedral(queries) if oriented else queries[:, None]
    apart = np.unpackbits(listed[None, None] ^ forms[:, :, None], axis=3).sum(axis=3).min(axis=1)  # (Q, N)
    nearest = np.stack([apart[:, groups == group].min(axis=1) for group in range(groups.max() + 1)], axis=1)
    return np.where(nearest <= radius, nearest, NONE)


@pytest.mark.parametrize("oriented", [True, False])
@pytest.mark.parametrize(("number", "radius"), [(40, 31), (3000, 31), (3000, 5), (3000, 0), (3000, 40)])
def test_found_are_exactly_those_of_brute_force(number: int, radius: int, oriented: bool) -> None:
    listed = random_hashes(number)
    groups = np.arange(number) % 3
    near = listed[np.arange(90) % number]
    near = changed(near, np.arange(90) % (radius + 8))
    if oriented:
        near = dihedral(near)[np.arange(90), np.arange(90) % 8]
    queries = np.concatenate([near, random_hashes(10, seed=1)])
    found = NearHashes(listed, groups, radius=radius, oriented=oriented).find(queries)
    expected = brute_force(listed, groups, queries, radius=radius, oriented=oriented)
    assert (expected < NONE).any()
    assert (expected == NONE).any()
    np.testing.assert_array_equal(found, expected)


def test_hashes_that_agree_in_a_chunk_are_found_however_many() -> None:
    """A table of which one value holds all hashes must not lose any, nor take memory for all pairs at once."""
    listed = np.repeat(random_hashes(1), 5000, axis=0)
    listed[:, -2:] = np.arange(5000, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
    found = NearHashes(listed, np.zeros(5000, int), radius=31).find(listed[:700])
    assert (found == 0).all()


def test_no_hashes_are_near_to_none() -> None:
    none = np.empty((0, HASH_BYTES), np.uint8)
    assert NearHashes(none, np.empty(0, int), radius=31).find(random_hashes(3)).shape == (3, 0)
    assert NearHashes(random_hashes(9), np.zeros(9, int), radius=31).find(none).shape == (0, 1)


def test_a_radius_beyond_what_means_anything_is_refused() -> None:
    with pytest.raises(ValueError, match="radius=64: give 0 to 63 of 256 bits"):
        NearHashes(random_hashes(1), np.zeros(1, int), radius=64)
