"""Facts of good and bad encoded images, and the verdict on them."""

import hashlib
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curate.config import parse
from curate.errors import ConfigError
from curate.ops.images.inspect import ImageLimits, inspect_image
from curate.tables import REJECT_REASONS
from tests.ops.images.pictures import LIMITS, encode, gradient, photo, photo_bytes, pixels, png_claiming

SUBJECTS = ("birds/heron.jpg", "birds/duck.jpg", "birds/chicken.jpg")


def test_accepted_image_carries_the_facts_of_its_file():
    data = photo_bytes()
    found = inspect_image(data, LIMITS)
    assert (found.reject, found.detail) == (None, None)
    assert (found.width, found.height) == photo().size == found.picture.size
    assert found.num_bytes == len(data)
    assert found.sha256 == hashlib.sha256(data).digest()
    assert found.format == "JPEG"
    np.testing.assert_array_equal(pixels(found.picture), pixels(photo()))


def test_luma_statistics_equal_numpy():
    found = inspect_image(photo_bytes(), LIMITS)
    luma = pixels(photo().convert("L"))
    assert found.luma_std == pytest.approx(luma.std(), rel=1e-6)
    rows = np.corrcoef(luma[:, :-1].ravel(), luma[:, 1:].ravel())[0, 1]
    columns = np.corrcoef(luma[:-1].ravel(), luma[1:].ravel())[0, 1]
    assert found.smoothness == pytest.approx((rows + columns) / 2, abs=0.02)  # measured on 64 lines each


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"", "empty", "0 bytes"),
        (b"<html><body>404</body></html>", "not_an_image", "starts with b'<html>"),
        (b"BMW makes cars, and this is a text.", "not_an_image", "as no known image format does"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "unsupported",
            "PostScript: not read; convert",
        ),
        (b"\xff\xd8\xff\xe0" + b"\0" * 40, "corrupt", "JPEG of 44 bytes"),
        (b"\x89PNG\r\n\x1a\n" + b"junk" * 10, "truncated", "PNG of 48 bytes"),
    ],
)
def test_what_is_no_picture_is_named(data, reason, detail):
    found = inspect_image(data, LIMITS)
    assert found.reject == reason
    assert detail in found.detail
    assert found.picture is None
    assert found.sha256 == hashlib.sha256(data).digest()


def test_bomb_is_refused_from_its_header():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        ours = inspect_image(png_claiming(12_000, 9_000), LIMITS)
    assert ours.reject == "too_large"
    assert "12000 x 9000 = 108000000 pixels, at most 89478485" in ours.detail
    assert (ours.width, ours.height) == (12_000, 9_000)
    pillows = inspect_image(png_claiming(60_000, 60_000), LIMITS)
    assert (pillows.reject, pillows.width) == ("too_large", None)
    assert "3600000000 pixels" in pillows.detail


def test_bomb_warning_raised_as_error_is_a_reject():
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        assert inspect_image(png_claiming(12_000, 9_000), LIMITS).reject == "too_large"


def test_too_many_bytes_are_refused_unopened():
    data = photo_bytes()
    found = inspect_image(data, ImageLimits(max_bytes=1000))
    assert (found.reject, found.format) == ("too_large", None)
    assert found.detail == f"{len(data)} bytes, at most 1000 are allowed"


@pytest.mark.parametrize(
    ("image", "reason", "detail"),
    [
        (gradient((600, 40)), "extreme_aspect", "600 x 40 pixels: aspect 15.0, at most 8 is allowed"),
        (gradient((40, 31)), "too_small", "40 x 31 pixels: at least 32 on the short side are needed"),
        (gradient((200, 10)), "extreme_aspect", "aspect 20.0"),  # and too small: the earlier reason wins
        (Image.new("RGB", (64, 64), (200, 30, 90)), "uniform", "pixels deviate by 0.00, at least 2 is needed"),
        (Image.new("RGB", (20, 20)), "too_small", "20 x 20"),  # and uniform
        (Image.effect_noise((128, 128), 90), "noise", "neighbouring pixels correlate by"),
    ],
)
def test_poor_pictures_are_rejected_by_the_first_reason_that_holds(image, reason, detail):
    found = inspect_image(encode(image, "PNG"), LIMITS)
    assert found.reject == reason
    assert detail in found.detail
    assert (found.width, found.height) == image.size


