import numpy as np
import pytest

from curate.evaluation.accuracy import Accuracy, paired_stderr


def test_stderr_is_the_spread_of_repeated_tests():
    rng = np.random.default_rng(0)
    values = [Accuracy.of(rng.random(400) < 0.8).value for _ in range(2000)]
    assert Accuracy.of(np.arange(400) < 320).stderr == pytest.approx(np.std(values), rel=0.05)


def test_paired_stderr_is_zero_between_equal_answers_and_known_for_opposite_ones():
    first, second = Accuracy.of(np.array([True, False] * 8)), Accuracy.of(np.array([False, True] * 8))
    assert paired_stderr(first, first) == 0
    assert paired_stderr(first, second) == pytest.approx(1 / 4)
