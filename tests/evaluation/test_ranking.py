import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve

from curate.evaluation.ranking import PrecisionRecall, average_precision, micro_average_precision, recall_at_precision


def scores(shape: tuple[int, ...], *, levels: int | None, seed: int) -> np.ndarray:
    """Random, or of few levels so that many are equal."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) if levels is None else rng.integers(0, levels, shape).astype(float)


@pytest.mark.parametrize("levels", [None, 4, 1])
def test_average_precision_equals_sklearn(levels: int | None) -> None:
    found, relevant = scores((20, 30), levels=levels, seed=0), np.random.default_rng(1).random((20, 30)) < 0.2
    relevant[:, 3] = True
    wanted = [average_precision_score(r, s) for r, s in zip(relevant, found, strict=True)]
    np.testing.assert_allclose(average_precision(found, relevant), wanted)


def test_items_left_out_do_not_count() -> None:
    found, relevant = scores((5, 12), levels=None, seed=2), np.random.default_rng(3).random((5, 12)) < 0.5
    relevant[:, :2] = True
    without = average_precision(found[:, 1:], relevant[:, 1:])
    found[:, 0] = -np.inf
    np.testing.assert_allclose(average_precision(found, relevant), without)


@pytest.mark.parametrize("levels", [None, 5])
def test_micro_average_precision_equals_sklearn_where_all_answers_are_given(levels: int | None) -> None:
    found, right = scores((200,), levels=levels, seed=4), np.random.default_rng(5).random(200) < 0.3
    answers = PrecisionRecall(found, right, np.arange(200))
    curve = answers.curve(right.sum(), np.ones(200))
    assert micro_average_precision(*curve) == pytest.approx(average_precision_score(right, found))
    precision, recall, _ = precision_recall_curve(right, found)
    for wanted in (0.3, 0.5, 0.9):
        expected = recall[:-1][precision[:-1] >= wanted].max(initial=0.0)
        assert recall_at_precision(*curve, wanted=wanted) == pytest.approx(expected)


def test_weights_are_repetitions_of_queries() -> None:
    found, right = scores((60,), levels=9, seed=6), np.random.default_rng(7).random(60) < 0.4
    queries, weights = np.arange(60) % 20, np.random.default_rng(8).integers(0, 4, 20)
    weighted = PrecisionRecall(found, right, queries).curve((right * weights[queries]).sum(), weights)
    again = np.repeat(np.arange(60), weights[queries])
    assert micro_average_precision(*weighted) == pytest.approx(average_precision_score(right[again], found[again]))


def test_right_answers_that_nobody_gave_cost_recall() -> None:
    answers = PrecisionRecall(np.array([0.9, 0.5]), np.array([True, False]), np.array([0, 1]))
    curve = answers.curve(4, np.ones(2))
    assert micro_average_precision(*curve) == recall_at_precision(*curve, wanted=0.9) == 0.25


def test_a_precision_that_is_never_reached_gives_no_recall() -> None:
    answers = PrecisionRecall(np.array([0.9, 0.5]), np.array([False, True]), np.array([0, 1]))
    assert recall_at_precision(*answers.curve(1, np.ones(2)), wanted=0.9) == 0.0
