"""From the truth of pixels to that of patches."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from curate.evaluation.dense.truth import UNKNOWN


def pool_labels(labels: np.ndarray, num_classes: int, grid: tuple[int, int]) -> Tensor:
    """The share of each patch's pixels that each class has.

    Args:
        labels: (H, W) integers, 0..num_classes-1 or UNKNOWN.
        num_classes: number of classes.
        grid: (h, w), rows and columns of patches.

    Returns:
        (h, w, num_classes) float32; sums to the share of pixels whose class is known.
    """
    shares = torch.zeros(*grid, num_classes)
    present = np.unique(labels)
    for label in present[present != UNKNOWN].tolist():  # one at a time: of 150 classes a picture shows a few
        shares[..., label] = pool_map(torch.from_numpy((labels == label).astype(np.float32)), grid)
    return shares


def pool_depth(depth: np.ndarray, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(h, w) mean of the known depths of each patch, 0 where none is, and (h, w) the share of pixels that are known."""
    known = np.isfinite(depth)
    share = pool_map(torch.from_numpy(known.astype(np.float32)), grid)
    total = pool_map(torch.from_numpy(np.where(known, depth, 0).astype(np.float32)), grid)
    return total / share.clamp(min=1e-6), share


def pool_map(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """(H, W) float -> (h, w), the mean of each patch; where patches do not divide the sides they overlap by a pixel."""
    return F.adaptive_avg_pool2d(values[None], grid)[0]
