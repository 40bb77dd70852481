"""Average precision of ranked lists.

Equal scores share one rank. Otherwise the order of the files would decide among them, and a model that gives everything
the same score would look good where the right answers happen to come first.
"""

import numpy as np


def average_precision(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Average precision of each row: the sum over score levels of the precision times the recall gained there.

    Args:
        scores: (Q, N), a higher one ranks first; -inf leaves an item out.
        relevant: (Q, N) bool, with at least one True in each row among the items that are not left out.

    Returns:
        (Q,) float64, 0..1.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=1)
    hits = np.take_along_axis(relevant, order, axis=1) & (ranked > -np.inf)
    found = np.cumsum(hits, axis=1)
    last = _last_of_level(ranked)
    precision = np.take_along_axis(found, last, axis=1) / (last + 1)
    return (precision * hits).sum(axis=1) / hits.sum(axis=1)


def _last_of_level(ranked: np.ndarray) -> np.ndarray:
    """(Q, N) int64, for each rank the last rank with the same score; `ranked` is (Q, N), falling in each row."""
    width = ranked.shape[1]
    ends = np.full(ranked.shape, width - 1, dtype=np.int64)
    ends[:, :-1] = np.where(ranked[:, :-1] != ranked[:, 1:], np.arange(width - 1), width - 1)
    return np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]


class PrecisionRecall:
    """The curve of precision and recall over all score levels of one list of answers.

    The answers are sorted once; a bootstrap then asks for the curve under many weights of the queries.
    """

    def __init__(self, scores: np.ndarray, right: np.ndarray, queries: np.ndarray) -> None:
        """Sort the answers.

        Args:
            scores: (N,) of the answers, in any order.
            right: (N,) bool, which answers are right.
            queries: (N,) int64, the query that gave each answer.
        """
        order = np.argsort(-scores, kind="stable")
        self.right, self.queries = right[order], queries[order]
        self.ends = np.flatnonzero(np.append(scores[order][:-1] != scores[order][1:], True)) if len(order) else order

    def curve(self, num_right: float, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(L,) precision and (L,) recall of the answers down to each of L score levels.

        Args:
            num_right: weight of the right answers that exist, found or not.
            weights: (Q,) weight of each query, for example how often a bootstrap drew it.
        """
        counted = weights[self.queries]
        taken = np.cumsum(counted)[self.ends]
        found = np.cumsum(counted * self.right)[self.ends]
        return found / np.maximum(taken, 1), found / num_right


def micro_average_precision(precision: np.ndarray, recall: np.ndarray) -> float:
    """The sum over score levels of the precision times the recall gained there.

    Source: Douze et al. 2021, arXiv:2106.09672, the measure of the Image Similarity Challenge.
    """
    return float((precision * np.diff(recall, prepend=0.0)).sum())


def recall_at_precision(precision: np.ndarray, recall: np.ndarray, *, wanted: float) -> float:
    """The highest recall at which the precision is at least `wanted`; 0 where it never is."""
    return float(recall[precision >= wanted].max(initial=0.0))
