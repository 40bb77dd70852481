"""How well a region was told: its overlap J, and the F measure of its outline.

Source: Perazzi et al. 2016, A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation (DAVIS).
"""

import math

import numpy as np

REACH = 0.008
"""Distance within which two outlines agree, as a share of the picture's diagonal; it is rounded up to pixels."""


def region_overlap(told: np.ndarray, true: np.ndarray) -> float:
    """J: intersection over union of (H, W) bool regions; 1 where both are empty."""
    either = (told | true).sum()
    return float((told & true).sum() / either) if either else 1.0


def outline_agreement(told: np.ndarray, true: np.ndarray) -> float:
    """F: the harmonic mean of the shares of either outline that lie near the other, for (H, W) bool regions.

    1 where neither has an outline, 0 where one has none.
    """
    from scipy import ndimage

    first, second = outline(told), outline(true)
    if not first.any() or not second.any():
        return float(first.any() == second.any())
    reach = math.ceil(REACH * math.hypot(*told.shape))
    precision = float((ndimage.distance_transform_edt(~second)[first] <= reach).mean())
    recall = float((ndimage.distance_transform_edt(~first)[second] <= reach).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def outline(region: np.ndarray) -> np.ndarray:
    """(H, W) bool, pixels that differ from the one to the right, below, or right below; the border has no outline."""
    edge = np.zeros_like(region)
    edge[:-1, :-1] = (
        (region[:-1, :-1] != region[:-1, 1:])
        | (region[:-1, :-1] != region[1:, :-1])
        | (region[:-1, :-1] != region[1:, 1:])
    )
    edge[-1, :-1] = region[-1, :-1] != region[-1, 1:]
    edge[:-1, -1] = region[:-1, -1] != region[1:, -1]
    return edge
