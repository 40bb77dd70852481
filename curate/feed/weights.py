"""Weights of images, and whole numbers of draws that keep to them."""

from collections.abc import Mapping

import numpy as np

SHIFTS = 2**20
"""Shifts of a comb, multiples of 1 / SHIFTS: exact in float64 beside sums of billions."""
GOLDEN = 648_055
"""Odd, and about SHIFTS / 1.618."""


class Comb:
    """Systematic sampling: a constant number of draws, by weights that need not be whole, in groups of items.

    The draws of a round are the sum of the weights, rounded, and the weights are scaled to sum to it. Laid end to
    end they make a line; an item is drawn as often as a comb with one tooth a step falls on its stretch. So it is
    drawn its weight rounded down or up, whole weights exactly. Each round shifts the comb by another part of a step:
    over all `SHIFTS` rounds an item is drawn exactly by its weight, and successive shifts lie far apart, so that
    few rounds come near it. Only the sums of the groups are kept.
    """

    def __init__(self, sums: np.ndarray) -> None:
        """`sums`: (G,) sum of the weights of each group, >= 0, not all 0."""
        self.size = max(1, round(sums.sum()))
        self._scale = self.size / sums.sum()
        self._line = np.concatenate([[0.0], np.cumsum(sums) * self._scale])  # (G + 1,) where each group begins
        self._line[-1] = self.size

    def count(self, number: int, *, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """(G,) draws of each group in round `number`, and (G,) the part of a step by which its first tooth is early.

        `first`: the shift of round 0, of `SHIFTS`.
        """
        shift = (first + number * GOLDEN) % SHIFTS / SHIFTS
        teeth = np.floor(self._line + shift)
        return np.diff(teeth).astype(np.int64), (shift + self._line - teeth)[:-1]

    def pick(self, weights: np.ndarray, *, count: int, early: float) -> np.ndarray:
        """(count,) ascending indices of the items drawn from a group of these weights."""
        items = np.flatnonzero(weights)
        found = np.searchsorted(np.cumsum(weights[items]) * self._scale, np.arange(1, count + 1) - early)
        return items[np.minimum(found, len(items) - 1)]  # the last sum may be rounded to just before the last tooth


def path_weights(
    offsets: np.ndarray, values: np.ndarray, weights: Mapping[str, float]
) -> tuple[np.ndarray, frozenset[str]]:
    """The weight of each path by the longest prefix that has one, 1 without; and the prefixes that some path has.

    Args:
        offsets: (N + 1,) path i is values[offsets[i]:offsets[i + 1]].
        weights: by prefix, such as 3 or 3/7.
    """
    lengths, found, met = np.diff(offsets), np.ones(len(offsets) - 1), set()
    for name in sorted(weights, key=lambda name: name.count("/")):
        prefix = [int(part) for part in name.split("/")]
        rows = np.flatnonzero(lengths >= len(prefix))
        below = rows[(values[offsets[rows, None] + np.arange(len(prefix))] == prefix).all(axis=1)]
        found[below] = weights[name]
        met |= {name} if len(below) else set()
    return found, frozenset(met)
