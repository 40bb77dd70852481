"""Intersection over union of told and true classes."""

import numpy as np

from curate.evaluation.dense.truth import UNKNOWN


def count_overlap(told: np.ndarray, true: np.ndarray, num_classes: int) -> np.ndarray:
    """(2, C) int64, intersection and union of each class in one picture; pixels of UNKNOWN class are left out.

    Args:
        told, true: (H, W) integers, 0..C-1; UNKNOWN in `true` alone.
        num_classes: C.
    """
    known = true != UNKNOWN
    a, b = told[known], true[known]
    both = np.bincount(a[a == b], minlength=num_classes)
    either = np.bincount(a, minlength=num_classes) + np.bincount(b, minlength=num_classes) - both
    return np.stack([both, either]).astype(np.int64)


def mean_iou(counts: np.ndarray, weights: np.ndarray) -> float:
    """Mean over classes of intersection over union, each summed over all pictures.

    Args:
        counts: (N, 2, C), see `count_overlap`.
        weights: (N,) how often each picture counts.

    Returns:
        0..1; classes that are neither shown nor told anywhere are left out.
    """
    both, either = np.tensordot(weights, counts, axes=1)
    return float((both[either > 0] / either[either > 0]).mean()) if (either > 0).any() else 0.0
