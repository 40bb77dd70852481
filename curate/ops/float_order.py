"""Floats as integers of the same order, so that they can be parts of integer keys."""

import numpy as np

SIGN = np.uint32(1 << 31)


def to_ordered_integers(values: np.ndarray) -> np.ndarray:
    """(N,) uint32 in the order of (N,) float32 values; no bit is lost, and -0 comes before 0.

    The bits of positive floats are in the order of the floats already, those of negative ones in the reverse order. So
    positive ones get the sign bit, which puts them above, and of negative ones all bits are turned.
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return np.where(bits & SIGN, ~bits, bits | SIGN)


def from_ordered_integers(ordered: np.ndarray) -> np.ndarray:
    """(N,) float32 values that `to_ordered_integers` gave (N,) uint32 of."""
    bits: np.ndarray = np.where(ordered & SIGN, ordered & ~SIGN, ~ordered)
    return bits.view(np.float32)
