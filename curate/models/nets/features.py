"""What networks give besides one vector an image: tokens."""

from typing import NamedTuple

from torch import Tensor


class Features(NamedTuple):
    """All tokens of a group of images after the final norm."""

    cls: Tensor  # (B, D)
    registers: Tensor  # (B, R, D)
    patches: Tensor  # (B, N, D), row by row from the top left


class NeededTokens(NamedTuple):
    """The tokens of a group of images that a loss reads, after the final norm."""

    cls: Tensor  # (B, D)
    patches: Tensor  # (K, D), the patches asked for
