"""Precision and recall of every threshold, where of some pairs nobody knows whether they are right.

Pairs are right (a copy and its original), wrong, or unclear; an unclear pair counts as neither. A precision that was
seen on a few hundred pairs is a guess, so its lower confidence bound is told with it, and thresholds are chosen by that
bound.

Source: Clopper and Pearson 1934 (Biometrika 26:4), for pairs as if they were independent.
"""

from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
"""Confidence of the lower bound, which is one-sided."""


class PrecisionCurve(NamedTuple):
    """What a threshold would give, by descending threshold."""

    threshold: np.ndarray
    """(T,) float, values of the similarity; a pair counts at or above"""
    precision: np.ndarray
    """(T,) share of the right pairs among those that are clear"""
    precision_low: np.ndarray
    """(T,) its lower confidence bound"""
    recall: np.ndarray
    """(T,) share of all right pairs"""


def precision_curve(
    similarity: np.ndarray, right: np.ndarray, unclear: np.ndarray, *, floor: float = -np.inf
) -> PrecisionCurve:
    """Precision and recall at every value of `similarity` that is not below `floor`.

    Args:
        similarity: (N,) float, of pairs.
        right: (N,) bool, pairs that should be found.
        unclear: (N,) bool, of the others, those that may be right.
        floor: wrong pairs below it were not searched, so that nothing is known there.

    Raises:
        ValueError: no pair is right.
    """
    from scipy.stats import beta

    if not right.any():
        raise ValueError("none of the pairs is right")
    order = np.argsort(-similarity, kind="stable")
    value, hits, doubts = similarity[order], np.cumsum(right[order]), np.cumsum(unclear[order])
    ends = np.append(value[1:] < value[:-1], True) & (value >= floor)  # equal values are taken together or not at all
    taken = np.arange(1, len(order) + 1)[ends]
    hits, doubts = hits[ends], doubts[ends]
    clear = taken - doubts
    low = beta.ppf(1 - CONFIDENCE, np.maximum(hits, 1), clear - hits + 1)
    precision = np.where(clear > 0, hits / np.maximum(1, clear), 1.0)  # of nothing, nothing is wrong
    return PrecisionCurve(value[ends], precision, np.where(hits > 0, low, 0.0), hits / right.sum())


def lowest_threshold(curve: PrecisionCurve, precision: float) -> int:
    """Row of the lowest threshold that keeps a precision, as sure as can be.

    That is the lowest one whose lower confidence bound is at least the precision. Where too few pairs are known for
    that, it is the one of the highest bound, the lower of two.

    Raises:
        ValueError: not even the precision that was seen is so high anywhere; the message names the best.
    """
    sure = np.flatnonzero(curve.precision_low >= precision)
    if len(sure):
        return int(sure[-1])
    good = np.flatnonzero((curve.precision >= precision) & (curve.recall > 0))
    if len(good) == 0:
        best = curve.precision[curve.recall > 0].max()
        raise ValueError(f"no threshold reaches a precision of {precision:g}, the best is {best:.3f}")
    bound = curve.precision_low[good]
    return int(good[np.flatnonzero(bound >= bound.max())[-1]])
