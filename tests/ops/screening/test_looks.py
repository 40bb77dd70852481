"""Looks against their definitions in SciPy and NumPy, and against what was done to a picture."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage, stats

from curate.ops.screening.looks import LOOKS, Pictured, measure_looks
from tests.ops.images.pictures import encode, gradient, photo, photo_bytes

NAMES = ("birds/heron.jpg", "space/earth.jpg", "tools/hammer5.jpg", "music_people/cameraman.jpg", "places/hall.jpg")


def looks(picture, *, data=b"", size=None):
    width, height = size or picture.size
    return measure_looks(Pictured(picture, width, height, data), list(LOOKS))


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_their_definitions(name):
    picture = photo(name)
    found, values = looks(picture), np.asarray(picture).astype(np.float64)
    bright = np.sqrt(values**2 @ (0.241, 0.691, 0.068)) / 255
    assert found["darkness"] == pytest.approx(1 - np.percentile(bright, 99), abs=1e-3)
    assert found["overexposure"] == pytest.approx(np.percentile(bright, 5), abs=1e-3)
    entropies = [
        stats.entropy(np.bincount(channel.ravel(), minlength=256), base=2)
        for channel in np.moveaxis(np.asarray(picture), 2, 0)
    ]
    assert found["low_information"] == pytest.approx(1 - np.mean(entropies) / 8, abs=1e-9)
    assert 8 * (1 - found["low_information"]) + np.log2(3) == pytest.approx(
        picture.entropy(), abs=1e-9
    )  # CleanVision's
    assert found["grayscale"] == pytest.approx((np.ptp(values, axis=2) <= 8).mean(), abs=1e-12)
    scale = 64 / max(picture.size)
    small = picture.resize([int(side * scale) for side in picture.size], Image.Resampling.BICUBIC).convert("L")
    kernel = np.full((3, 3), -1.0)
    kernel[1, 1] = 8
    edges = np.clip(ndimage.correlate(np.asarray(small).astype(np.float64), kernel)[1:-1, 1:-1], 0, 255)
    assert found["blur"] == pytest.approx(np.exp(-edges.std() / 100), abs=1e-9)
    luma = np.asarray(picture.convert("L")).astype(int)
    steps = np.maximum(abs(np.diff(luma, axis=1))[:-1], abs(np.diff(luma, axis=0))[:, :-1])
    assert found["flat"] == pytest.approx((steps <= 2).mean(), abs=1e-12)


def test_blur_grows_as_a_picture_is_blurred_and_passes_the_preset():
    for name in NAMES[:3]:
        picture = photo(name)
        radii = [0, 2, 4, 8, 16]
        scores = [looks(picture.filter(ImageFilter.GaussianBlur(radius)))["blur"] for radius in radii]
        assert scores == sorted(scores)
        assert scores[0] < LOOKS["blur"].above < scores[-1]


def test_blur_does_not_depend_on_the_size_of_a_picture():
    picture = photo()
    double = picture.resize([2 * side for side in picture.size], Image.Resampling.BICUBIC)
    assert looks(double)["blur"] == pytest.approx(looks(picture)["blur"], abs=0.03)


def test_presets_take_what_they_are_for_and_leave_photographs():
    for name in NAMES:
        picture = photo(name)
        found = looks(picture, data=photo_bytes(name))
        broken = {score for score, value in found.items() if value > LOOKS[score].above}
        assert broken == ({"grayscale"} if name == "music_people/cameraman.jpg" else set())
    picture = photo()
    dark = picture.point(lambda value: value // 4)
    assert looks(dark)["darkness"] > LOOKS["darkness"].above
    bright = picture.point(lambda value: 248 + value // 40)
    assert looks(bright)["overexposure"] > LOOKS["overexposure"].above
    drawing = Image.new("RGB", (256, 256), "white")
    ImageDraw.Draw(drawing).rectangle((50, 50, 200, 90), "navy")
    assert looks(drawing)["flat"] > LOOKS["flat"].above
    assert looks(drawing)["low_information"] > LOOKS["low_information"].above
    gray = picture.convert("L").convert("RGB")
    assert looks(gray)["grayscale"] == 1


def test_shape_and_frames_are_those_of_the_original():
    moving = encode(gradient(), "GIF", save_all=True, append_images=[gradient().rotate(90)], duration=50)
    found = looks(gradient(), data=moving, size=(3000, 1000))
    assert (found["odd_aspect"], found["animated"]) == (3.0, 2)
    assert isinstance(found["animated"], int)
    assert looks(gradient(), size=(1000, 3000))["odd_aspect"] == 3.0


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (2, 2)])
def test_the_smallest_pictures_have_all_scores(size):
    found = looks(Image.new("RGB", size, "gray"))
    assert found.keys() == LOOKS.keys()
    assert all(np.isfinite(value) for value in found.values())
    assert found["blur"] == found["flat"] == 1


def test_only_what_is_asked_for_is_measured():
    assert measure_looks(Pictured(gradient(), 96, 64, b""), ["blur"]).keys() == {"blur"}
