"""A space in which copies lie together: a linear discriminant of pictures, from planted copies and the pool itself.

A general embedding says what a picture shows: two photographs of one castle are near each other in it, while a crop of
one of them moves away. For copies it should be the other way round.

Edits (crops, borders, text) move vectors along directions of their own. They are learned from groups of vectors, each a
picture and copies planted on it: the covariance within groups tells along which directions copies scatter. Whitening
by it makes that scatter equal in all directions, so that those along which edits move vectors shrink. Groups are fewer
than dimensions, so the covariance is first shrunk towards a multiple of the identity (Friedman 1989), or directions in
which no group happened to vary would be blown up. Of the whitened space the directions are kept along which pictures
vary most.

Fisher's discriminant takes these last directions from the groups too. Here they come from the pool, which holds more
pictures than copies were planted on, and those that the space is for: on pictures without planted copies it tells
copies better (`python -m benchmarks copies`).
"""

from typing import NamedTuple

import numpy as np

from curate.ops.vectors import normalize

SHRINKAGE = 0.1
"""Share of the identity in the within-group covariance; 0.03 to 0.3 do as well (`python -m benchmarks copies`)."""


class CopySpace(NamedTuple):
    """The map x -> (x - mean) @ axes, brought to unit norm."""

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
    """Fit the `dim` directions that tell pictures apart where edits do not.

    Args:
        x: (N, D) float, vectors of pictures and their copies.
        group: (N,) int, which picture each vector shows.
        pool: (M, D) float, vectors of any pictures.
        dim: d; never more than a quarter of M are kept, which would fit single pictures, or than D.
        shrinkage: weight of the identity in the covariance within groups, in (0, 1].

    Raises:
        ValueError: no group of several, or fewer than four pictures in the pool.
    """
    names, place = np.unique(group, return_inverse=True)
    if len(names) == len(x) or len(pool) < 4:
        raise ValueError(f"{len(x)} vectors of {len(names)} pictures, {len(pool)} of the pool: copies and 4 are needed")
    x, size = x.astype(np.float64), np.bincount(place)
    means = np.zeros((len(names), x.shape[1]))
    np.add.at(means, place, x)
    apart = x - (means / size[:, None])[place]  # (N, D), of each vector from the mean of its group
    within = apart.T @ apart / (len(x) - len(names))
    scale = max(float(np.trace(within)) / x.shape[1], 1e-12)
    value, vector = np.linalg.eigh((1 - shrinkage) * within + shrinkage * scale * np.eye(x.shape[1]))
    # Eigenvectors divided by their standard deviations: x @ whiten has the identity as its covariance within groups.
    whiten = vector / np.sqrt(np.maximum(value, 1e-12 * scale))
    mean = pool.mean(axis=0, dtype=np.float64)
    spread = (pool - mean) @ whiten
    _, directions = np.linalg.eigh(spread.T @ spread)
    kept = directions[:, ::-1][:, : min(dim, len(pool) // 4, x.shape[1])]
    return CopySpace(mean.astype(np.float32), (whiten @ kept).astype(np.float32))
