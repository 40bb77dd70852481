"""What features that nothing was learned for tell of the same pictures: a scale for what a training can reach."""

from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.auto.running import MOST_ASKED, NEIGHBORS, halves
from benchmarks.auto.sets import SmallSet
from benchmarks.figures import Figure
from curate.evaluation.knn import knn_leave_one_out

SHADES = 4
"""Values of each color channel that are told apart."""
SQUARES = 16
"""Squares along a side, each of which tells its mean color; fewer where a picture has fewer pixels."""


def colors(images: np.ndarray) -> np.ndarray:
    """(N, S, S, 3) uint8 -> (N, SHADES**3) float32: square roots of the shares of colors, wherever they are."""
    shades = images.astype(np.int64) * SHADES // 256
    codes = (shades @ [SHADES**2, SHADES, 1]).reshape(len(images), -1)
    shares = np.stack([np.bincount(row, minlength=SHADES**3) for row in codes]) / codes.shape[1]
    return np.sqrt(shares).astype(np.float32)


def pixels(images: np.ndarray) -> np.ndarray:
    """(N, S, S, 3) uint8 -> (N, D) float32: mean colors of squares, less those of all pictures."""
    side = images.shape[1]
    count = max(n for n in range(1, SQUARES + 1) if side % n == 0)
    length = side // count
    means = images.reshape(len(images), count, length, count, length, 3).mean(axis=(2, 4))
    flat = means.reshape(len(images), -1)
    return (flat - flat.mean(axis=0)).astype(np.float32)


FEATURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"colors": colors, "pixels": pixels}


def plain_figures(chosen: SmallSet, seeds: Sequence[int], *, most_asked: int = MOST_ASKED) -> list[Figure]:
    """k-NN of the halves that trainings of these seeds are asked for, by each of `FEATURES`."""
    asked = [halves(len(chosen.labels), seed, most_asked=most_asked)[1] for seed in seeds]
    return [
        Figure(
            f"{chosen.name}: {NEIGHBORS}-NN, {name}",
            float(np.concatenate([_right(make(chosen.images[rows]), chosen.labels[rows]) for rows in asked]).mean()),
            "share",
        )
        for name, make in FEATURES.items()
    ]


def _right(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    units = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return knn_leave_one_out(units, labels, min(NEIGHBORS, len(labels) - 1)).correct


def format_plain(figures: Sequence[Figure]) -> str:
    """A line for every set and feature."""
    lines = ["", "The same by features that nothing was learned for"]
    return "\n".join([*lines, *(f"  {figure.name:<40} {100 * figure.value:5.1f} %" for figure in figures)])