def test_two_colours_of_equal_luma_are_not_uniform():
    image = Image.new("RGB", (64, 64), (255, 0, 0))
    image.paste((0, 130, 0), (0, 0, 32, 64))
    found = inspect_image(encode(image, "PNG"), LIMITS)
    assert found.luma_std < LIMITS.min_luma_std
    assert found.reject is None


@pytest.mark.parametrize("quality", [30, 60, 90])
def test_jpeg_noise_is_noise_and_photographs_are_not(quality):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 150, 3), dtype=np.uint8))
    assert inspect_image(encode(noise, "JPEG", quality=quality), LIMITS).reject == "noise"
    for name in SUBJECTS:
        assert inspect_image(photo_bytes(name), LIMITS).smoothness > 0.7


def test_limits_are_the_users():
    data = encode(gradient((600, 40)), "PNG")
    assert inspect_image(data, ImageLimits(max_aspect=20)).reject is None
    assert inspect_image(data, ImageLimits(max_aspect=20, min_side=41)).reject == "too_small"
    with pytest.raises(ConfigError, match="min_sid: unknown key; did you mean 'min_side'"):
        parse(ImageLimits, {"min_sid": 3}, where="images")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), form=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]))
def test_random_damage_never_raises(seed, form):
    rng = np.random.default_rng(seed)
    data = bytearray(encode(gradient(), form))
    for at in rng.integers(0, len(data), 8):
        data[at] = rng.integers(256)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = inspect_image(bytes(data[: rng.integers(1, len(data) + 1)]), LIMITS)
    assert found.reject is None or found.reject in REJECT_REASONS
    assert (found.picture is None) == (found.reject is not None) == (found.detail is not None)


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(40, 900),
    height=st.integers(40, 900),
    min_side=st.integers(32, 300),
    form=st.sampled_from(["JPEG", "PNG"]),
)
def test_reduced_pictures_keep_the_pixels_their_consumers_need(width, height, min_side, form):
    data = encode(gradient((width, height)), form)
    found = inspect_image(data, LIMITS, min_side=min_side)
    if found.reject == "extreme_aspect":
        return
    assert (found.width, found.height) == (width, height)
    assert min(found.picture.size) >= min(min_side, width, height)
    assert min(found.picture.size) < 2 * min_side or min(width, height) < 2 * min_side


def test_threads_agree_with_one():
    files = [photo_bytes(name) for name in SUBJECTS] * 8
    one = [inspect_image(data, LIMITS, min_side=64) for data in files]
    with ThreadPoolExecutor(4) as threads:
        many = list(threads.map(lambda data: inspect_image(data, LIMITS, min_side=64), files))
    for a, b in zip(one, many, strict=True):
        assert (a.luma_std, a.smoothness) == (b.luma_std, b.smoothness)
        np.testing.assert_array_equal(pixels(a.picture), pixels(b.picture))


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (1, 1)),
        Image.new("L", (2, 3000), 7),
        Image.new("RGB", (3000, 2), "teal"),
        gradient((28, 28)),
        Image.effect_noise((128, 128), 90),
        Image.fromarray((np.indices((64, 64))[0] % 2 * 255).astype(np.uint8)).resize((64, 20)),
    ],
)
def test_for_safety_alone_every_picture_is_accepted_whatever_its_size_shape_and_content(image):
    data = encode(image, "PNG")
    assert inspect_image(data, LIMITS).reject is not None
    found = inspect_image(data, LIMITS.for_safety_alone(), min_side=256)
    assert found.reject is None
    assert found.picture.size == image.size
    assert np.isfinite([found.luma_std, found.smoothness]).all()


def test_what_is_unsafe_or_no_picture_is_refused_for_safety_alone():
    limits = ImageLimits(max_pixels=1000, max_bytes=5000).for_safety_alone()
    assert inspect_image(encode(gradient((40, 30)), "PNG"), limits).reject == "too_large"
    assert inspect_image(photo_bytes(), limits).reject == "too_large"
    assert inspect_image(b"<html>", limits).reject == "not_an_image"
    assert inspect_image(encode(gradient((20, 20)), "PNG")[:60], limits).reject == "truncated"
