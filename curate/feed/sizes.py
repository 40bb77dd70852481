"""The sides of the crops of each batch: fixed, or drawn by probability from the seed and the number of the batch."""

from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from curate.feed.seeds import Stream
from curate.feed.settings import CropSettings


class Sides(NamedTuple):
    """Sides of the crops of a batch, in pixels."""

    global_size: int
    local_size: int
    gram_size: int | None = None
    """Of the crops that the Gram teacher sees; None: there are none."""
    probability: float = 1.0
    """How often these are drawn beside others, in any unit."""


@dataclass(frozen=True)
class SizePlan:
    """Batch number -> the sides of its crops; a pure function, so that any process may ask for any batch."""

    starts: tuple[int, ...]
    """First batches of the stretches, from 0, rising."""
    choices: tuple[tuple[Sides, ...], ...]
    """What the batches of each stretch draw from."""
    seed: int = 0

    @classmethod
    def fixed(cls, settings: CropSettings) -> "SizePlan":
        """The sides that the settings name, in every batch."""
        return cls((0,), ((Sides(settings.global_size, settings.local_size),),))

    def at(self, batch: int) -> Sides:
        """The sides of batch number `batch`, counted from 0."""
        choices = self.choices[bisect_right(self.starts, batch) - 1]
        if len(choices) == 1:
            return choices[0]
        weights = np.array([one.probability for one in choices])
        drawn = np.random.default_rng([Stream.CROP_SIZES, self.seed, batch]).choice(
            len(choices), p=weights / weights.sum()
        )
        return choices[int(drawn)]
