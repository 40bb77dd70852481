"""Systematic sampling: a fixed number of draws by weights, the same number in every round."""

import numpy as np

SHIFTS = 2**20
"""Number of different starts; they are multiples of 1 / SHIFTS, exact in float64 beside sums of billions."""
GOLDEN = 648_055
"""Step from one round's start to the next's, of SHIFTS: odd, so that all starts come, and near SHIFTS / 1.618, so that
successive ones lie far apart."""


class SystematicSampling:
    """Draws items, which lie in groups, about as often as their weights say, which need not be whole.

    Laid end to end, the weights make a line, scaled to a whole length. Points at distance 1 fall on it, and an item is
    drawn once for each point on its stretch: its weight rounded down or up, and whole weights exactly. Every round
    starts the points at another place. Over all `SHIFTS` rounds an item is drawn exactly by its weight, and a few
    rounds already come near it. Independent draws would keep to the weights on average alone, and an epoch of all
    weights 1 would miss 37 % of the images. Only the sums of the groups are kept.

    Source: Madow 1949, "On the theory of systematic sampling, II".
    """

    def __init__(self, sums: np.ndarray) -> None:
        """`sums`: (G,) sum of the weights of each group, >= 0, not all 0."""
        self.size = max(1, round(sums.sum()))
        """Draws of a round: the sum of all weights, rounded."""
        self._scale = self.size / sums.sum()
        self._line = np.concatenate([[0.0], np.cumsum(sums) * self._scale])  # (G + 1,) where each group begins
        self._line[-1] = self.size

    def count(self, number: int, *, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Draws of each group in round `number`.

        Args:
            first: start of round 0, of `SHIFTS`.

        Returns:
            counts: (G,) int64.
            phases: (G,) in [0, 1), how far before the group's beginning the last point lies.
        """
        shift = (first + number * GOLDEN) % SHIFTS / SHIFTS
        points = np.floor(self._line + shift)
        return np.diff(points).astype(np.int64), (shift + self._line - points)[:-1]

    def pick(self, weights: np.ndarray, *, count: int, phase: float) -> np.ndarray:
        """(count,) ascending indices of the items drawn from a group of these weights, with both of its figures."""
        items = np.flatnonzero(weights)
        found = np.searchsorted(np.cumsum(weights[items]) * self._scale, np.arange(1, count + 1) - phase)
        return items[np.minimum(found, len(items) - 1)]  # the last sum may be rounded to just before the last point
