import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.trainer.masks import add_single_patches, draw_block_mask, draw_masks


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 24), st.integers(2, 16), st.floats(0, 1), st.integers(0, 1000))
def test_at_most_floor_share_of_the_crops_are_masked(num_crops, grid, share, seed):
    masks = draw_masks(num_crops, grid, rng=np.random.default_rng(seed), share=share)
    assert masks.shape == (num_crops, grid * grid)
    assert masks.any(axis=1).sum() <= int(num_crops * share)


def test_exactly_half_of_the_crops_are_masked_on_a_real_grid():
    for seed in range(20):
        masks = draw_masks(9, 16, rng=np.random.default_rng(seed))
        assert masks.any(axis=1).sum() == 4


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 16), st.floats(0, 1), st.integers(0, 1000))
def test_blocks_never_mask_more_than_asked(grid, ratio, seed):
    wanted = int(grid * grid * ratio)
    assert draw_block_mask(grid, wanted, rng=np.random.default_rng(seed)).sum() <= wanted


def test_ratios_are_stratified_over_the_masked_crops():
    strata = np.linspace(0.1, 0.5, 9)
    reached = np.zeros((50, 8))
    for seed in range(50):
        counts = draw_masks(16, 16, rng=np.random.default_rng(seed)).sum(axis=1) / 256
        reached[seed] = np.sort(counts)[8:]
    assert (reached <= strata[1:] + 1e-9).all()
    np.testing.assert_allclose(reached.mean(axis=0), (strata[:-1] + strata[1:]) / 2, atol=0.03)


def test_masked_crops_lie_anywhere_in_the_batch():
    hits = sum(draw_masks(8, 8, rng=np.random.default_rng(s)).any(axis=1) for s in range(200))
    assert (hits > 60).all()
    assert (hits < 140).all()


def test_a_single_block_is_a_rectangle():
    mask = draw_block_mask(16, 8, rng=np.random.default_rng(3))
    assert mask.sum() >= 1
    first = draw_block_mask(16, 200, rng=np.random.default_rng(3))
    assert first.sum() > 100  # large targets are reached by several blocks


def test_one_seed_gives_one_mask():
    first, second = (draw_masks(8, 8, rng=np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("num_patches", [0])
def test_no_patches_asked_no_patches_masked(num_patches):
    assert not draw_block_mask(8, num_patches, rng=np.random.default_rng(0)).any()


@pytest.mark.parametrize("grid", [7, 14, 16])
def test_exact_masks_have_the_upper_end_of_each_step(grid):
    wanted = [int(grid * grid * ratio) for ratio in np.linspace(0.1, 0.5, 9)[1:]]
    for seed in range(10):
        counts = draw_masks(16, grid, rng=np.random.default_rng(seed), exact=True).sum(axis=1)
        assert sorted(counts)[8:] == wanted
        assert sorted(counts)[:8] == [0] * 8


def test_single_patches_are_added_to_blocks_anywhere():
    mask = draw_block_mask(8, 10, rng=np.random.default_rng(0))
    full = [add_single_patches(mask, 30, rng=np.random.default_rng(seed)) for seed in range(40)]
    assert all(one[mask].all() and one.sum() == 30 for one in full)
    assert np.any(full, axis=0).all()
    np.testing.assert_array_equal(add_single_patches(mask, int(mask.sum()), rng=np.random.default_rng(0)), mask)
