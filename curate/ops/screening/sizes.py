"""At which size a detector looks at a picture: sides that are multiples of 32, nearly as the picture is."""

import math

MULTIPLE = 32
"""What the sides of the input of these networks are multiples of."""
ENLARGED = 1.5
"""Times that a picture is enlarged at most: more shows nothing new."""
MAX_ASPECT = 8
"""Ratio of the sides above which the long one is squeezed: what is longer would cost as much as many pictures."""


def fit_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height at which a picture is looked at, its short side about `side`."""
    short = min(size)
    scale = min(side / short, ENLARGED)
    width, height = (min(length, MAX_ASPECT * short) * scale for length in size)
    return _multiple(width), _multiple(height)


def decode_side(side: int) -> int:
    """Pixels of the short side that decoding must keep for a detector that looks at `side`."""
    return math.ceil(side / ENLARGED)


def _multiple(length: float) -> int:
    return max(1, math.ceil(length / MULTIPLE)) * MULTIPLE
