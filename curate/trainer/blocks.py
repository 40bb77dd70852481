"""Random blocks that hide parts of images, all drawn and rendered on the generator's device.

Source: group masked model learning, Atito et al. 2022, arXiv:2205.14986.
"""

import math

import torch
from torch import Tensor

from curate.feed.settings import Range


def draw_blocks(
    num_images: int, size: int, *, share: Range, side: Range, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Blocks that hide a share of each image, every pixel with the same probability.

    Args:
        size: side of an image in pixels.
        share: smallest and largest hidden share of pixels, in [0, 1); uniform over images, met on average.
        side: smallest and largest height and width of a block, share of `size`, in (0, 1].

    Returns:
        start: (2, C, n) float32, top and left of n blocks; blocks may hang over any edge.
        length: (2, C, n) float32, height and width; 0 for blocks that an image does not need.
    """
    device = generator.device
    low, high = (max(1, round(size * part)) for part in side)
    enough = math.ceil(math.log1p(-share[1]) / math.log1p(-((low / (size + low - 1)) ** 2))) + 1
    draw = torch.rand(4, num_images, enough, generator=generator, device=device)
    length = (low + draw[:2] * (high - low + 1)).floor().clamp_max(high)
    start = (draw[2:] * (size + length - 1)).floor() - (length - 1)
    # All blocks miss a pixel with the product of their probabilities to miss it, so the logs add up.
    missing = -torch.log1p(-(length / (size + length - 1)).prod(dim=0))  # (C, n)
    wanted = share[0] + (share[1] - share[0]) * torch.rand(num_images, 1, generator=generator, device=device)
    used = missing.cumsum(dim=1) - missing / 2 < -torch.log1p(-wanted)
    return start, length * used


def blocks_to_mask(start: Tensor, length: Tensor, size: int) -> Tensor:
    """(C, 1, S, S) bool: pixels in any of an image's blocks, as `draw_blocks` gives them."""
    at = torch.arange(size, device=start.device)
    begin, end = start.unsqueeze(-1), (start + length).unsqueeze(-1)
    rows, columns = ((begin <= at) & (at < end)).float()  # (C, n, S) each
    return (rows.transpose(1, 2) @ columns).unsqueeze(1) > 0


def rotate(images: Tensor, quarters: Tensor) -> Tensor:
    """Rotate each of (C, 3, S, S) by its number of quarter turns (C,), 0 to 3, counterclockwise."""
    rotated = images
    for number in (1, 2, 3):
        rotated = torch.where((quarters == number).view(-1, 1, 1, 1), images.rot90(number, dims=(2, 3)), rotated)
    return rotated
