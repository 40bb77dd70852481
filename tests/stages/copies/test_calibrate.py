"""Thresholds from planted copies: the curve by brute force, and a pool whose own copies are no mistakes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import ConfigError
from curate.stages.copies.calibrate import choose, precision_curve


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 60))
def test_curve_and_choice_equal_brute_force(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    similarity = rng.integers(0, 12, size) / 12
    original = rng.random(size) < 0.5
    original[0] = True
    unclear = ~original & (rng.random(size) < 0.3)
    curve = precision_curve(similarity, original, unclear)
    assert curve.threshold.tolist() == sorted(set(similarity.tolist()), reverse=True)
    for threshold, precision, low, recall in zip(*curve, strict=True):
        taken = similarity >= threshold
        right = int((taken & original).sum())
        assert recall == pytest.approx(right / original.sum())
        assert low == pytest.approx(right / taken.sum())
        clear = int((taken & ~unclear).sum())
        assert precision == pytest.approx(right / clear if clear else 1.0)
    good = [t for t, p, _, r in zip(*curve, strict=True) if p >= 0.8 and r > 0]
    if good:
        assert curve.threshold[choose(curve, 0.8)] == min(good)
    else:
        with pytest.raises(ConfigError, match=r"no threshold reaches a precision of 0\.8"):
            choose(curve, 0.8)


def test_nothing_is_said_of_similarities_that_were_not_searched() -> None:
    similarity = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    curve = precision_curve(similarity, np.array([True, True, False, True, True]), np.zeros(5, bool), floor=0.6)
    assert curve.threshold.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert curve.recall.tolist() == [0.25, 0.5, 0.5, 0.75]
    assert curve.threshold[choose(curve, 0.7)] == 0.6


def test_nothing_found_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no planted copy has its original"):
        precision_curve(np.array([0.5]), np.array([False]), np.array([False]))
