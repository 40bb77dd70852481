"""The scores of both rules on a chain and on planted pairs whose truth is known."""

import numpy as np
import pytest

from benchmarks.chains import _score_both


def test_both_rules_are_scored_by_what_they_drop_and_for_which_image() -> None:
    source = np.array([0, 0, 1, 1])  # two copies each, and a false pair between them
    rows, cols = np.array([0, 1, 2]), np.array([1, 2, 3])
    join, split = _score_both("toy", rows, cols, np.full(3, 0.9), np.ones(4, np.int64), source)
    assert (join.precision, join.recall, join.dropped, join.wrong, join.lost, join.largest) == (2 / 6, 1, 3, 2, 1, 4)
    assert (join.f1_gone, join.f1_gone_for) == pytest.approx((2 * 2 / 5, 2 * 1 / 5))
    assert (split.precision, split.recall, split.dropped, split.wrong, split.lost, split.largest) == (1, 1, 2, 0, 0, 2)
    assert (split.f1, split.f1_gone, split.f1_gone_for) == (1, 1, 1)
