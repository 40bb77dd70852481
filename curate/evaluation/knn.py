"""Weighted k-nearest-neighbour classification of frozen features.

Source: Wu et al. 2018, arXiv:1805.01978, as used by DINO and DINOv2.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.ops.vectors import normalize

TEMPERATURE = 0.07
BLOCK = 1024
"""Queries at a time, so that the similarities stay small."""

Labels = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers."""

    value: float
    """0..1."""
    stderr: float
    """Binomial standard error of `value`."""
    correct: npt.NDArray[np.bool_]
    """(N,) which answers were right, for paired comparisons."""

    @classmethod
    def of(cls, correct: npt.NDArray[np.bool_]) -> "Accuracy":
        """The accuracy of N > 0 answers."""
        value = float(np.mean(correct))
        return cls(value, math.sqrt(value * (1 - value) / len(correct)), correct)


def knn_accuracy(train_x: np.ndarray, train_y: Labels, test_x: np.ndarray, test_y: Labels, k: int) -> Accuracy:
    """Share of test rows whose neighbours among the training rows vote for their label.

    Args:
        train_x, test_x: (N, D) and (M, D) features; compared by cosine.
        train_y, test_y: (N,) and (M,) integer labels.
        k: neighbours that vote, each with weight exp(cosine / 0.07).

    Raises:
        ValueError: k is not in 1..N, or features and labels differ in number.
    """
    _check(train_x, train_y, k, most=len(train_x))
    _check(test_x, test_y, 1, most=len(test_x))
    return Accuracy.of(knn_predict(train_x, train_y, test_x, k) == test_y)


def knn_predict(train_x: np.ndarray, train_y: Labels, test_x: np.ndarray, k: int) -> Labels:
    """(M,) the label with the largest weighted vote; the smaller label wins a tie."""
    keys, classes, targets = _prepare(train_x, train_y)
    votes = [_vote(similarity, targets, len(classes), k) for similarity, _ in _similarities(normalize(test_x), keys)]
    return classes[np.concatenate(votes)]


def knn_leave_one_out(x: np.ndarray, y: Labels, k: int) -> Accuracy:
    """As `knn_accuracy`, where each row asks all the others: for sets too small to split.

    Raises:
        ValueError: k is not in 1..N-1, or features and labels differ in number.
    """
    _check(x, y, k, most=len(x) - 1)
    keys, classes, targets = _prepare(x, y)
    votes = []
    for similarity, start in _similarities(keys, keys):
        rows = np.arange(len(similarity))
        similarity[rows, start + rows] = -np.inf
        votes.append(_vote(similarity, targets, len(classes), k))
    return Accuracy.of(classes[np.concatenate(votes)] == y)


def paired_stderr(first: Accuracy, second: Accuracy) -> float:
    """Standard error of `second.value - first.value` on the same test rows."""
    difference = second.correct.astype(np.float64) - first.correct
    return float(difference.std() / math.sqrt(len(difference)))


def _prepare(x: np.ndarray, y: Labels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    classes, targets = np.unique(y, return_inverse=True)
    return normalize(x), classes, targets


def _similarities(queries: np.ndarray, keys: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    for start in range(0, len(queries), BLOCK):
        yield queries[start : start + BLOCK] @ keys.T, start


def _vote(similarity: np.ndarray, targets: np.ndarray, num_classes: int, k: int) -> np.ndarray:
    """(B,) class index from (B, N) cosines."""
    nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    rows = np.arange(len(similarity))[:, None]
    weights = np.exp((similarity[rows, nearest] - 1) / TEMPERATURE)
    votes = np.zeros((len(similarity), num_classes))
    np.add.at(votes, (rows, targets[nearest]), weights)
    return votes.argmax(axis=1)


def _check(x: np.ndarray, y: Labels, k: int, *, most: int) -> None:
    if len(x) != len(y):
        raise ValueError(f"{len(x)} features but {len(y)} labels; one label a row is needed")
    if not 1 <= k <= most:
        raise ValueError(f"k is {k}; with {len(x)} rows it must lie in 1..{most}")
