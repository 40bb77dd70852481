"""Average precision of ranked lists; equal scores share one place, so that no order of files favors a model."""

import numpy as np


def average_precision(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Average precision of each row: sum over score levels of precision times the recall gained there.

    Args:
        scores: (Q, N), higher ranks first; -inf leaves an item out.
        relevant: (Q, N) bool, each row with at least one True among the items that are not left out.

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
    """(Q, N) int64, the last place with the score of each place, in rows that fall."""
    width = ranked.shape[1]
    ends = np.full(ranked.shape, width - 1, dtype=np.int64)
    ends[:, :-1] = np.where(ranked[:, :-1] != ranked[:, 1:], np.arange(width - 1), width - 1)
    return np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]


class PrecisionRecall:
    """The curve over all score levels of one list of answers, for any weights of the queries that gave them."""

    def __init__(self, scores: np.ndarray, right: np.ndarray, queries: np.ndarray) -> None:
        """Args: (N,) scores, (N,) bool, and (N,) int64 numbers of the queries, of the answers in any order."""
        order = np.argsort(-scores, kind="stable")
        self.right, self.queries = right[order], queries[order]
        self.ends = np.flatnonzero(np.append(scores[order][:-1] != scores[order][1:], True)) if len(order) else order

    def curve(self, num_right: float, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Precision and recall down to each score level.

        Args:
            num_right: right answers that exist, found or not, in the measure of the weights.
            weights: (Q,) of each query, for example how often a bootstrap drew it.
        """
        counted = weights[self.queries]
        taken = np.cumsum(counted)[self.ends]
        found = np.cumsum(counted * self.right)[self.ends]
        return found / np.maximum(taken, 1), found / num_right


def micro_average_precision(precision: np.ndarray, recall: np.ndarray) -> float:
    """Sum over score levels of precision times the recall gained there.

    Source: Douze et al. 2021, arXiv:2106.09672, the measure of the Image Similarity Challenge.
    """
    return float((precision * np.diff(recall, prepend=0.0)).sum())


def recall_at_precision(precision: np.ndarray, recall: np.ndarray, *, wanted: float) -> float:
    """The highest recall at a precision of at least `wanted`; 0 where that is never reached."""
    return float(recall[precision >= wanted].max(initial=0.0))
