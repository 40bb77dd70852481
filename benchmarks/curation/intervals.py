"""What curated sets gain over a random one, with paired confidence intervals.

All arms of a seed start from the same weights and are asked for the same pictures, so differences are taken picture by
picture and seed by seed. Both are a sample: of pools and trainings, and of pictures. A bootstrap draws both anew, seeds
and pictures, which is conservative where one of them hardly matters.

Source: Owen 2007, The pigeonhole bootstrap.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.curation.cells import Cell

BOOTSTRAPS = 4000
CONFIDENCE = 0.95


class Gain(NamedTuple):
    """By how much one arm is better than another."""

    value: float
    low: float
    """Lower end of the confidence interval."""
    high: float
    num_seeds: int
    better: int
    """Seeds in which it is better."""

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def paired_gain(first: Sequence[Cell], second: Sequence[Cell], readout: str) -> Gain:
    """The second arm minus the first, cell by cell of the same seeds; NaN intervals of a single seed."""
    difference = np.stack([b.right(readout) - a.right(readout) for a, b in zip(first, second, strict=True)])  # (R, T)
    by_seed = difference.mean(axis=1)
    num_seeds = len(by_seed)
    better = int((by_seed > 0).sum())
    if num_seeds < 2:
        return Gain(float(by_seed.mean()), np.nan, np.nan, num_seeds, better)
    rng = np.random.default_rng(0)
    seeds, asked = (rng.multinomial(num, np.full(num, 1 / num), BOOTSTRAPS) / num for num in difference.shape)
    draws = ((seeds @ difference) * asked).sum(axis=1)
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Gain(float(by_seed.mean()), float(low), float(high), num_seeds, better)
