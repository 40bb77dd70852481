"""Local features: those of a mirrored picture follow from the picture's, and all that is stored is enough."""

from functools import cache

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from curate.ops.copies.features import (
    CONTRAST,
    DESCRIPTOR,
    GRAIN,
    MAX_POINTS,
    MIRRORED,
    SIDE,
    LocalFeatures,
    extract_features,
)
from curate.samples.bundled import PHOTOS

FILES = sorted(PHOTOS.rglob("*.jpg"))


@cache
def photo(number: int) -> Image.Image:
    return Image.open(FILES[number]).convert("RGB")


@pytest.mark.parametrize("number", [0, 40, 90])
def test_descriptors_of_the_mirror_image_follow_from_those_of_the_picture(number: int) -> None:
    plain, mirror = extract_features(photo(number)), extract_features(ImageOps.mirror(photo(number)))
    expected = np.stack([plain.luma.shape[1] - 1 - plain.points[:, 0], plain.points[:, 1]], axis=1)
    distance = np.linalg.norm(expected[:, None] - mirror.points[None], axis=2)  # (K, L)
    mirrored, same = plain.mirrored @ mirror.descriptors.T, plain.descriptors @ mirror.descriptors.T
    # A point may have several orientations: of those at its place the most alike one counts.
    there = distance < 1
    met = there.any(axis=1)
    assert met.mean() > 0.7
    at_place = np.where(there, mirrored, -1).max(axis=1)[met]
    assert np.median(at_place) > 0.98
    assert np.median(np.where(there, same, -1).max(axis=1)[met]) < np.median(at_place) - 0.1
    # Of all points of the mirror image, the one most alike is the one at the mirrored place.
    right = distance[np.arange(len(mirrored)), mirrored.argmax(axis=1)] < 3
    assert right[met].mean() > 0.9
    assert (distance[np.arange(len(same)), same.argmax(axis=1)] < 3)[met].mean() < 0.5


def test_mirroring_twice_changes_nothing() -> None:
    assert sorted(MIRRORED.tolist()) == list(range(DESCRIPTOR))
    assert MIRRORED[MIRRORED].tolist() == list(range(DESCRIPTOR))


@pytest.mark.parametrize("size", [(640, 400), (300, 500), (64, 48)])
def test_shapes_and_types(size: tuple[int, int]) -> None:
    found = extract_features(photo(3).resize(size))
    count = len(found.stored_points)
    assert 10 < count <= MAX_POINTS
    assert (found.stored_points.dtype, found.stored_descriptors.dtype) == (np.uint16, np.uint8)
    assert found.stored_points.shape == (count, 2)
    assert (found.descriptors.shape, found.descriptors.dtype) == ((count, DESCRIPTOR), np.float32)
    assert found.points.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-5)
    height, width = found.luma.shape
    assert max(height, width) == SIDE
    assert width / height == pytest.approx(size[0] / size[1], rel=0.01)
    assert (found.points >= 0).all()
    assert (found.points <= [width, height]).all()


@pytest.mark.parametrize("size", [(200, 100), (1, 1), (1, 3000), (3000, 1)])
def test_pictures_of_one_color_have_no_points(size: tuple[int, int]) -> None:
    found = extract_features(Image.new("RGB", size, (90, 120, 40)))
    assert found.points.shape == (0, 2)
    assert found.descriptors.shape == found.mirrored.shape == (0, DESCRIPTOR)
    assert max(found.luma.shape) == SIDE


def test_a_picture_gives_equal_bytes_every_time() -> None:
    first, second = extract_features(photo(7)), extract_features(photo(7).copy())
    assert first.encoded == second.encoded
    assert np.array_equal(first.stored_points, second.stored_points)
    assert np.array_equal(first.stored_descriptors, second.stored_descriptors)


def test_what_is_stored_is_nearly_what_was_found() -> None:
    found = extract_features(photo(11))
    again = LocalFeatures(found.stored_points, found.stored_descriptors, found.encoded)
    assert np.array_equal(again.descriptors, found.descriptors)
    assert np.array_equal(again.points * GRAIN, found.stored_points)
    fine = np.sqrt(sift_of(photo(11)))
    fine /= np.linalg.norm(fine, axis=1, keepdims=True)
    assert (fine * found.descriptors).sum(axis=1).min() > 0.96
    gray = photo(11).convert("L").resize(found.luma.shape[::-1], Image.Resampling.BILINEAR, reducing_gap=2.0)
    assert np.abs(found.luma.astype(int) - np.asarray(gray)).mean() < 3
    assert len(found.encoded) + found.stored_points.nbytes + found.stored_descriptors.nbytes < 36_000


def sift_of(picture: Image.Image) -> np.ndarray:
    """(K, 128) float32, as OpenCV gives them."""
    size = [round(side * SIDE / max(picture.size)) for side in picture.size]
    gray = picture.convert("L").resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    sift = cv2.SIFT_create(nfeatures=MAX_POINTS, contrastThreshold=CONTRAST)
    _, found = sift.detectAndCompute(np.asarray(gray), None)
    return found[:MAX_POINTS]
