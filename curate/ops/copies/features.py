"""Local features of a picture: what it takes to lay it over another one, once a picture.

SIFT finds points that can be found again after scaling, turning and cropping, and describes what lies around each. Of
its mirror image nothing new must be computed: mirroring a picture keeps the direction along a point's orientation and
turns the one across it, which swaps the rows of the 4 x 4 cells of its descriptor and negates the directions within.

The picture is kept beside them at 320 pixels, so that nothing is decoded again. What an image takes is written once
and sent to each of its pairs, so it is kept small: values of descriptors in 16 steps, two to a byte, and the picture
as a JPEG of middling quality. In a table that is 17 kB, of which the picture takes 10. With 256 steps and quality 90 it
was 35 kB, and found no more: of 2,256 planted copies that nothing but a registration tells, 94.5 % now, 94.7 % then (15
lost, 9 won), at one false pair of 1,000 (two draws of the pictures of `python -m benchmarks copies`).

Source: Lowe 2004 (International Journal of Computer Vision 60:2); the root of the descriptors after Arandjelovic and
Zisserman 2012 (CVPR), "Three things everyone should know to improve object retrieval".
"""

import io
from functools import cached_property, lru_cache
from typing import Any

import cv2
import numpy as np
from PIL import Image

SIDE = 320
"""Pixels of the long side, to which small pictures are enlarged too: a letter of text needs some points. 256 pixels
lose copies of forms, 384 take 1.5 times the time for the same pairs (`python -m benchmarks copies`)."""
MAX_POINTS = 250
"""Points of a picture at most, those of the strongest contrast."""
CONTRAST = 0.02
"""Least contrast of a point; half of SIFT's own, for X-rays and skies."""
DESCRIPTOR = 128
"""Values of a descriptor."""
STEPS = 16
"""Steps of a value from 0 to 1, the last of which is never reached; two values share a byte."""
STORED = DESCRIPTOR // 2
"""Bytes of a descriptor as it is stored."""
GRAIN = 64
"""Steps of a pixel in which places of points are stored."""
QUALITY = 75
"""JPEG quality of the picture that is kept."""

_CELLS = np.arange(DESCRIPTOR).reshape(4, 4, 8)
MIRRORED = _CELLS[::-1][:, :, -np.arange(8) % 8].ravel()
"""(128,) where each value of a mirrored point's descriptor lies in the one of the point."""

cv2.setNumThreads(1)  # decode threads and worker processes share the cores already


class LocalFeatures:
    """Points of one picture and the picture itself, both as they are stored and ready to use."""

    def __init__(self, points: np.ndarray, descriptors: np.ndarray, encoded: bytes) -> None:
        """From what is stored.

        Args:
            points: (K, 2) uint16, x and y in `GRAIN`ths of a pixel.
            descriptors: (K, 64) uint8, see `_packed`.
            encoded: the luma picture as a JPEG.
        """
        self.stored_points, self.stored_descriptors, self.encoded = points, descriptors, encoded

    @property
    def luma(self) -> np.ndarray:
        """(H, W) uint8; those of the last few pictures are kept, since an image has several pairs"""
        return _decoded(self.encoded)

    @cached_property
    def points(self) -> np.ndarray:
        """(K, 2) float32, x and y in pixels"""
        places: np.ndarray = self.stored_points.astype(np.float32) / GRAIN
        return places

    @property
    def descriptors(self) -> np.ndarray:
        """(K, 128) float32, unit L2; made anew each time, since those of a block would take half a gigabyte"""
        values = _unpacked(self.stored_descriptors).astype(np.float32)
        return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1)

    @property
    def mirrored(self) -> np.ndarray:
        """(K, 128) float32, of the same points in the mirror image"""
        return self.descriptors[:, MIRRORED]


@lru_cache(maxsize=32)
def _decoded(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)))


def extract_features(picture: Image.Image) -> LocalFeatures:
    """SIFT points of a picture, at most `MAX_POINTS`, on its luma at `SIDE` pixels.

    Args:
        picture: RGB.
    """
    scale = SIDE / max(picture.size)
    size = [max(8, round(side * scale)) for side in picture.size]
    gray = picture.convert("L").resize((size[0], size[1]), Image.Resampling.BILINEAR, reducing_gap=2.0)
    sift: Any = cv2.SIFT_create(nfeatures=MAX_POINTS, contrastThreshold=CONTRAST)  # type: ignore[attr-defined]
    found, values = sift.detectAndCompute(np.asarray(gray), None)
    if values is None:
        values = np.empty((0, DESCRIPTOR), np.float32)
    found, values = found[:MAX_POINTS], values[:MAX_POINTS]  # ties of contrast may give more
    places = np.array([point.pt for point in found], np.float32).reshape(-1, 2)
    roots = np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1))
    encoded = io.BytesIO()
    gray.save(encoded, "JPEG", quality=QUALITY)
    points = np.clip(np.round(places * GRAIN), 0, 2**16 - 1).astype(np.uint16)
    return LocalFeatures(points, _packed(roots), encoded.getvalue())


def _packed(values: np.ndarray) -> np.ndarray:
    """(K, 64) uint8 of (K, 128) values in 0..1: each rounded to a step, the even ones in the low half of a byte."""
    steps = np.minimum(np.round(STEPS * values), STEPS - 1).astype(np.uint8)
    return steps[:, 0::2] | steps[:, 1::2] << 4


def _unpacked(stored: np.ndarray) -> np.ndarray:
    """(K, 128) uint8, the steps."""
    return np.stack([stored & 15, stored >> 4], axis=2).reshape(len(stored), DESCRIPTOR)
