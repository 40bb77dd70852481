"""Model inputs against torchvision."""

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as tv

from curate.ops.images.inspect import inspect_image
from curate.ops.images.preprocess import Preprocess, decode_side, preprocess
from tests.ops.images.pictures import LIMITS, encode, photo


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(300, 200), (201, 333), (80, 97)])
def test_preprocess_equals_torchvision(interpolation, size):
    image = photo().resize(size)
    mode = tv.InterpolationMode(interpolation)
    crop = Preprocess(96, "short_edge_crop", 111, interpolation, (0.5,) * 3, (0.5,) * 3)
    wanted = tv.center_crop(tv.resize(image, 111, interpolation=mode), 96)
    np.testing.assert_array_equal(preprocess(image, crop), np.asarray(wanted).transpose(2, 0, 1))
    square = Preprocess(96, "square", 96, interpolation, (0.5,) * 3, (0.5,) * 3)
    wanted = tv.resize(image, [96, 96], interpolation=mode)
    np.testing.assert_array_equal(preprocess(image, square), np.asarray(wanted).transpose(2, 0, 1))


def test_decode_side_serves_the_largest_consumer():
    small = Preprocess(98, "square", 98, "bicubic", (0.5,) * 3, (0.5,) * 3)
    large = Preprocess(224, "short_edge_crop", 256, "bicubic", (0.5,) * 3, (0.5,) * 3)
    assert decode_side([small, large]) == 256
    assert decode_side([small], at_least=128) == 128
    assert decode_side([]) == 0


def test_reduced_picture_looks_like_the_full_one():
    data = encode(photo().resize((1100, 800), Image.Resampling.BICUBIC), "JPEG", quality=90)
    how = Preprocess(224, "short_edge_crop", 256, "bicubic", (0.5,) * 3, (0.5,) * 3)
    full = preprocess(inspect_image(data, LIMITS).picture, how)
    reduced = preprocess(inspect_image(data, LIMITS, min_side=decode_side([how])).picture, how)
    assert np.abs(full.astype(int) - reduced).mean() < 3


@pytest.mark.parametrize("size", [(2, 90_000), (90_000, 2), (1, 1), (33, 1)])
def test_strips_and_points_are_cropped_to_the_middle_before_they_are_enlarged(size):
    """Of 2 x 90,000 pixels, a short side of 256 would make 11,520,000 pixels of the long one: 9 GB."""
    image = Image.new("RGB", size, (10, 20, 30))
    middle = (slice(size[1] // 2 - 4, size[1] // 2 + 4), slice(size[0] // 2 - 4, size[0] // 2 + 4))
    marked = np.array(image)
    if max(size) > 8:
        marked[middle] = (200, 100, 50)
    for resize, short in (("short_edge_crop", 256), ("square", 224)):
        how = Preprocess(224, resize, short, "bicubic", (0.5,) * 3, (0.5,) * 3)
        found = preprocess(Image.fromarray(marked), how)
        assert found.shape == (3, 224, 224)
        if max(size) > 40 and resize != "square":
            np.testing.assert_array_equal(found[:, 112, 112], (200, 100, 50))
