"""`pixels16`: the RGB values of squares of 16 pixels; it needs no weights and is the baseline of dense measures."""

from typing import TYPE_CHECKING

from curate.models.info import ModelInfo
from curate.ops.images.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import nn

MODELS = ("pixels16",)
SIDE = 16
"""Pixels along a square."""
PREPROCESS = Preprocess(
    size=224, resize="short_edge_crop", short_edge=224, interpolation="bicubic", mean=(0.5,) * 3, std=(0.25,) * 3
)


def describe(model: str, weights: str | None, *, fetch: bool) -> ModelInfo:
    """See `load.describe`; there are no weights."""
    return ModelInfo(
        model=model,
        dim=3 * SIDE * SIDE,
        license="Apache-2.0",
        preprocess=PREPROCESS,
        how_to_get="it has no weights",
        bf16=False,
        has_weights=False,
    )


def build(info: ModelInfo) -> "nn.Module":
    """The squares as a network without parameters."""
    from curate.models.nets.pixels import PixelPatches

    return PixelPatches(SIDE)
