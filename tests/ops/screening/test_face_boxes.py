"""Boxes of planted maps, and which of boxes that overlap stay, against brute force."""

import numpy as np
import pytest

from curate.ops.screening.face_boxes import STRIDE, decode_faces


def maps(faces, shape=(24, 32)):
    """Maps that say: faces of (left, top, right, bottom, confidence) in pixels."""
    heat, scales, offsets = (
        np.zeros(shape, np.float32),
        np.zeros((2, *shape), np.float32),
        np.zeros((2, *shape), np.float32),
    )
    for left, top, right, bottom, confidence in faces:
        y, x = (top + bottom) / 2 / STRIDE - 0.5, (left + right) / 2 / STRIDE - 0.5
        row, column = round(y), round(x)
        heat[row, column] = confidence
        offsets[:, row, column] = y - row, x - column
        scales[:, row, column] = np.log((bottom - top) / STRIDE), np.log((right - left) / STRIDE)
    return heat, scales, offsets


def overlap(a, b):
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(across, 0) * max(down, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def test_boxes_are_those_that_the_maps_say():
    faces = [(10, 12, 41, 50, 0.9), (80, 20, 96, 44, 0.6), (50, 70, 61, 85, 0.3)]
    found = decode_faces(*maps(faces), size=(128, 96), least=0.25)
    expected = np.array(faces) / (128, 96, 128, 96, 1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(decode_faces(*maps(faces), size=(128, 96), least=0.5)) == 2


def test_boxes_end_at_the_sides_of_the_picture():
    found = decode_faces(*maps([(-6, -8, 20, 20, 0.9)]), size=(128, 96), least=0.5)
    np.testing.assert_allclose(found[0, :2], 0)
    np.testing.assert_allclose(found[0, 2:4], (20 / 128, 20 / 96), atol=1e-5)


def test_of_boxes_that_overlap_the_most_likely_one_stays():
    rng = np.random.default_rng(0)
    shape = (24, 32)
    heat = rng.random(shape).astype(np.float32)
    scales = rng.normal(1, 0.5, (2, *shape)).astype(np.float32)
    offsets = rng.random((2, *shape)).astype(np.float32)
    found = decode_faces(heat, scales, offsets, size=(128, 96), least=0.3)
    every = []
    for row, column in np.argwhere(heat > 0.3):
        height, width = np.exp(scales[:, row, column]) * STRIDE
        y, x = (np.array([row, column]) + offsets[:, row, column] + 0.5) * STRIDE
        box = [max(0, x - width / 2) / 128, max(0, y - height / 2) / 96, min(128, x + width / 2) / 128]
        every.append([*box, min(96, y + height / 2) / 96, heat[row, column]])
    kept: list[list[float]] = []
    within = [box for box in every if box[0] < box[2] and box[1] < box[3]]
    for box in sorted(within, key=lambda one: -one[4]):
        if all(overlap(box, better) < 0.3 for better in kept):
            kept.append(box)
    np.testing.assert_allclose(found, kept, atol=1e-5)


def test_nothing_found_is_no_box():
    assert decode_faces(*maps([]), size=(128, 96), least=0.1).shape == (0, 5)


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_maps_of_a_broken_network_give_boxes_within_the_picture_or_none(scale):
    heat, scales, offsets = maps([(10, 10, 20, 20, 0.9)])
    found = decode_faces(heat, scales + np.float32(scale), offsets, size=(128, 96), least=0.5)
    assert ((found[:, :4] >= 0) & (found[:, :4] <= 1)).all()
