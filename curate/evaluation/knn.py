"""Weighted k-nearest-neighbor classification of frozen features.

Source: Wu et al. 2018, arXiv:1805.01978, as used by DINO and DINOv2.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from curate.evaluation.accuracy import Accuracy
from curate.ops.vectors import normalize

TEMPERATURE = 0.07
"""A neighbor's vote weighs exp(cosine / TEMPERATURE)."""
NUM_NEIGHBORS = (10, 20, 100, 200)
"""Numbers of neighbors that DINOv2 tries; all are reported, since the best of them on the test set would flatter."""
BLOCK = 1024
"""Queries that are compared at a time, at most."""
BLOCK_CELLS = 2**27
"""Similarities that are held at a time, at most: 512 MiB."""

Labels = npt.NDArray[np.integer]


def knn_accuracy(train_x: np.ndarray, train_y: Labels, test_x: np.ndarray, test_y: Labels, k: int) -> Accuracy:
    """The share of test rows whose neighbors among the training rows vote for their label.

    Args:
        train_x, test_x: (N, D) and (M, D) features; compared by cosine.
        train_y, test_y: (N,) and (M,) integer labels.
        k: neighbors that vote, each with weight exp(cosine / 0.07).

    Raises:
        ValueError: k is not in 1..N, or features and labels differ in number.
    """
    return knn_sweep(train_x, train_y, test_x, test_y, (k,))[k]


def knn_leave_one_out(x: np.ndarray, y: Labels, k: int) -> Accuracy:
    """As `knn_accuracy`, where each row is classified by all the others: for sets that are too small to split.

    Raises:
        ValueError: k is not in 1..N-1, or features and labels differ in number.
    """
    return knn_sweep(x, y, None, None, (k,))[k]


def knn_sweep(
    train_x: np.ndarray,
    train_y: Labels,
    test_x: np.ndarray | None,
    test_y: Labels | None,
    ks: Sequence[int],
    *,
    device: str | torch.device = "cpu",
) -> dict[int, Accuracy]:
    """The accuracy for each k of `ks` from one search; without test rows each row is classified by all the others.

    Raises:
        ValueError: a k is not in 1..N, without test rows 1..N-1, or features and labels differ in number.
    """
    _check_lengths(train_x, train_y)
    most = len(train_x) - (test_x is None)
    for k in ks:
        if not 1 <= k <= most:
            raise ValueError(f"k is {k}; with {len(train_x)} rows it must lie in 1..{most}")
    if test_x is not None and test_y is not None:
        _check_lengths(test_x, test_y)
    answers = train_y if test_y is None else test_y
    found = _predict(train_x, train_y, test_x, ks, device=device)
    return {k: Accuracy.of(labels == answers) for k, labels in found.items()}


def possible_ks(most: int, ks: Sequence[int] = NUM_NEIGHBORS) -> tuple[int, ...]:
    """Those of `ks` that are at most `most`, the number of possible neighbors; where none is, `most` itself."""
    return tuple(k for k in ks if k <= most) or (most,)


def _predict(
    train_x: np.ndarray, train_y: Labels, test_x: np.ndarray | None, ks: Sequence[int], *, device: str | torch.device
) -> dict[int, Labels]:
    """(M,) the label with the largest weighted vote, for each k; the smaller label wins a tie."""
    classes, targets = np.unique(train_y, return_inverse=True)
    votes: dict[int, list[np.ndarray]] = {k: [] for k in ks}
    for similarity, nearest in _neighbors(train_x, test_x, max(ks), device=device):
        for k, found in votes.items():
            found.append(_vote(similarity[:, :k], targets[nearest[:, :k]], len(classes)))
    return {k: classes[np.concatenate(found)] for k, found in votes.items()}


def _neighbors(
    train_x: np.ndarray, test_x: np.ndarray | None, k: int, *, device: str | torch.device
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of (B, k) cosines, highest first, and (B, k) rows of the training set."""
    keys = torch.from_numpy(normalize(train_x)).to(device)
    queries = keys if test_x is None else torch.from_numpy(normalize(test_x)).to(device)
    block = max(1, min(BLOCK, BLOCK_CELLS // len(keys)))
    for start in range(0, len(queries), block):
        similarity = queries[start : start + block] @ keys.T
        if test_x is None:
            rows = torch.arange(len(similarity), device=similarity.device)
            similarity[rows, start + rows] = -torch.inf
        values, nearest = similarity.topk(k, dim=1)
        yield values.cpu().numpy(), nearest.cpu().numpy()


def _vote(similarity: np.ndarray, targets: np.ndarray, num_classes: int) -> np.ndarray:
    """(B,) class index from the (B, k) cosines and class indices of the neighbors."""
    weights = np.exp((similarity - 1) / TEMPERATURE)
    votes = np.zeros((len(similarity), num_classes))
    np.add.at(votes, (np.arange(len(similarity))[:, None], targets), weights)
    return votes.argmax(axis=1)


def _check_lengths(x: np.ndarray, y: Labels) -> None:
    if len(x) != len(y):
        raise ValueError(f"{len(x)} features but {len(y)} labels; one label a row is needed")
