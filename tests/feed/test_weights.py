import numpy as np
import pytest

from curate.feed.weights import SHIFTS, Comb, path_weights


def draws(comb, groups, number, first=0):
    """How often each item of each group is drawn in a round."""
    counts, early = comb.count(number, first=first)
    picked = [comb.pick(w, count=int(n), early=float(e)) for w, n, e in zip(groups, counts, early, strict=True)]
    return np.concatenate([np.bincount(p, minlength=len(w)) for p, w in zip(picked, groups, strict=True)])


def groups_of(seed, num_groups=6):
    rng = np.random.default_rng(seed)
    return [rng.uniform(0, 2, rng.integers(1, 9)).round(3) * (rng.random() < 0.8) for _ in range(num_groups)]


@pytest.mark.parametrize("seed", range(10))
def test_every_round_has_the_same_size_and_rounds_weights_up_or_down(seed):
    groups = groups_of(seed)
    comb = Comb(np.array([g.sum() for g in groups]))
    weights = np.concatenate(groups)
    scaled = weights * comb.size / weights.sum()
    for number in range(30):
        drawn = draws(comb, groups, number, first=12_345)
        assert drawn.sum() == comb.size == max(1, round(weights.sum()))
        assert (np.abs(drawn - scaled) < 1).all()
        assert (drawn[weights == 0] == 0).all()


def test_the_mean_over_rounds_is_the_weight():
    groups = groups_of(3)
    comb = Comb(np.array([g.sum() for g in groups]))
    weights = np.concatenate(groups)
    mean = np.mean([draws(comb, groups, number) for number in range(500)], axis=0)
    assert np.abs(mean - weights * comb.size / weights.sum()).max() < 0.01


def test_all_shifts_come_once():
    comb = Comb(np.array([0.5, 0.5]))
    early = {float(comb.count(number)[1][0]) for number in range(1000)}
    assert len(early) == 1000
    assert float(comb.count(SHIFTS + 5)[1][0]) == float(comb.count(5)[1][0])


def test_whole_weights_are_drawn_exactly_even_far_down_the_line():
    groups = [np.array([1.0, 3.0, 0.0, 2.0])] * 3
    comb = Comb(np.array([2e9, 6.0, 6.0]))
    for number in range(50):
        counts, early = comb.count(number, first=SHIFTS - 1)
        assert counts.tolist() == [2_000_000_000, 6, 6]
        assert comb.pick(groups[1], count=6, early=early[1]).tolist() == [0, 1, 1, 1, 3, 3]


def test_a_sum_below_one_still_draws_one():
    comb = Comb(np.array([0.1, 0.2]))
    assert comb.size == 1
    shown = sum(comb.count(number)[0] for number in range(300))
    assert shown.sum() == 300
    assert abs(shown[0] - 100) <= 2


def test_path_weights_equal_a_loop_over_prefixes():
    rng = np.random.default_rng(0)
    paths = [rng.integers(0, 3, rng.integers(0, 4)).tolist() for _ in range(200)]
    weights = {"0": 0.5, "0/1": 2.0, "0/1/2": 7.0, "2": 0.0, "9": 3.0}
    offsets = np.concatenate([[0], np.cumsum([len(path) for path in paths])])
    found, met = path_weights(offsets, np.array([number for path in paths for number in path]), weights)
    for path, value in zip(paths, found, strict=True):
        prefixes = ["/".join(map(str, path[:n])) for n in range(len(path), 0, -1)]
        assert value == next((weights[p] for p in prefixes if p in weights), 1.0)
    assert met == {"0", "0/1", "0/1/2", "2"}
