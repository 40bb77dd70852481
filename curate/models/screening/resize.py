"""Pictures at the size that a detector looks at."""

import cv2
import numpy as np
from PIL import Image


def resize(picture: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 of an RGB picture, squeezed into this width and height."""
    pixels = np.asarray(picture)
    shrinks = size[0] < pixels.shape[1] or size[1] < pixels.shape[0]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
