import math

import numpy as np
import pytest
from PIL import Image

from curate.evaluation.dense.warps import Pose, apply, from_corners, place, random_view, rotation, translation, warp


def test_points_go_where_hand_computation_says() -> None:
    homography = np.array([[2.0, 0.0, 1.0], [0.0, 1.0, -2.0], [0.0, 0.5, 1.0]])
    # (3, 2): x = (2 * 3 + 1) / (0.5 * 2 + 1) = 3.5, y = (2 - 2) / 2 = 0; (0, 0): (1, -2)
    np.testing.assert_allclose(apply(homography, np.array([[3.0, 2.0], [0.0, 0.0]])), [[3.5, 0.0], [1.0, -2.0]])
    # a quarter turn counterclockwise on the screen: what is to the right goes up
    np.testing.assert_allclose(apply(rotation(math.pi / 2), np.array([[1.0, 0.0]])), [[0.0, -1.0]], atol=1e-12)


def test_a_pose_puts_the_middle_at_its_center_and_mirrors_first() -> None:
    put = place((10, 4), Pose(3.0, 0.0, (50.0, 60.0), mirrored=True))
    # the middle; the left edge, 5 from it, is 15 to the right after mirroring and scaling
    np.testing.assert_allclose(apply(put, np.array([[5.0, 2.0], [0.0, 2.0]])), [[50.0, 60.0], [65.0, 60.0]])


def test_corners_go_to_corners() -> None:
    source = np.array([[0, 0], [9, 1], [8, 7], [-1, 8]], np.float64)
    target = np.array([[1, 2], [30, 0], [28, 33], [3, 25]], np.float64)
    np.testing.assert_allclose(apply(from_corners(source, target), source), target, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_dot_moves_where_its_point_moves(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = np.zeros((128, 128), np.float32)
    x, y = rng.integers(50, 78, 2)
    pixels[y - 1 : y + 2, x - 1 : x + 2] = 255
    view = random_view(rng, 128, angle=math.pi / 3, zoom=1.5, tilt=0.1)
    moved = np.asarray(warp(Image.fromarray(pixels), view, (128, 128)), np.float64)
    rows, columns = np.mgrid[:128, :128] + 0.5
    center = np.array([(columns * moved).sum(), (rows * moved).sum()]) / moved.sum()
    (expected,) = apply(view, np.array([[x + 0.5, y + 0.5]]))
    assert np.linalg.norm(center - expected) < 0.3


def test_whole_pixels_are_moved_exactly() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    moved = np.asarray(warp(Image.fromarray(pixels), translation(2, 1), (8, 6), fill=(9, 9, 9)))
    np.testing.assert_array_equal(moved[1:, 2:], pixels[:-1, :-2])
    assert (moved[0] == 9).all()
