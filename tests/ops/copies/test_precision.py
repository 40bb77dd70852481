"""Precision and recall of every threshold: the curve by brute force, and unclear pairs that are no mistakes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.ops.copies.precision import lowest_threshold, precision_curve


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
        assert low == pytest.approx(hits / taken.sum())
        clear = int((taken & ~unclear).sum())
        assert precision == pytest.approx(hits / clear if clear else 1.0)
    good = [t for t, p, _, r in zip(*curve, strict=True) if p >= 0.8 and r > 0]
    if good:
        assert curve.threshold[lowest_threshold(curve, 0.8)] == min(good)
    else:
        with pytest.raises(ValueError, match=r"no threshold reaches a precision of 0\.8, the best is 0\."):
            lowest_threshold(curve, 0.8)


def test_nothing_is_said_of_similarities_that_were_not_searched() -> None:
    similarity = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    curve = precision_curve(similarity, np.array([True, True, False, True, True]), np.zeros(5, bool), floor=0.6)
    assert curve.threshold.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert curve.recall.tolist() == [0.25, 0.5, 0.5, 0.75]
    assert curve.threshold[lowest_threshold(curve, 0.7)] == 0.6


def test_no_right_pair_is_an_error() -> None:
    with pytest.raises(ValueError, match="none of the pairs is right"):
        precision_curve(np.array([0.5]), np.array([False]), np.array([False]))
