import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from curate.evaluation import retrieval
from curate.evaluation.retrieval import retrieve_by_class


def clouds(n: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    return (np.eye(6)[labels] + rng.normal(0, 0.5, (n, 6))).astype(np.float32), labels


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


def test_leave_one_out_equals_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "BLOCK_CELLS", 400)  # several blocks
    x, y = clouds(60, seed=0)
    y[0] = 9  # alone in its class: nothing to find, so it does not ask
    found, similarity = retrieve_by_class(x, y), cosines(x, x)
    assert found.queries.tolist() == list(range(1, 60))
    for place, query in enumerate(found.queries):
        others = np.arange(60) != query
        same = y[others] == y[query]
        wanted = average_precision_score(same, similarity[query, others])
        assert found.average_precision[place] == pytest.approx(wanted)
        ranked = same[np.argsort(-similarity[query, others])]
        assert [bool(found.recalled[k][place]) for k in (1, 5, 10)] == [ranked[:k].any() for k in (1, 5, 10)]


def test_a_test_set_asks_the_training_set() -> None:
    (x, y), (test_x, test_y) = clouds(50, seed=1), clouds(20, seed=2)
    found, similarity = retrieve_by_class(x, y, test_x, test_y), cosines(test_x, x)
    wanted = [average_precision_score(y == label, row) for label, row in zip(test_y, similarity, strict=True)]
    np.testing.assert_allclose(found.average_precision, wanted, rtol=1e-5)


def test_many_queries_are_sampled_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = clouds(60, seed=3)
    everything = retrieve_by_class(x, y)
    monkeypatch.setattr(retrieval, "MAX_QUERIES", 10)
    first, again, other = (retrieve_by_class(x, y, seed=seed) for seed in (0, 0, 1))
    assert first.queries.tolist() == again.queries.tolist() != other.queries.tolist()
    assert len(first.queries) == 10
    np.testing.assert_allclose(first.average_precision, everything.average_precision[first.queries])


def test_classes_of_one_picture_leave_nothing_to_ask() -> None:
    x, _ = clouds(3, seed=4)
    with pytest.raises(ValueError, match="none of 3 queries has another picture of its class"):
        retrieve_by_class(x, np.arange(3))
