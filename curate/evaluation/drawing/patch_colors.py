"""Features of patches as colors: similar patches of all pictures get similar colors.

Source: the figures of Oquab et al. 2023, arXiv:2304.07193, section 7.6.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import scipy.linalg

Threshold = Literal["sign"] | float
"""Where the foreground begins along the first component: at its mean ("sign"), or above this share of all patches."""

CLIPPED = 2.0
"""Percent of the foreground at either end whose colors are clipped, so that single patches do not set the scale."""
BACKGROUND = (0, 0, 0)
"""Color of the background."""


class PatchColors(NamedTuple):
    """The patches of one picture as colors."""

    colors: np.ndarray  # (h, w, 3) uint8, BACKGROUND outside the foreground
    foreground: np.ndarray  # (h, w) bool


def color_patches(patches: Sequence[np.ndarray], *, threshold: Threshold = "sign") -> list[PatchColors]:
    """Split the patches by their first principal component, and color the foreground by its own first three.

    All pictures are fitted together. A principal component has no sign of its own: the sign of the first one is chosen
    so that the patches at the border lie lower than the others, which makes them the background; the signs of the
    others are chosen so that their largest loading is positive. Equal features thus give equal colors on every machine.

    Args:
        patches: (h, w, D) float features of each picture.
        threshold: "sign", or the share of all patches, 0 to below 1, that is background.

    Raises:
        ValueError: there are no patches, their widths differ, or `threshold` is out of range.
    """
    if threshold != "sign" and not 0 <= threshold < 1:
        raise ValueError(f'threshold {threshold:g}: "sign", or a share of 0 to below 1 is needed')
    if not patches or len({part.shape[-1] for part in patches}) != 1:
        raise ValueError("no patches of one width: give those of at least one picture, all of one model")
    rows = np.concatenate([part.reshape(-1, part.shape[-1]) for part in patches]).astype(np.float64)  # (M, D)
    scores = principal_scores(rows, 1)[:, 0]
    edges = np.concatenate([_outer_ring(part.shape[:2]).ravel() for part in patches])
    if not edges.all() and scores[edges].mean() > scores[~edges].mean():
        scores = -scores
    inside = scores > (0.0 if threshold == "sign" else np.quantile(scores, threshold))
    if threshold == 0:
        inside[:] = True
    colors = np.full((len(rows), 3), BACKGROUND, np.uint8)
    colors[inside] = _as_rgb(principal_scores(rows[inside], 3))
    bounds = np.cumsum([part.shape[0] * part.shape[1] for part in patches])[:-1]
    split = zip(patches, np.split(colors, bounds), np.split(inside, bounds), strict=True)
    return [PatchColors(c.reshape(*part.shape[:2], 3), f.reshape(part.shape[:2])) for part, c, f in split]


def principal_scores(rows: np.ndarray, num: int) -> np.ndarray:
    """Project (M, D) rows on their first principal components, largest variance first.

    Returns:
        (M, num) float64, mean 0; components beyond the rank of the rows are 0.
    """
    scores = np.zeros((len(rows), num))
    if len(rows) < 2:
        return scores
    centered = rows - rows.mean(axis=0)
    dim = centered.shape[1]
    found = min(num, dim)
    variances, axes = scipy.linalg.eigh(centered.T @ centered, subset_by_index=[dim - found, dim - 1])
    variances, axes = variances[::-1], axes[:, ::-1]  # eigh sorts upwards
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(found)])
    real = variances > 1e-10 * max(variances[0], 1e-300)  # the others are noise of the rounding
    scores[:, :found][:, real] = centered @ axes[:, real]
    return scores


def _outer_ring(grid: tuple[int, ...]) -> np.ndarray:
    """(h, w) bool, True for patches at the border of the picture."""
    ring = np.ones(grid, bool)
    ring[1:-1, 1:-1] = False
    return ring


def _as_rgb(scores: np.ndarray) -> np.ndarray:
    """(M, 3) uint8 colors of (M, 3) scores: a component is stretched between its percentiles, or gray if constant."""
    if not len(scores):
        return np.empty((0, 3), np.uint8)
    low, high = np.percentile(scores, [CLIPPED, 100 - CLIPPED], axis=0)
    spread = high - low
    unit = np.where(spread > 0, (scores - low) / np.where(spread > 0, spread, 1), 0.5)
    return np.rint(255 * unit.clip(0, 1)).astype(np.uint8)
