"""A parameter-free descriptor of where things are: a small luma picture, high-passed and of even contrast.

24 x 24 values. Color, exposure and slow shading are taken out, so that recolored copies keep their descriptor.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLUR = 0.1
"""Standard deviation of the blur whose result is subtracted, as a share of the descriptor's side."""
RADIUS = 4
"""Values on either side of the middle that the blur takes in."""
ROUNDING = 1e-5
"""Detail of luma in 0..1 that is rounding alone: a step of 8 bits, averaged over 4 pixels, makes 1e-3."""
FLOOR = 4 / 255
"""Contrast (of luma in 0..1) below which a region counts as flat instead of being amplified."""


class LumaDescriptor(nn.Module):
    """(B, 3, 2S, 2S) RGB in 0..1 -> (B, S * S) float32, row by row; S is `side`."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.kernel: Tensor
        self.weights: Tensor
        steps = torch.arange(-RADIUS, RADIUS + 1)
        line = torch.exp(-(steps**2) / (2 * (BLUR * side) ** 2))
        kernel = torch.outer(line, line)
        self.register_buffer("kernel", (kernel / kernel.sum())[None, None], persistent=False)
        self.register_buffer("weights", torch.tensor([0.299, 0.587, 0.114])[:, None, None], persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        luma = (pixels.float() * self.weights).sum(dim=1, keepdim=True)
        small = F.avg_pool2d(luma, 2)
        detail = small - self._blur(small)
        # Of a picture of one color rounding is all that is left, which a unit vector would blow up to a pattern.
        plain = detail.abs().amax(dim=(1, 2, 3), keepdim=True) < ROUNDING
        detail = torch.where(plain, 0.0, detail)
        return (detail / (self._blur(detail**2).sqrt() + FLOOR)).flatten(1)

    def _blur(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (RADIUS,) * 4, mode="replicate"), self.kernel)  # type: ignore[arg-type]
