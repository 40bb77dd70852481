"""Sums over patches, and the least squares that follow from them, for sets of any size.

A ridge regression needs sums over patches alone: of products of features with each other and with what is to be told.
They are added up picture by picture, so memory is (D + 1)^2 numbers however many patches there are, and the result does
not depend on an order or on a learning rate. The error of a solution on held-out pictures follows from their sums too,
so that the penalty is chosen without a second pass.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

STRENGTHS = tuple(10.0**exponent for exponent in range(-6, 4))
"""Penalties that are tried, as shares of the mean square of a feature."""


class Moments:
    """Sums over patches of the products of features and targets."""

    def __init__(self, dim: int, num_targets: int) -> None:
        self.gram = torch.zeros(dim + 1, dim + 1, dtype=torch.float64)  # of features and a 1
        self.cross = torch.zeros(dim + 1, num_targets, dtype=torch.float64)
        self.square = 0.0
        self.weight = 0.0

    def add(self, features: Tensor, targets: Tensor, weights: Tensor) -> None:
        """Add patches: (N, D) features, (N, C) targets, and (N,) how much each counts, >= 0."""
        x = torch.cat([features, torch.ones(len(features), 1)], dim=1).double()
        y, w = targets.double(), weights.double()[:, None]
        self.gram += x.T @ (w * x)
        self.cross += x.T @ (w * y)
        self.square += float((w * y.square()).sum())
        self.weight += float(w.sum())

    def __add__(self, other: "Moments") -> "Moments":
        total = Moments(len(self.gram) - 1, self.cross.shape[1])
        total.gram, total.cross = self.gram + other.gram, self.cross + other.cross
        total.square, total.weight = self.square + other.square, self.weight + other.weight
        return total

    def solve(self, strength: float) -> Tensor:
        """(D + 1, C) float64, weights and a bias in the last row, which has no penalty."""
        penalty = torch.full((len(self.gram),), strength * float(self.gram.diagonal()[:-1].mean()))
        penalty[-1] = 0
        return torch.linalg.solve(self.gram + penalty.double().diag(), self.cross)

    def error(self, solution: Tensor) -> float:
        """Mean squared error of a solution on the patches of these sums."""
        fitted = (solution * (self.gram @ solution - 2 * self.cross)).sum()
        return (float(fitted) + self.square) / self.weight


def fit_ridge(fitted: Moments, held: Moments, *, strengths: Sequence[float] = STRENGTHS) -> tuple[Tensor, float]:
    """(D + 1, C) the solution on all patches, and its penalty, with which that of `fitted` is best on `held`."""
    if len(strengths) == 1:
        chosen = strengths[0]
    else:
        chosen = min(strengths, key=lambda strength: held.error(fitted.solve(strength)))
    return (fitted + held).solve(chosen), chosen


def predict(features: Tensor, solution: Tensor) -> Tensor:
    """(..., D) features -> (..., C) float32."""
    weights = solution.float()
    return features @ weights[:-1] + weights[-1]
