"""A space in which copies lie together: a linear discriminant of pictures, from planted copies and the pool itself.

A general embedding says what a picture shows; two photographs of one castle are near each other in it, while a crop of
one of them moves away. Edits move vectors along directions of their own. With groups of vectors, each a picture and
its copies, the covariance within groups is whitened (shrunk towards a multiple of the identity, since groups are fewer
than dimensions: Friedman 1989), and the directions are kept along which the pool then varies most. Fisher's
discriminant takes these from the groups alone; the pool holds more pictures than copies are planted on, and those that
the space is for: on pictures that no copies were planted on it is the better one (`python -m benchmarks copies`).
"""

from typing import NamedTuple

import numpy as np

from curate.ops.vectors import normalize

SHRINKAGE = 0.1
"""Share of the identity in the within-group covariance; 0.03 to 0.3 do as well (`python -m benchmarks copies`)."""


class CopySpace(NamedTuple):
    """x -> normalised (x - mean) @ axes."""

    mean: np.ndarray
    """(D,) float32"""
    axes: np.ndarray
    """(D, d) float32"""

    def project(self, x: np.ndarray) -> np.ndarray:
        """(N, d) float32, unit L2, of (N, D) vectors."""
        return normalize((x - self.mean) @ self.axes)


def fit_copy_space(
    x: np.ndarray, group: np.ndarray, pool: np.ndarray, *, dim: int, shrinkage: float = SHRINKAGE
) -> CopySpace:
    """The `dim` directions that tell pictures apart where edits do not.

    Args:
        x: (N, D) float, vectors of pictures and their copies.
        group: (N,) int, the picture that each shows.
        pool: (M, D) float, vectors of any pictures.
        dim: d; never more than a quarter of M, which would fit to single pictures, or than D.
        shrinkage: in (0, 1].

    Raises:
        ValueError: no group of several, or fewer than four pictures in the pool.
    """
    names, place = np.unique(group, return_inverse=True)
    if len(names) == len(x) or len(pool) < 4:
        raise ValueError(f"{len(x)} vectors of {len(names)} pictures, {len(pool)} of the pool: copies and 4 are needed")
    x, size = x.astype(np.float64), np.bincount(place)
    means = np.zeros((len(names), x.shape[1]))
    np.add.at(means, place, x)
    apart = x - (means / size[:, None])[place]
    within = apart.T @ apart / (len(x) - len(names))
    scale = max(float(np.trace(within)) / x.shape[1], 1e-12)
    value, vector = np.linalg.eigh((1 - shrinkage) * within + shrinkage * scale * np.eye(x.shape[1]))
    whiten = vector / np.sqrt(np.maximum(value, 1e-12 * scale))
    mean = pool.mean(axis=0, dtype=np.float64)
    spread = (pool - mean) @ whiten
    _, directions = np.linalg.eigh(spread.T @ spread)
    kept = directions[:, ::-1][:, : min(dim, len(pool) // 4, x.shape[1])]
    return CopySpace(mean.astype(np.float32), (whiten @ kept).astype(np.float32))
