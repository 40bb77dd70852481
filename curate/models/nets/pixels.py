"""The pixels themselves as features of patches: what a learned feature must beat."""

import torch.nn.functional as F
from torch import Tensor, nn

from curate.models.nets.features import Features


class PixelPatches(nn.Module):
    """(B, 3, H, W) -> the values of each square of pixels; an image is the mean of its squares."""

    def __init__(self, side: int) -> None:
        """`side` is the number of pixels along a square."""
        super().__init__()
        self.reduction = side

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3 * side * side) float32."""
        return self.forward_features(images).cls

    def forward_features(self, images: Tensor) -> Features:
        """The mean square (as `cls`) and every square, (B, N, 3 * side * side), row by row from the top left."""
        patches = F.unfold(images.float(), self.reduction, stride=self.reduction).transpose(1, 2)
        return Features(patches.mean(dim=1), patches[:, :0], patches)
