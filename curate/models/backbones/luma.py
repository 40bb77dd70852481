"""A parameter-free descriptor of where things are: a small luma picture, high-passed and of even contrast.

Networks say what a picture shows; two photographs of one castle show the same. Whether one picture is a copy of the
other is told by laying one over the other (`ops/copies/alignment.py`), for which 24 x 24 values are enough. Color,
exposure and slow shading are taken out, so that recoloured copies keep their descriptor.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curate.models.backbones.backbone import ModelInfo
from curate.ops.images.preprocess import Preprocess

MODELS = ("luma24",)
SIDE = 24
"""Values along a side of the descriptor."""
SIGMA = 0.1 * SIDE
"""Standard deviation of the blur whose result is taken off, in values."""
RADIUS = 4
FLOOR = 4 / 255
"""Contrast (of luma in 0..1) below which a region counts as flat instead of being amplified."""
PREPROCESS = Preprocess(
    size=2 * SIDE,
    resize="square",
    short_edge=2 * SIDE,
    interpolation="bilinear",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)


def describe(model: str, weights: str | None, *, fetch: bool) -> ModelInfo:
    """See `load.describe`; there are no weights."""
    return ModelInfo(
        model=model,
        dim=SIDE * SIDE,
        licence="Apache-2.0",
        preprocess=PREPROCESS,
        how_to_get="it has no weights",
        bf16=False,
        has_weights=False,
    )


def build(info: ModelInfo) -> nn.Module:
    return Luma()


class Luma(nn.Module):
    """(B, 3, 48, 48) RGB in 0..1 -> (B, 576) float32, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel: Tensor
        self.weights: Tensor
        steps = torch.arange(-RADIUS, RADIUS + 1)
        line = torch.exp(-(steps**2) / (2 * SIGMA**2))
        kernel = torch.outer(line, line)
        self.register_buffer("kernel", (kernel / kernel.sum())[None, None], persistent=False)
        self.register_buffer("weights", torch.tensor([0.299, 0.587, 0.114])[:, None, None], persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        luma = (pixels.float() * self.weights).sum(dim=1, keepdim=True)
        small = F.avg_pool2d(luma, 2)
        detail = small - self._blur(small)
        return (detail / (self._blur(detail**2).sqrt() + FLOOR)).flatten(1)

    def _blur(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (RADIUS,) * 4, mode="replicate"), self.kernel)  # type: ignore[arg-type]
