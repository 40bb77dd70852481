"""Alignment of small pictures: against a direct loop over shifts, and on crops, mirrors and strangers."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from curate.ops.copies.alignment import MIN_OVERLAP, align, alignment_score

SIDE = 24


def texture(seed: int, side: int = 96) -> np.ndarray:
    """(side, side) a random picture with detail of a few values' size, zero mean."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((side, side)), side / 32, mode="wrap")
    return (noise / noise.std()).astype(np.float32)


def small(picture: np.ndarray) -> np.ndarray:
    """(1, 576) the picture at 24 x 24."""
    return zoom(picture, SIDE / picture.shape[0], order=1)[:SIDE, :SIDE].reshape(1, -1).astype(np.float32)


def best_shift(a: np.ndarray, b: np.ndarray) -> float:
    """Best normalised correlation over integer shifts, by a plain loop."""
    best = -1.0
    for down in range(-SIDE, SIDE):
        for right in range(-SIDE, SIDE):
            rows, cols = slice(max(0, down), SIDE + min(0, down)), slice(max(0, right), SIDE + min(0, right))
            p = a[rows, cols]
            q = b[max(0, -down) : SIDE - max(0, down), max(0, -right) : SIDE - max(0, right)]
            if p.size >= MIN_OVERLAP * SIDE * SIDE:
                best = max(best, float((p * q).sum() / np.sqrt((p * p).sum() * (q * q).sum())))
    return best


def test_a_picture_lies_exactly_over_itself_and_its_mirror_image() -> None:
    x = small(texture(0))
    assert align(x, x)[0] == pytest.approx(1, abs=1e-4)
    assert align(x, x.reshape(SIDE, SIDE)[:, ::-1].reshape(1, -1).copy())[0] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_no_shift_of_the_plain_picture_correlates_better(seed: int) -> None:
    a, b = small(texture(seed)), small(texture(seed + 100))
    assert align(a, b)[0] >= best_shift(a.reshape(SIDE, SIDE), b.reshape(SIDE, SIDE)) - 1e-4


@pytest.mark.parametrize("seed", range(6))
def test_crops_align_better_than_other_pictures(seed: int) -> None:
    whole = texture(seed)
    crop = small(whole[8:84, 14:90])  # 63 % of the area
    stranger = small(texture(seed + 50))
    assert align(small(whole), crop)[0] > 0.7
    assert align(crop, small(whole))[0] > 0.7
    assert align(small(whole), stranger)[0] < 0.6


def test_contrast_does_not_matter_and_flat_pictures_match_nothing() -> None:
    a, b = small(texture(1)), small(texture(2))
    np.testing.assert_allclose(align(3 * a, 0.5 * b), align(a, b), atol=1e-4)
    assert align(a, np.zeros_like(a))[0] == pytest.approx(0, abs=1e-3)


def test_a_pair_does_not_depend_on_the_others() -> None:
    pictures = np.concatenate([small(texture(seed)) for seed in range(5)])
    queries, images = pictures[[0, 1, 2, 3]], pictures[[4, 4, 0, 0]]
    alone = [align(queries[i : i + 1], images[i : i + 1])[0] for i in range(4)]
    assert align(queries, images).tolist() == alone


def test_no_pairs_give_no_scores() -> None:
    assert align(np.empty((0, 576), np.float32), np.empty((0, 576), np.float32)).shape == (0,)


@pytest.mark.parametrize("shape", [(1, 575), (2, 576)])
def test_pictures_that_do_not_fit_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="both must be"):
        align(np.zeros(shape, np.float32), np.zeros((1, shape[1]), np.float32))


def test_the_score_is_a_weighted_mean() -> None:
    cosine, correlation = np.array([0.9, 0.8], np.float32), np.array([0.3, 0.8], np.float32)
    np.testing.assert_allclose(alignment_score(cosine, correlation, weight=0.5), [0.7, 0.8], rtol=1e-6)
