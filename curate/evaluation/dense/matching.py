"""Where points of one view lie in another, by the most similar feature.

Maps of features are interpolated, at the points asked for and over the second view, so that the size of a model's
patches bounds its precision less. As in Probe3D (El Banani et al. 2024, arXiv:2404.08636), which DINOv3 follows.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from curate.evaluation.dense.encoder import upsample

CELLS = 64
"""Places along the short side of the second view that are compared."""


def match_points(first: Tensor, second: Tensor, points: np.ndarray, sizes: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Find points of a first view in a second one.

    Args:
        first, second: (h, w, D) and (h', w', D) features of patches.
        points: (K, 2) float64, (x, y) in pixels of the first view.
        sizes: (width, height) of both views in pixels.

    Returns:
        (K, 2) float64, (x, y) in pixels of the second view.
    """
    (_, _), (width, height) = sizes
    queries = F.normalize(sample(first, points, sizes[0]), dim=1)
    rows, columns = (round(CELLS * side / min(width, height)) for side in (height, width))
    keys = F.normalize(upsample(second, (rows, columns)), dim=2).flatten(0, 1)
    nearest = (queries @ keys.T).argmax(dim=1).numpy()
    cells = np.column_stack([nearest % columns, nearest // columns])
    return (cells + 0.5) * [width / columns, height / rows]


def sample(features: Tensor, points: np.ndarray, size: tuple[int, int]) -> Tensor:
    """(h, w, D) features of a picture of (width, height) at (K, 2) points in pixels: (K, D), bilinear."""
    where = torch.from_numpy(2 * points / np.array(size) - 1).to(features.dtype)
    found = F.grid_sample(
        features.permute(2, 0, 1)[None], where[None, None], padding_mode="border", align_corners=False
    )
    return found[0, :, 0].T


def share_within(found: np.ndarray, true: np.ndarray, *, distance: float) -> float:
    """The share of (K, 2) points that were found within a distance, in pixels, of where they are."""
    return float((np.linalg.norm(found - true, axis=1) <= distance).mean())
