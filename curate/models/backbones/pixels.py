"""`pixels16`: the RGB values of squares of 16 pixels; it needs no weights and is the baseline of dense measures."""

from typing import TYPE_CHECKING

from curate.models.conventions import CONVENTIONS, preprocess_of
from curate.models.info import ModelInfo

if TYPE_CHECKING:
    from torch import nn

MODELS = ("pixels16",)
SIDE = 16
"""Pixels along a square."""


def describe(model: str, weights: str | None, *, fetch: bool) -> ModelInfo:
    """See `load.describe`; there are no weights."""
    return ModelInfo(
        model=model,
        dim=3 * SIDE * SIDE,
        license="Apache-2.0",
        preprocess=preprocess_of(model),
        pooling=CONVENTIONS[model].pooling,
        how_to_get="it has no weights",
        bf16=False,
        has_weights=False,
    )


def build(info: ModelInfo) -> "nn.Module":
    """The squares as a network without parameters."""
    from curate.models.nets.pixels import PixelPatches

    return PixelPatches(SIDE)
