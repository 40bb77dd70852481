import numpy as np
import pytest

from curate.evaluation import scores
from curate.evaluation.accuracy import Accuracy, paired_stderr
from curate.evaluation.scores import ScoreDifference


def answers(seed: int, share: float) -> Accuracy:
    return Accuracy.of(np.random.default_rng(seed).random(200) < share)


def test_accuracies_keep_their_standard_errors_alone_and_paired() -> None:
    first, second = answers(0, 0.6), answers(1, 0.8)
    one, two = (scores.of_accuracy("knn", "k=1", "test set", found) for found in (first, second))
    assert (one.value, one.stderr, one.num) == (first.value, pytest.approx(first.stderr), 200)
    difference = ScoreDifference(one, two)
    assert difference.value == pytest.approx(second.value - first.value)
    assert difference.stderr == pytest.approx(paired_stderr(first, second))


def test_the_error_of_splits_does_not_vanish_with_their_number() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 1000)
    few, many = (scores.of_splits("knn", "", list(values[:n]), test_share=0.3) for n in (5, 1000))
    assert few.stderr == pytest.approx(np.sqrt((1 / 5 + 3 / 7) * values[:5].var(ddof=1)))
    assert many.stderr == pytest.approx(np.sqrt(3 / 7) * 0.1, rel=0.05)


def test_a_bootstrap_gives_the_spread_of_its_draws() -> None:
    draws = np.random.default_rng(0).normal(0.4, 0.02, 500)
    found = scores.of_bootstrap("copies", "micro AP", "", 0.4, draws, num=7)
    assert (found.value, found.num) == (0.4, 7)
    assert found.stderr == pytest.approx(draws.std())


def test_a_model_does_not_differ_from_itself() -> None:
    score = scores.of_items("retrieval", "mAP", "", np.random.default_rng(0).random(50))
    assert (ScoreDifference(score, score).value, ScoreDifference(score, score).stderr) == (0, 0)
