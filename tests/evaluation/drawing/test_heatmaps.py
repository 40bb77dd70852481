import numpy as np
import pytest
from PIL import Image

from curate.evaluation.drawing.heatmaps import (
    DARKEST,
    FULL_SCALE,
    LIGHTEST,
    cut_out,
    heat_overlay,
    heat_table,
    strength,
    tiled,
)

GRAY = Image.new("RGB", (60, 40), (128, 128, 128))


def lightness(colors: np.ndarray) -> np.ndarray:
    """OKLab's L of (N, 3) uint8, by the forward matrices of its definition."""
    unit = colors / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    to_lms = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    return np.cbrt(linear @ to_lms.T) @ [0.2104542553, 0.7936177850, -0.0040720468]


def test_lightness_rises_in_equal_steps() -> None:
    np.testing.assert_allclose(lightness(heat_table()), np.linspace(DARKEST, LIGHTEST, 256), atol=0.012)


def test_colors_are_told_apart_all_along() -> None:
    steps = np.abs(np.diff(heat_table().astype(int)[::8], axis=0)).sum(axis=1)
    assert steps.min() > 10


def test_strength_is_the_strongest_patch_over_the_mean() -> None:
    assert strength(np.full((3, 4), 0.25)) == 1
    assert strength(np.array([[0.0, 3.0], [0.0, 1.0]])) == 3
    assert strength(np.zeros((2, 2))) == 1


def test_the_lightest_place_is_the_strongest_patch() -> None:
    attention = np.zeros((4, 6))
    attention[1, 4] = 1
    seen = lightness(np.asarray(heat_overlay(GRAY, attention)).reshape(-1, 3)).reshape(40, 60)
    row, column = np.unravel_index(seen.argmax(), seen.shape)
    assert (row // 10, column // 10) == (1, 4)
    assert seen[35, 5] < seen.max() - 0.3


def test_flat_attention_looks_flat_and_equal_attention_equal_whatever_its_sum() -> None:
    noisy = 1 + 0.01 * np.random.default_rng(0).random((4, 6))
    flat = np.asarray(heat_overlay(GRAY, noisy)).astype(int)
    assert np.ptp(flat, axis=(0, 1)).max() <= 3
    peaked = np.exp(-np.arange(24.0)).reshape(4, 6)
    np.testing.assert_array_equal(heat_overlay(GRAY, peaked), heat_overlay(GRAY, peaked * 0.3))


def test_the_scale_ends_at_the_strongest_patches_or_at_full_scale() -> None:
    seen = []
    for times in (2.0, FULL_SCALE, 20.0):
        attention = np.ones((8, 8))
        attention[:2, :2] = times  # mean close to 1
        attention[2:] = (64 - 4 * times - 12) / 48 if times < 10 else attention[2:]
        seen.append(lightness(np.asarray(heat_overlay(GRAY, attention)).reshape(-1, 3)).max())
    assert seen[0] < seen[1] - 0.1
    assert seen[1] == pytest.approx(seen[2], abs=0.03)


def test_a_mask_keeps_its_pixels_and_dims_the_others() -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(50, 255, (40, 60, 3), np.uint8))
    mask = rng.random((4, 6)) < 0.5
    wide = np.kron(mask, np.ones((10, 10), bool))
    found, pixels = np.asarray(cut_out(picture, mask)), np.asarray(picture)
    np.testing.assert_array_equal(found[wide], pixels[wide])
    assert (found[~wide] < 0.5 * pixels[~wide]).all()


def test_tiles_are_blocks_of_one_color() -> None:
    colors = np.random.default_rng(0).integers(0, 255, (2, 3, 3), np.uint8)
    np.testing.assert_array_equal(tiled(colors, (30, 20)), np.kron(colors, np.ones((10, 10, 1), np.uint8)))
    assert tiled(colors[..., 0], (30, 20)).mode == "L"
