"""Random boxes of a picture, as cropping to a share of its area draws them."""

import math

import numpy as np

CROP_TRIES = 10


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


def side_for_boxes(side: int, scale: tuple[float, float], aspect: tuple[float, float]) -> int:
    """Pixels of a picture's short side from which on no box that `draw_box` draws has a side below `side`."""
    narrowest = min(aspect[0], 1 / aspect[1], 1.0)  # (short side)^2 / area of a box
    return math.ceil((side + 0.5) / math.sqrt(scale[0] * narrowest))
