import numpy as np
import pytest
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from curate.evaluation.knn import knn_accuracy, knn_leave_one_out, knn_sweep, possible_ks


def clouds(n, *, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n) * 3  # labels need not be 0..C-1
    features = np.eye(6)[labels // 3] + rng.normal(0, 0.45, (n, 6))
    return features.astype(np.float32), labels


def sklearn_knn(k):
    return KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp(-distance / 0.07)
    )


@pytest.mark.parametrize("k", [1, 5, 20])
def test_predictions_equal_sklearn(k):
    (train_x, train_y), (test_x, test_y) = clouds(200, seed=0), clouds(90, seed=1)
    reference = sklearn_knn(k).fit(train_x, train_y)
    found = knn_accuracy(train_x, train_y, test_x, test_y, k)
    np.testing.assert_array_equal(found.correct, reference.predict(test_x) == test_y)
    assert found.value == pytest.approx(reference.score(test_x, test_y))
    assert 0.5 < found.value < 1


def test_leave_one_out_equals_sklearn():
    x, y = clouds(60, seed=2)
    reference = cross_val_predict(sklearn_knn(5), x, y, cv=LeaveOneOut())
    np.testing.assert_array_equal(knn_leave_one_out(x, y, 5).correct, reference == y)


def test_predictions_do_not_depend_on_blocks(monkeypatch):
    (train_x, train_y), (test_x, test_y) = clouds(50, seed=3), clouds(33, seed=4)

    def answers():
        split = knn_accuracy(train_x, train_y, test_x, test_y, 7)
        return [*split.correct, *knn_leave_one_out(train_x, train_y, 7).correct]

    whole = answers()
    monkeypatch.setattr("curate.evaluation.knn.BLOCK", 10)
    assert answers() == whole


@pytest.mark.parametrize("k", [0, 11])
def test_k_out_of_range_names_the_range(k):
    x, y = clouds(10, seed=0)
    with pytest.raises(ValueError, match=rf"k is {k}; with 10 rows it must lie in 1..10"):
        knn_accuracy(x, y, x, y, k)
    with pytest.raises(ValueError, match=r"must lie in 1..9"):
        knn_leave_one_out(x, y, 10)


def test_features_without_labels_are_an_error():
    x, y = clouds(10, seed=0)
    with pytest.raises(ValueError, match="10 features but 9 labels"):
        knn_accuracy(x, y[:9], x, y, 1)


def test_a_sweep_gives_what_each_k_gives_alone():
    (train_x, train_y), (test_x, test_y) = clouds(80, seed=5), clouds(40, seed=6)
    for k, found in knn_sweep(train_x, train_y, test_x, test_y, (3, 20, 80)).items():
        reference = sklearn_knn(k).fit(train_x, train_y)
        np.testing.assert_array_equal(found.correct, reference.predict(test_x) == test_y)
    with pytest.raises(ValueError, match=r"k is 81; with 80 rows it must lie in 1..80"):
        knn_sweep(train_x, train_y, test_x, test_y, (3, 81))


def test_numbers_of_neighbors_that_do_not_fit_are_left_out():
    assert possible_ks(10_000) == (10, 20, 100, 200)
    assert possible_ks(99) == (10, 20)
    assert possible_ks(7) == (7,)
