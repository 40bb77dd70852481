"""From the map of a text detector to the share of a picture that text covers.

The network (DB, differentiable binarization) marks each line of text thinner than it is, so that lines do not touch.
Each marked region is therefore framed by the smallest rectangle, turned as the line runs, and the rectangle enlarged by
as much as the training had shrunk it.

The network was trained on pictures of text. Of a photograph with one object on a plain ground it often marks the
object, which a recognizer of letters would reject later. No such step follows here, so regions that are far thicker
than lines of text are left out: in the 338 sample photographs it marked an object in every third, nearly all of them
thicker than a fifth of the short side, and no line of letters up to a third of the height of a picture was.

Source: Liao et al. 2019, Real-time Scene Text Detection with Differentiable Binarization, arXiv:1911.08947, section
3.5; the thresholds are those of PP-OCR as RapidOCR runs it.
"""

from typing import TypeAlias

import cv2
import numpy as np

Rectangle: TypeAlias = tuple[tuple[float, float], tuple[float, float], float]
"""(x, y) of the middle, (width, height), angle in degrees."""
MARKED = 0.3
"""Probability from which on a pixel belongs to a line of text."""
CONFIDENT = 0.5
"""Mean probability within a rectangle below which it holds no text."""
ENLARGED = 1.6
"""Times area / perimeter by which a rectangle grows on each side."""
LEAST_SIDE = 3
"""Pixels of the shorter side below which a rectangle is noise; two more when it is enlarged."""
THICKEST = 0.2
"""Share of the picture's short side above which a marked region is no line of text."""
MAX_LINES = 1000
"""Most regions of a picture that are looked at."""


def text_share(probability: np.ndarray) -> float:
    """Share of the area that text covers, 0..1, rectangles that overlap counted once.

    Args:
        probability: (H, W) float32 that a pixel lies within a line of text, 0..1.
    """
    covered = np.zeros(probability.shape, np.uint8)
    for rectangle in find_text(probability):
        cv2.fillPoly(covered, [np.round(cv2.boxPoints(rectangle)).astype(np.int32)], 1)
    return float(covered.mean())


def find_text(probability: np.ndarray) -> list[Rectangle]:
    """Rectangles of lines of text, in pixels."""
    marked = (probability > MARKED).astype(np.uint8)
    regions, _ = cv2.findContours(cv2.dilate(marked, np.ones((2, 2), np.uint8)), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    thickest = THICKEST * min(probability.shape)
    found: list[Rectangle] = []
    for region in regions[:MAX_LINES]:
        rectangle = cv2.minAreaRect(region)
        middle, (width, height), angle = rectangle
        is_line = LEAST_SIDE <= min(width, height) <= thickest
        if not is_line or _mean_within(probability, rectangle) < CONFIDENT:
            continue
        grown = ENLARGED * width * height / (width + height)  # on both sides together
        if min(width, height) + grown >= LEAST_SIDE + 2:
            found.append((middle, (width + grown, height + grown), angle))
    return found


def _mean_within(probability: np.ndarray, rectangle: Rectangle) -> float:
    """Mean probability of the pixels of a rectangle."""
    corners = cv2.boxPoints(rectangle)
    limits = np.array(probability.shape[::-1]) - 1
    low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, limits)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int), 0, limits)
    inside = np.zeros((high[1] - low[1] + 1, high[0] - low[0] + 1), np.uint8)
    cv2.fillPoly(inside, [(corners - low).astype(np.int32)], 1)
    return float(cv2.mean(probability[low[1] : high[1] + 1, low[0] : high[0] + 1], inside)[0])
