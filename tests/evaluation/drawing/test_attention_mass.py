from itertools import combinations

import numpy as np
import pytest

from curate.evaluation.drawing.attention_mass import keep_mass


def attention(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(shape[-1], 0.5), shape[:-1])


@pytest.mark.parametrize("mass", [0.1, 0.6, 0.95])
def test_no_smaller_set_of_patches_holds_the_mass(mass: float) -> None:
    for weights in attention(4, 8):
        kept = keep_mass(weights, mass)
        assert weights[kept].sum() >= mass
        smaller = combinations(range(8), int(kept.sum()) - 1)
        assert all(weights[list(others)].sum() < mass for others in smaller)


def test_maps_are_masked_each_by_itself() -> None:
    weights = attention(2, 3, 20)
    apart = np.array([[keep_mass(head, 0.6) for head in picture] for picture in weights])
    np.testing.assert_array_equal(keep_mass(weights, 0.6), apart)


def test_the_mass_is_that_of_the_patches_and_not_of_cls() -> None:
    weights = attention(3, 20)
    np.testing.assert_array_equal(keep_mass(weights * 0.3, 0.6), keep_mass(weights, 0.6))


def test_all_the_mass_lies_on_all_patches_that_have_some() -> None:
    np.testing.assert_array_equal(keep_mass(np.array([0.5, 0.0, 0.25, 0.25]), 1.0), [True, False, True, True])


def test_equal_patches_are_kept_in_order() -> None:
    np.testing.assert_array_equal(keep_mass(np.full(4, 0.25), 0.5), [True, True, False, False])


@pytest.mark.parametrize("mass", [0.0, 1.1])
def test_a_share_out_of_range_is_an_error(mass: float) -> None:
    with pytest.raises(ValueError, match=f"mass {mass:g}: a share above 0 and at most 1 is needed"):
        keep_mass(attention(4), mass)


def test_negative_attention_is_an_error() -> None:
    with pytest.raises(ValueError, match="attention of -0.5: shares of attention are never negative"):
        keep_mass(np.array([0.5, -0.5]), 0.6)
