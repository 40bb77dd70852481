"""`luma24`: a fixed descriptor of where things are in a picture; it needs no weights, so dry runs take it."""

from typing import TYPE_CHECKING

from curate.models.conventions import CONVENTIONS, preprocess_of
from curate.models.info import ModelInfo

if TYPE_CHECKING:
    from torch import nn

MODELS = ("luma24",)
SIDE = 24
"""Values along a side of the descriptor."""


def describe(model: str, weights: str | None, *, fetch: bool) -> ModelInfo:
    """See `load.describe`; there are no weights."""
    return ModelInfo(
        model=model,
        dim=SIDE * SIDE,
        license="Apache-2.0",
        preprocess=preprocess_of("luma"),
        pooling=CONVENTIONS["luma"].pooling,
        how_to_get="it has no weights",
        bf16=False,
        has_weights=False,
    )


def build(info: ModelInfo) -> "nn.Module":
    """The descriptor as a network without parameters."""
    from curate.models.nets.luma import LumaDescriptor

    return LumaDescriptor(SIDE)
