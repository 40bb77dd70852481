"""Multi-crop on uint8: two global and several local crops of one image, each augmented on its own.

The operators are the cheapest correct ones: JPEG decoded at the size that the crops need, torch's vectorised
bicubic resize, and `curate.feed.colors` with one rounding at the end, where torchvision rounds after every operator.
Crops stay uint8 and are normalised on the device.

Source: arXiv:2304.07193; blur presets: see `CropSettings.blur`.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from curate.feed.boxes import draw_box, side_for_boxes
from curate.feed.colors import gaussian_blur, jitter_colors, luma
from curate.feed.settings import CropSettings
from curate.ops.images.decode import decode_rgb

BLUR_PROBABILITY = {"released": (0.0, 0.9, 0.5), "paper": (1.0, 0.1, 0.5), "none": (0.0, 0.0, 0.0)}
"""Of global 1, global 2, local."""
SOLARIZE_THRESHOLD = 128


def decode(encoded: bytes, *, min_side: int | None = None) -> Tensor:
    """(3, H, W) uint8 RGB of an encoded image, as `decode_rgb` gives it and with its errors."""
    return torch.from_numpy(np.array(decode_rgb(encoded, min_side=min_side))).permute(2, 0, 1)


def needed_side(settings: CropSettings) -> int:
    """Pixels of an image's short side that leave every box at least as large as its crop.

    Decoded at this side or above, an image is only ever scaled down, so that its crops show all that the full
    image's would.
    """
    kinds = [(settings.global_size, settings.global_scale), (settings.local_size, settings.local_scale)]
    return max(side_for_boxes(*kind, settings.aspect) for kind in kinds[: 2 if settings.num_local else 1])


def make_crops(
    image: Tensor, settings: CropSettings, *, rng: np.random.Generator, num_global: int = 2
) -> tuple[Tensor, Tensor]:
    """The crops of one image.

    Args:
        image: (3, H, W) uint8.

    Returns:
        global crops: (num_global, 3, G, G) uint8.
        local crops: (num_local, 3, L, L) uint8.
    """
    blur = BLUR_PROBABILITY[settings.blur]
    large = torch.empty(num_global, 3, settings.global_size, settings.global_size, dtype=torch.uint8)
    for i in range(num_global):
        view = crop(image, settings.global_size, scale=settings.global_scale, settings=settings, rng=rng)
        solarize = settings.solarize_probability if i == 1 else 0.0
        large[i] = augment(view, settings, rng=rng, blur=blur[min(i, 1)], solarize=solarize)
    small = torch.empty(settings.num_local, 3, settings.local_size, settings.local_size, dtype=torch.uint8)
    for i in range(settings.num_local):
        view = crop(image, settings.local_size, scale=settings.local_scale, settings=settings, rng=rng)
        small[i] = augment(view, settings, rng=rng, blur=blur[2], solarize=0.0)
    return large, small


def crop(
    image: Tensor,
    side: int,
    *,
    scale: tuple[float, float],
    settings: CropSettings,
    rng: np.random.Generator,
) -> Tensor:
    """A random box of `image` resized to (3, side, side) bicubically, mirrored with the given probability."""
    top, left, height, width = draw_box(image.shape[1], image.shape[2], scale, settings.aspect, rng=rng)
    box = image[None, :, top : top + height, left : left + width]
    view = F.interpolate(box, (side, side), mode="bicubic", antialias=True)[0]
    return view.flip(-1) if rng.random() < settings.flip_probability else view


def augment(view: Tensor, settings: CropSettings, *, rng: np.random.Generator, blur: float, solarize: float) -> Tensor:
    """Colour jitter, greyscale, blur, solarising of (3, S, S) uint8, each with its probability.

    The draws do not depend on which are applied, so that one changed setting leaves the other views alone.
    """
    jitter, gray, blurred, solarized = rng.random(4)
    sigma = rng.uniform(*settings.blur_sigma)
    factors, order = rng.uniform(-1.0, 1.0, size=4), rng.permutation(4)
    pixels = view.to(torch.float32, memory_format=torch.contiguous_format)
    if jitter < settings.jitter_probability:
        strengths = (settings.brightness, settings.contrast, settings.saturation, settings.hue)
        pixels = jitter_colors(pixels, strengths * factors, order=order)
    if gray < settings.gray_probability:
        pixels = luma(pixels)  # one plane from here on
    if blurred < blur:
        pixels = gaussian_blur(pixels, sigma)
    values = pixels.numpy()
    view = torch.from_numpy(np.rint(values).astype(np.uint8)).expand(3, -1, -1)  # torch's own cast is 4 times slower
    return torch.where(view >= SOLARIZE_THRESHOLD, ~view, view) if solarized < solarize else view
