import numpy as np
import pytest

from curate.feed.systematic import SHIFTS, SystematicSampling


def draws(sampling, groups, number, first=0):
    """How often each item of each group is drawn in a round."""
    counts, phases = sampling.count(number, first=first)
    picked = [sampling.pick(w, count=int(n), phase=float(p)) for w, n, p in zip(groups, counts, phases, strict=True)]
    return np.concatenate([np.bincount(p, minlength=len(w)) for p, w in zip(picked, groups, strict=True)])


def groups_of(seed, num_groups=6):
    rng = np.random.default_rng(seed)
    return [rng.uniform(0, 2, rng.integers(1, 9)).round(3) * (rng.random() < 0.8) for _ in range(num_groups)]


@pytest.mark.parametrize("seed", range(10))
def test_every_round_has_the_same_size_and_rounds_weights_up_or_down(seed):
    groups = groups_of(seed)
    sampling = SystematicSampling(np.array([g.sum() for g in groups]))
    weights = np.concatenate(groups)
    scaled = weights * sampling.size / weights.sum()
    for number in range(30):
        drawn = draws(sampling, groups, number, first=12_345)
        assert drawn.sum() == sampling.size == max(1, round(weights.sum()))
        assert (np.abs(drawn - scaled) < 1).all()
        assert (drawn[weights == 0] == 0).all()


def test_the_mean_over_rounds_is_the_weight():
    groups = groups_of(3)
    sampling = SystematicSampling(np.array([g.sum() for g in groups]))
    weights = np.concatenate(groups)
    mean = np.mean([draws(sampling, groups, number) for number in range(500)], axis=0)
    assert np.abs(mean - weights * sampling.size / weights.sum()).max() < 0.01


def test_all_shifts_come_once():
    sampling = SystematicSampling(np.array([0.5, 0.5]))
    phases = {float(sampling.count(number)[1][0]) for number in range(1000)}
    assert len(phases) == 1000
    assert float(sampling.count(SHIFTS + 5)[1][0]) == float(sampling.count(5)[1][0])


def test_whole_weights_are_drawn_exactly_even_far_down_the_line():
    groups = [np.array([1.0, 3.0, 0.0, 2.0])] * 3
    sampling = SystematicSampling(np.array([2e9, 6.0, 6.0]))
    for number in range(50):
        counts, phases = sampling.count(number, first=SHIFTS - 1)
        assert counts.tolist() == [2_000_000_000, 6, 6]
        assert sampling.pick(groups[1], count=6, phase=phases[1]).tolist() == [0, 1, 1, 1, 3, 3]


def test_a_sum_below_one_still_draws_one():
    sampling = SystematicSampling(np.array([0.1, 0.2]))
    assert sampling.size == 1
    shown = sum(sampling.count(number)[0] for number in range(300))
    assert shown.sum() == 300
    assert abs(shown[0] - 100) <= 2
