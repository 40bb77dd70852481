"""The head of `lite0-copy`: from the last feature maps of a network to a descriptor for copy detection.

Feature maps are averaged over positions, and the averages are compressed by a power before they are normalized. The
power keeps the few channels that name the subject from outvoting the many that describe this very picture: two
photographs of one landmark part, two copies of one photograph stay together. `python -m benchmarks copies` measures it
beside the plain features, the mirrored average, and PDQ.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

POWER = 0.25
"""Of the averaged activations; on planted web edits 0.15 to 0.25 are equal, 0.5 and 1 (plain features) worse."""


class CopyHead(nn.Module):
    """Averages and power of a trunk's last feature maps."""

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) normalized -> (B, C) float32, unit L2."""
        return copy_descriptor(self.trunk.forward_features(pixels))


def copy_descriptor(maps: Tensor) -> Tensor:
    """(B, C, H, W) rectified feature maps -> (B, C) float32, unit L2."""
    means = maps.float().mean(dim=(2, 3))  # in float32: a bf16 mean of 49 values loses two digits
    return F.normalize(means.clamp(min=0).pow(POWER), dim=1)
