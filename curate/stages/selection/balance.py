"""Balance: a sample of the pool that is even over its clusters."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from curate.config import Settings
from curate.ops.selection.sampling import balanced_targets, temperature_targets
from curate.stages.selection.mix import Mix

AUTO_TARGET = 0.75
"""Share of the images left that a target of auto draws."""


class Balance(Settings):
    """Draws from the pool so that clusters of every level are as even as their sizes allow."""

    target: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Images to draw, repeats included; auto: three quarters of the images left. With `mix`, the mix decides."""
    alpha: Annotated[float, Field(ge=0, le=1)] | None = None
    """Temperature: the share of a leaf follows its size to this power; 1 draws as the pool is, 0 draws equally from
    all. Null: even over the whole tree by water-filling, as Vo et al. and DINOv3 have it."""
    max_repeats: Annotated[int, Field(ge=1)] = 1
    """Times one image may be drawn. With `mix`, its own `max_repeats` counts."""
    order: Literal["random", "closest"] = "random"
    """Which images of a leaf come first: random ones, or those closest to its centroid."""

    def draws(self, sizes: np.ndarray, parents: Sequence[np.ndarray], mix: Mix | None) -> np.ndarray:
        """(K,) int64: draws of each leaf, repeats included.

        Args:
            sizes: (K,) int64, images of each leaf that may be drawn.
            parents: of the leaves and of the levels above, see `cluster_paths`.
            mix: what it says of this route comes before `target` and `max_repeats`.
        """
        target = self.target if mix is None else mix.sizes()["balance"]
        repeats = self.max_repeats if mix is None else mix.max_repeats
        assert isinstance(target, int)
        if self.alpha is not None:
            return temperature_targets(sizes, self.alpha, target, max_repeats=repeats)
        return balanced_targets(sizes * repeats, parents, target)
