"""Splits and samples that keep the shares of the classes."""

import numpy as np

TRAIN_SHARE = 0.7
"""Share of each class that is trained on where no test set is given."""


def stratified_split(labels: np.ndarray, *, train_share: float, seed: int) -> np.ndarray:
    """(N,) bool, True for training: the share `train_share` of each class, rounded, drawn at random.

    A class of two or more rows has at least one on either side; a single row is for training.

    Args:
        labels: (N,) integers.
        train_share: above 0, below 1.
        seed: seed of the draw.

    Raises:
        ValueError: every class has a single row, so that nothing is left to test on.
    """
    rng = np.random.default_rng(seed)
    train = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        most = max(1, len(rows) - 1)
        train[rows[: min(max(1, round(train_share * len(rows))), most)]] = True
    if train.all():
        raise ValueError(f"{len(labels)} rows, each of a class of its own: none is left to test on")
    return train


def stratified_sample(labels: np.ndarray, num_rows: int, *, seed: int) -> np.ndarray:
    """Up to `num_rows` rows in rising order, drawn at random, the classes in their shares to within one row."""
    if len(labels) <= num_rows:
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    # evenly spaced places along the rows ordered by class take from each class in proportion
    places = (np.arange(num_rows) * len(labels) + rng.integers(len(labels))) // num_rows % len(labels)
    return np.sort(by_class[places])
