"""A linear reader of the classes of patches: linear discriminant analysis, for sets of any size.

Its weights follow from sums over patches alone (`ridge.Moments`), which are added up picture by picture: memory is
(D + 1)^2 numbers however many patches there are, and the result depends on no order and no learning rate. The papers
train the same kind of layer by SGD on the cross-entropy. Least squares on classes would be as cheap, but hides classes
that lie between others.

Source: Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, sections 4.2 and 4.3; the covariance is
shrunk towards a multiple of the identity (Friedman 1989, Regularized Discriminant Analysis).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from curate.evaluation.dense.ridge import Moments, predict

SHRINKAGES = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5)
"""Shares of the identity in the covariance that are tried."""


def fit_discriminant(moments: Moments, shrinkage: float) -> Tensor:
    """Weights of linear scores of classes, for `predict`; the class with the highest is told.

    Args:
        moments: of patches, whose targets are the shares of the classes.
        shrinkage: 0..1, share of the identity in the covariance within classes.

    Returns:
        (D + 1, C) float64, a bias in the last row; that of a class that no patch shows is -inf.
    """
    counts, total = moments.cross[-1], moments.weight
    means = moments.cross[:-1] / counts.clamp(min=1e-12)  # (D, C)
    within = (moments.gram[:-1, :-1] - (counts * means) @ means.T) / total
    dim = len(within)
    shrunk = (1 - shrinkage) * within + shrinkage * within.diagonal().mean() * torch.eye(dim, dtype=torch.float64)
    weights = torch.linalg.solve(shrunk, means)
    bias = (counts / total).log() - (means * weights).sum(dim=0) / 2
    return torch.cat([weights, bias[None]])


def choose_shrinkage(
    fitted: Moments, features: Tensor, labels: Tensor, *, shrinkages: Sequence[float] = SHRINKAGES
) -> float:
    """The shrinkage with which most held-out patches are told right; of equally good ones the largest.

    Args:
        fitted: of the patches that are fitted to.
        features: (N, D) held-out patches.
        labels: (N,) int64, the class of each.
        shrinkages: those to try.
    """

    def right(shrinkage: float) -> tuple[int, float]:
        told = predict(features, fit_discriminant(fitted, shrinkage)).argmax(dim=1)
        return int((told == labels).sum()), shrinkage

    return max(shrinkages, key=right)
