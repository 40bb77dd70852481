"""Precision and recall of every threshold: the curve by brute force, and unclear pairs that are no mistakes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from curate.ops.copies.precision import CONFIDENCE, PrecisionCurve, lowest_threshold, precision_curve


def lower_bound(hits: int, clear: int) -> float:
    """The bound of Clopper and Pearson as scipy has it: a one-sided one of 95 % is the end of a two-sided one of 90."""
    return binomtest(hits, clear).proportion_ci(0.9, method="exact").low if clear else 0.0


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 60))
def test_curve_and_choice_equal_brute_force(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    similarity = rng.integers(0, 12, size) / 12
    right = rng.random(size) < 0.5
    right[0] = True
    unclear = ~right & (rng.random(size) < 0.3)
    curve = precision_curve(similarity, right, unclear)
    assert curve.threshold.tolist() == sorted(set(similarity.tolist()), reverse=True)
    for threshold, precision, low, recall in zip(*curve, strict=True):
        taken = similarity >= threshold
        hits = int((taken & right).sum())
        assert recall == pytest.approx(hits / right.sum())
        clear = int((taken & ~unclear).sum())
        assert precision == pytest.approx(hits / clear if clear else 1.0)
        assert low == pytest.approx(lower_bound(hits, clear), abs=1e-9)
    rows = list(zip(*curve, strict=True))
    sure = [t for t, _, low, _ in rows if low >= 0.8]
    good = [(low, -t) for t, p, low, r in rows if p >= 0.8 and r > 0]
    if sure:
        assert curve.threshold[lowest_threshold(curve, 0.8)] == min(sure)
    elif good:
        assert curve.threshold[lowest_threshold(curve, 0.8)] == -max(good)[1]
    else:
        with pytest.raises(ValueError, match=r"no threshold reaches a precision of 0\.8, the best is 0\."):
            lowest_threshold(curve, 0.8)


def test_nothing_is_said_of_similarities_that_were_not_searched() -> None:
    similarity = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    curve = precision_curve(similarity, np.array([True, True, False, True, True]), np.zeros(5, bool), floor=0.6)
    assert curve.threshold.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert curve.recall.tolist() == [0.25, 0.5, 0.5, 0.75]
    assert curve.threshold[lowest_threshold(curve, 0.7)] == 0.6


def test_the_lower_bound_is_the_precision_at_which_so_many_hits_are_just_too_good_to_be_chance() -> None:
    right = np.arange(200) % 20 != 7
    curve = precision_curve(np.linspace(1, 0.5, 200), right, np.zeros(200, bool))
    hits, low = int(right.sum()), curve.precision_low[-1]
    assert binom.sf(hits - 1, 200, low) == pytest.approx(1 - CONFIDENCE)
    assert low < curve.precision[-1] == 0.95


def test_the_lowest_threshold_of_a_sure_precision_is_taken_though_a_higher_one_was_seen_nowhere() -> None:
    right = np.ones(400, bool)
    right[380:] = False
    curve = precision_curve(np.linspace(1, 0.5, 400), right, np.zeros(400, bool))
    row = lowest_threshold(curve, 0.98)
    assert curve.precision_low[row] >= 0.98 > curve.precision_low[row + 1]
    assert curve.precision[row + 1] > 0.98  # what was seen there is no proof


def test_where_no_bound_is_enough_the_highest_one_is_taken_and_the_lower_of_two() -> None:
    curve = PrecisionCurve(
        threshold=np.array([0.9, 0.8, 0.7, 0.6]),
        precision=np.array([1.0, 1.0, 0.9, 0.9]),
        precision_low=np.array([0.2, 0.6, 0.6, 0.5]),
        recall=np.array([0.1, 0.3, 0.6, 0.8]),
    )
    assert lowest_threshold(curve, 0.8) == 2
    assert lowest_threshold(curve, 0.95) == 1
    assert lowest_threshold(curve, 0.5) == 3
    with pytest.raises(ValueError, match=r"no threshold reaches a precision of 0\.9, the best is 0\.700"):
        lowest_threshold(curve._replace(precision=np.full(4, 0.7)), 0.9)


def test_no_right_pair_is_an_error() -> None:
    with pytest.raises(ValueError, match="none of the pairs is right"):
        precision_curve(np.array([0.5]), np.array([False]), np.array([False]))
