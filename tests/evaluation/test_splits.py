import numpy as np
import pytest

from curate.evaluation.splits import stratified_sample, stratified_split

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 5, 7], [100, 10, 2, 1]))


def test_split_takes_its_share_of_each_class() -> None:
    train = stratified_split(LABELS, train_share=0.7, seed=0)
    assert [int(train[label == LABELS].sum()) for label in (0, 1, 5, 7)] == [70, 7, 1, 1]


def test_equal_seeds_split_alike_and_others_do_not() -> None:
    first, again, other = (stratified_split(LABELS, train_share=0.7, seed=seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_no_class_of_two_or_more_is_missing_on_a_side(share: float) -> None:
    train = stratified_split(LABELS, train_share=share, seed=0)
    assert set(LABELS[train]) == {0, 1, 5, 7}
    assert set(LABELS[~train]) == {0, 1, 5}


def test_classes_of_single_rows_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="3 rows, each of a class of its own"):
        stratified_split(np.arange(3), train_share=0.7, seed=0)


@pytest.mark.parametrize("num_rows", [1, 7, 50, 112])
@pytest.mark.parametrize("seed", range(3))
def test_a_sample_keeps_the_shares_to_within_a_row(num_rows: int, seed: int) -> None:
    rows = stratified_sample(LABELS, num_rows, seed=seed)
    assert len(np.unique(rows)) == len(rows) == num_rows
    assert (np.diff(rows) > 0).all()
    for label in np.unique(LABELS):
        wanted = num_rows * (label == LABELS).mean()
        assert abs((LABELS[rows] == label).sum() - wanted) < 1


def test_every_row_is_as_likely_in_a_sample() -> None:
    counts = np.zeros(len(LABELS))
    for seed in range(2000):
        counts[stratified_sample(LABELS, 30, seed=seed)] += 1
    expected = 2000 * 30 / len(LABELS)
    assert abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_a_small_set_is_taken_whole() -> None:
    np.testing.assert_array_equal(stratified_sample(LABELS, 113, seed=0), np.arange(113))
