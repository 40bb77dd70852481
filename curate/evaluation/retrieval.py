"""Image retrieval by class: mean average precision and recall at k of frozen features."""

from typing import NamedTuple

import numpy as np
import torch

from curate.evaluation.ranking import average_precision
from curate.ops.vectors import normalize

RECALL_AT = (1, 5, 10)
"""Numbers of neighbors k for which recall at k is measured."""
MAX_QUERIES = 10_000
"""Of a larger set so many rows are drawn as queries; all rows are searched."""
BLOCK_CELLS = 2**24
"""Similarities that are held at a time, at most."""


class Retrieved(NamedTuple):
    """What each query found."""

    queries: np.ndarray  # (Q,) int64, the query rows: those with a picture of their class to find
    average_precision: np.ndarray  # (Q,) float64
    recalled: dict[int, np.ndarray]  # k -> (Q,) bool, whether one of the k nearest has the class of the query


def retrieve_by_class(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray | None = None,
    test_y: np.ndarray | None = None,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Retrieved:
    """Rank the training rows by cosine for each test row; without test rows, for each training row but itself.

    Args:
        train_x, test_x: (N, D) and (M, D) features.
        train_y, test_y: (N,) and (M,) integer labels.
        seed: seed of the choice of queries where there are more than MAX_QUERIES.

    Raises:
        ValueError: no query has another picture of its class to find.
    """
    leave_out = test_x is None or test_y is None
    query_x, query_y = (train_x, train_y) if test_x is None or test_y is None else (test_x, test_y)
    queries = _with_answers(train_y, query_y, leave_out=leave_out)
    if len(queries) > MAX_QUERIES:
        queries = np.sort(np.random.default_rng(seed).choice(queries, MAX_QUERIES, replace=False))
    if not len(queries):
        raise ValueError(f"none of {len(query_y)} queries has another picture of its class to find")
    keys = torch.from_numpy(normalize(train_x)).to(device)
    asked = torch.from_numpy(normalize(query_x[queries])).to(device)
    precisions: list[np.ndarray] = []
    recalled: dict[int, list[np.ndarray]] = {k: [] for k in RECALL_AT}
    block = max(1, BLOCK_CELLS // len(keys))
    for start in range(0, len(queries), block):
        rows = queries[start : start + block]
        similarity = (asked[start : start + block] @ keys.T).cpu().numpy()
        if leave_out:
            similarity[np.arange(len(rows)), rows] = -np.inf
        relevant = train_y == query_y[rows, None]
        precisions.append(average_precision(similarity, relevant))
        for k, found in _recalled(similarity, relevant).items():
            recalled[k].append(found)
    return Retrieved(queries, np.concatenate(precisions), {k: np.concatenate(v) for k, v in recalled.items()})


def _with_answers(train_y: np.ndarray, query_y: np.ndarray, *, leave_out: bool) -> np.ndarray:
    """(Q,) the queries that have another picture of their class to find."""
    classes, counts = np.unique(train_y, return_counts=True)
    enough = classes[counts > leave_out]  # a query from the collection does not count as its own answer
    return np.flatnonzero(np.isin(query_y, enough))


def _recalled(similarity: np.ndarray, relevant: np.ndarray) -> dict[int, np.ndarray]:
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, : max(RECALL_AT)]
    hits = np.take_along_axis(relevant, nearest, axis=1)
    return {k: np.any(hits[:, :k], axis=1) for k in RECALL_AT}
