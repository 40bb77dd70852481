"""Multi-crop on uint8: two global and several local crops of one image, each augmented on its own.

The operators are the cheapest correct ones: torch's vectorised bicubic resize for the crop (0.34 ms to 224 px,
1.4 ms in PIL), PIL for colour and blur (2 ms, 9 ms as a convolution in torch). Crops stay uint8 and are
normalised on the device.

Source: arXiv:2304.07193; blur presets: see `CropSettings.blur`.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from curate.ops.images import decode_rgb
from curate.trainer.config import CropSettings

BLUR_PROBABILITY = {"released": (0.0, 0.9, 0.5), "paper": (1.0, 0.1, 0.5), "none": (0.0, 0.0, 0.0)}
"""Of global 1, global 2, local."""
SOLARIZE_THRESHOLD = 128
CROP_TRIES = 10


def decode(encoded: bytes) -> Tensor:
    """(3, H, W) uint8 RGB of an encoded image, as `decode_rgb` gives it and with its errors."""
    return torch.from_numpy(np.array(decode_rgb(encoded))).permute(2, 0, 1)


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
    large = []
    for i in range(num_global):
        view = crop(image, settings.global_size, scale=settings.global_scale, settings=settings, rng=rng)
        solarize = settings.solarize_probability if i == 1 else 0.0
        large.append(augment(view, settings, rng=rng, blur=blur[min(i, 1)], solarize=solarize))
    small = []
    for _ in range(settings.num_local):
        view = crop(image, settings.local_size, scale=settings.local_scale, settings=settings, rng=rng)
        small.append(augment(view, settings, rng=rng, blur=blur[2], solarize=0.0))
    side = settings.local_size
    return torch.stack(large), torch.stack(small) if small else torch.empty(0, 3, side, side, dtype=torch.uint8)


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


def draw_box(
    height: int,
    width: int,
    scale: tuple[float, float],
    aspect: tuple[float, float],
    *,
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a box, area uniform in `scale`, log aspect uniform in log `aspect`.

    After `CROP_TRIES` boxes that do not fit: the largest centred box within the aspect limits.
    """
    for _ in range(CROP_TRIES):
        area = height * width * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w = max(1, min(width, round(height * aspect[1])))
    h = max(1, min(height, round(width / aspect[0])))
    return (height - h) // 2, (width - w) // 2, h, w


def augment(view: Tensor, settings: CropSettings, *, rng: np.random.Generator, blur: float, solarize: float) -> Tensor:
    """Colour jitter, greyscale, blur, solarising of (3, S, S) uint8, each with its probability.

    The draws do not depend on which are applied, so that one changed setting leaves the other views alone.
    """
    jitter, gray, blurred, solarized = rng.random(4)
    sigma = rng.uniform(*settings.blur_sigma)
    factors, order = rng.uniform(-1.0, 1.0, size=4), rng.permutation(4)
    image = Image.fromarray(view.permute(1, 2, 0).numpy())
    if jitter < settings.jitter_probability:
        image = _jitter(image, settings, factors, order)
    if gray < settings.gray_probability:
        image = image.convert("L").convert("RGB")
    if blurred < blur:
        image = image.filter(ImageFilter.GaussianBlur(sigma))
    if solarized < solarize:
        image = ImageOps.solarize(image, threshold=SOLARIZE_THRESHOLD)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _jitter(image: Image.Image, settings: CropSettings, factors: np.ndarray, order: np.ndarray) -> Image.Image:
    """Brightness, contrast, saturation and hue in the given order; `factors` (4,) lie in -1..1."""
    strengths = (settings.brightness, settings.contrast, settings.saturation)
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for which in order:
        if which == 3:
            image = _turn_hue(image, round(255 * settings.hue * factors[3]))
        elif strengths[which] > 0:
            image = enhancers[which](image).enhance(1 + strengths[which] * factors[which])
    return image


def _turn_hue(image: Image.Image, steps: int) -> Image.Image:
    """Turn the hue by `steps` of 1/255 of a circle."""
    if steps == 0:
        return image
    hue, saturation, value = image.convert("HSV").split()
    hue = hue.point([(i + steps) % 256 for i in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")
