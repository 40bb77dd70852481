"""What networks give besides one vector an image: tokens."""

from typing import NamedTuple

from torch import Tensor


class Features(NamedTuple):
    """Tokens after the final norm."""

    cls: Tensor  # (B, D)
    registers: Tensor  # (B, R, D)
    patches: Tensor  # (B, N, D), row by row from the top left


class Needed(NamedTuple):
    """The tokens that were asked for, after the final norm."""

    cls: Tensor  # (B, D)
    patches: Tensor  # (M, D)
