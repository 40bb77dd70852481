"""Multi-crop on uint8: two global and several local crops of one image, each augmented on its own.

The operators are the cheapest correct ones: JPEG decoded at the size that the crops need, torch's vectorized
bicubic resize, and `curate.feed.colors` with one rounding at the end, where torchvision rounds after every operator.
Crops stay uint8 and are normalized on the device.

Source: arXiv:2304.07193; blur presets: see `CropSettings.blur`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from curate.feed.colors import gaussian_blur, jitter_colors, luma
from curate.feed.settings import CropSettings, Range
from curate.feed.sizes import Sides
from curate.ops.images.bounds import Bounds
from curate.ops.images.decoding import decode_pixels
from curate.ops.images.depth import SignificantBits

NUM_GLOBAL_CROPS = 2
"""Global crops of an image."""
BLUR_PROBABILITY = {"released": (0.0, 0.9, 0.5), "paper": (1.0, 0.1, 0.5), "none": (0.0, 0.0, 0.0)}
"""Of the first global, the second global, and a local crop."""
SOLARIZE_THRESHOLD = 128
BOX_TRIES = 10
"""Boxes that are drawn until one fits into the image."""


class Crops(NamedTuple):
    """The crops of B images, views before images; uint8 from the feed, normalized float32 for the objectives."""

    global_crops: Tensor  # (2 * B, 3, G, G): the first global crop of all images, then the second
    local_crops: Tensor  # (L * B, 3, S, S); L may be 0
    gram: Tensor | None = None
    """(2 * B, 3, H, H), H >= G: the boxes of `global_crops` at a larger side and without changes of color, which the
    Gram teacher sees; None: the iteration has no Gram loss."""
    images: Tensor | None = None
    """(B,) int64: which image it is, as the number of its row in all shards; None: crops of no shards."""

    @property
    def num_images(self) -> int:
        """B, the number of images."""
        return len(self.global_crops) // NUM_GLOBAL_CROPS

    def map(self, change: Callable[[Tensor], Tensor]) -> "Crops":
        """The crops with `change` applied to each group of pixels that is there."""
        gram = None if self.gram is None else change(self.gram)
        return Crops(change(self.global_crops), change(self.local_crops), gram, self.images)

    @property
    def groups(self) -> list[Tensor]:
        """The student's groups of crops of one size: the global ones, then the local ones where there are any."""
        return [self.global_crops, self.local_crops] if len(self.local_crops) else [self.global_crops]


def decode_tensor(
    encoded: bytes,
    *,
    min_side: int | None = None,
    bounds: Bounds | None = None,
    significant_bits: SignificantBits = "auto",
) -> Tensor:
    """(3, H, W) uint8 RGB of an encoded image, as `decode_pixels` gives it and with its errors."""
    pixels = decode_pixels(encoded, min_side=min_side, bounds=bounds, significant_bits=significant_bits)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def needed_side(settings: CropSettings, sides: Sides | None = None) -> int:
    """Pixels of an image's short side that leave every box at least as large as its crop.

    Decoded at this side or above, an image is only ever scaled down, so that its crops show all that the full
    image's would.

    Args:
        sides: those of the batch; None: those of the settings.
    """
    sides = sides or Sides(settings.global_size, settings.local_size)
    kinds = [(sides.gram_size or sides.global_size, settings.global_scale), (sides.local_size, settings.local_scale)]
    return max(_side_for_boxes(*kind, settings.aspect) for kind in kinds[: 2 if settings.num_local else 1])


def _side_for_boxes(side: int, scale: Range, aspect: Range) -> int:
    """Pixels of an image's short side from which on no box that `draw_box` draws has a side below `side`."""
    narrowest = min(aspect[0], 1 / aspect[1], 1.0)  # (short side)^2 / area of a box
    return math.ceil((side + 0.5) / math.sqrt(scale[0] * narrowest))


def make_crops(image: Tensor, settings: CropSettings, *, rng: np.random.Generator, sides: Sides | None = None) -> Crops:
    """The crops of one image.

    Args:
        image: (3, H, W) uint8.
        sides: those of the batch; None: those of the settings.
    """
    sides = sides or Sides(settings.global_size, settings.local_size)
    blur = BLUR_PROBABILITY[settings.blur]
    global_crops = torch.empty(NUM_GLOBAL_CROPS, 3, sides.global_size, sides.global_size, dtype=torch.uint8)
    large: list[Tensor] = []
    for i in range(NUM_GLOBAL_CROPS):
        side = sides.gram_size or sides.global_size
        view = crop(image, side, scale=settings.global_scale, settings=settings, rng=rng)
        if sides.gram_size is not None:  # one box for both teachers: the student's crop is the larger one, reduced
            large.append(view)
            view = resize(view, sides.global_size)
        solarize = settings.solarize_probability if i == 1 else 0.0
        global_crops[i] = augment(view, settings, rng=rng, blur=blur[i], solarize=solarize)
    local_crops = torch.empty(settings.num_local, 3, sides.local_size, sides.local_size, dtype=torch.uint8)
    for i in range(settings.num_local):
        view = crop(image, sides.local_size, scale=settings.local_scale, settings=settings, rng=rng)
        local_crops[i] = augment(view, settings, rng=rng, blur=blur[2], solarize=0.0)
    return Crops(global_crops, local_crops, torch.stack(large) if large else None)


def crop(image: Tensor, side: int, *, scale: Range, settings: CropSettings, rng: np.random.Generator) -> Tensor:
    """A random box of `image` resized to (3, side, side) bicubically, mirrored with the given probability."""
    top, left, height, width = draw_box(image.shape[1], image.shape[2], scale, settings.aspect, rng=rng)
    view = resize(image[:, top : top + height, left : left + width], side)
    return view.flip(-1) if rng.random() < settings.flip_probability else view


def resize(view: Tensor, side: int) -> Tensor:
    """(3, H, W) uint8 to (3, side, side), bicubically."""
    return F.interpolate(view[None], (side, side), mode="bicubic", antialias=True)[0]


def draw_box(
    height: int, width: int, scale: Range, aspect: Range, *, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """A box as torchvision's RandomResizedCrop draws it: area uniform in `scale`, log aspect uniform in log `aspect`.

    After `BOX_TRIES` boxes that do not fit: the largest centered box within the aspect limits.

    Returns:
        (top, left, height, width) in pixels.
    """
    for _ in range(BOX_TRIES):
        area = height * width * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w = max(1, min(width, round(height * aspect[1])))
    h = max(1, min(height, round(width / aspect[0])))
    return (height - h) // 2, (width - w) // 2, h, w


def augment(view: Tensor, settings: CropSettings, *, rng: np.random.Generator, blur: float, solarize: float) -> Tensor:
    """Color jitter, grayscale, blur and solarizing of (3, S, S) uint8, each with its probability.

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
