"""A copy-detection descriptor from the packaged EfficientNet-Lite0, for machines without SSCD's weights.

The whole picture is squeezed into the square (a crop of a copy would lose what the other copy shows); the last
feature maps are averaged over positions, and the averages are compressed by a power before they are normalised.
The power keeps the few channels that name the subject from outvoting the many that describe this very picture:
two photographs of one landmark part, two copies of one photograph stay together. `python -m benchmarks copies` measures
it beside the plain features, the mirrored average, and PDQ.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from curate.models.backbones import lite0
from curate.models.backbones.backbone import ModelInfo
from curate.ops.images.preprocess import Preprocess

MODELS = ("lite0-copy",)

POWER = 0.25
"""Of the averaged activations; on planted web edits 0.15 to 0.25 are equal, 0.5 and 1 (plain features) worse."""

PREPROCESS = Preprocess(
    size=224,
    resize="square",
    short_edge=224,
    interpolation="bicubic",
    mean=lite0.PREPROCESS.mean,
    std=lite0.PREPROCESS.std,
)


def describe(model: str, weights: str | None, *, fetch: bool) -> ModelInfo:
    """See `load.describe`; the weights are those of `lite0`."""
    known = lite0.describe(model, weights, fetch=fetch)
    return ModelInfo(
        model=model,
        dim=known.dim,
        licence=known.licence,
        preprocess=PREPROCESS,
        how_to_get=known.how_to_get,
        weights=known.weights,
    )


def build(info: ModelInfo) -> nn.Module:
    """The trunk of `lite0` under the copy head."""
    return CopyHead(lite0.build(info))


class CopyHead(nn.Module):
    """Averages and power of a trunk's last feature maps."""

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) normalised -> (B, C) float32, unit L2."""
        return copy_descriptor(self.trunk.forward_features(pixels))


def copy_descriptor(maps: Tensor) -> Tensor:
    """(B, C, H, W) rectified feature maps -> (B, C) float32, unit L2."""
    means = maps.float().mean(dim=(2, 3))  # in float32: a bf16 mean of 49 values loses two digits
    return F.normalize(means.clamp(min=0).pow(POWER), dim=1)
