"""A digest is listed where a set of all digests holds it."""

import numpy as np
import pytest

from curate.ops.screening.exact_hashes import is_listed


@pytest.mark.parametrize("width", [16, 20, 32])
def test_listed_are_those_of_a_set(width: int) -> None:
    rng = np.random.default_rng(width)
    digests = rng.integers(0, 3, (400, width), np.uint8)
    digests[:, 2:] = 0  # many share their beginning and end with zeros, as texts do that end early
    digests = np.concatenate([digests, rng.integers(0, 256, (300, width), np.uint8)])
    listed = np.unique(digests[::2], axis=0)
    known = {row.tobytes() for row in listed}
    expected = [row.tobytes() in known for row in digests]
    assert not all(expected)
    np.testing.assert_array_equal(is_listed(listed, digests), expected)


def test_an_empty_list_holds_nothing() -> None:
    none, some = np.empty((0, 16), np.uint8), np.zeros((3, 16), np.uint8)
    assert not is_listed(none, some).any()
    assert is_listed(some[:1], none).shape == (0,)
