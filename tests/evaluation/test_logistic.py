import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from curate.evaluation import logistic
from curate.evaluation.logistic import choose_strength, fit_logistic, logistic_accuracy
from curate.evaluation.splits import stratified_split


def clouds(n: int, *, seed: int, noise: float = 0.6, dim: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = np.eye(dim)[y] + rng.normal(0, noise, (n, dim))
    return x.astype(np.float32), y


@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_probabilities_equal_sklearn(strength: float) -> None:
    x, y = clouds(120, seed=0)
    reference = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(x, y)
    scores = fit_logistic(x, y, 3, strength=strength).scores(x)
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, reference.predict_proba(x.astype(np.float64)), atol=1e-4)


def test_a_fit_depends_neither_on_its_start_nor_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "TOLERANCE", 1e-7)
    x, y = clouds(90, seed=1)
    cold = fit_logistic(x, y, 3, strength=1.0)
    warm = fit_logistic(x, y, 3, strength=1.0, start=fit_logistic(x, y, 3, strength=0.01))
    np.testing.assert_allclose(warm.scores(x), cold.scores(x), atol=1e-4)
    monkeypatch.setattr(logistic, "BLOCK_CELLS", 30)
    np.testing.assert_allclose(fit_logistic(x, y, 3, strength=1.0).scores(x), cold.scores(x), atol=1e-4)
    assert cold.accuracy(x, y).value == np.mean(cold.scores(x).argmax(axis=1) == y)


def test_strength_is_the_one_that_held_out_rows_like_best() -> None:
    x, y = clouds(300, seed=2, noise=1.0, dim=60)  # so noisy that a weak penalty overfits
    y[:150] = 0  # and one class so frequent that a strong one sees no other
    strengths = (1e-4, 0.03, 1e4)
    fitted = stratified_split(y, train_share=0.8, seed=3)
    right = []
    for strength in strengths:
        reference = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000)
        right.append(reference.fit(x[fitted].astype(float), y[fitted]).score(x[~fitted], y[~fitted]))
    assert right[1] > max(right[0], right[2])
    assert choose_strength(x, y, 3, seed=3, strengths=strengths[::-1]) == strengths[1]
    assert choose_strength(x, y, 3, seed=3, strengths=(1e-5, 1e-4)) == 1e-5  # equally good


def test_the_chosen_model_is_fitted_on_all_rows_and_never_sees_the_test() -> None:
    (x, y), (test_x, test_y) = clouds(90, seed=4), clouds(60, seed=5)
    found, strength = logistic_accuracy(x, y, test_x, test_y, seed=0, strengths=(0.01, 1.0, 100.0))
    reference = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(x, y)
    np.testing.assert_array_equal(found.correct, reference.predict(test_x) == test_y)
    wrong = (test_y + 1) % 3
    assert logistic_accuracy(x, y, test_x, wrong, seed=0, strengths=(0.01, 1.0, 100.0))[1] == strength


def test_a_class_that_training_rows_lack_is_never_right() -> None:
    x, y = clouds(30, seed=6)
    found, _ = logistic_accuracy(x[y < 2], y[y < 2], x, y, seed=0, strengths=(1.0,))
    assert not found.correct[y == 2].any()
    assert found.correct[y < 2].any()
