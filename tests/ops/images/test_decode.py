"""Verdicts on good and bad encoded images, and pictures that equal what the file means."""

import hashlib
import io
import re
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, features
from torchvision.transforms import functional as tv

from curate.config import parse
from curate.errors import ConfigError
from curate.ops.images.decode import (
    ImageLimits,
    Preprocess,
    RejectedImage,
    decode_rgb,
    decode_side,
    inspect_image,
    preprocess,
)
from curate.tables import REJECT_REASONS

LIMITS = ImageLimits()
SUBJECTS = ("birds/heron.jpg", "birds/duck.jpg", "birds/chicken.jpg")


def photo_bytes(name="birds/heron.jpg"):
    return resources.files("curate").joinpath("samples/photos", name).read_bytes()


def photo(name="birds/heron.jpg"):
    return Image.open(io.BytesIO(photo_bytes(name))).convert("RGB")


def encode(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(image):
    return np.asarray(image).astype(np.int64)


def gradient(size=(96, 64)):
    """Smooth, colourful, unlike its mirror images."""
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 200, size[1]))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], axis=2).astype(np.uint8))


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
    "form",
    ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"] + (["AVIF"] if features.check("avif") else []),
)
def test_every_format_is_told_by_content(form):
    found = inspect_image(encode(photo(), form), LIMITS)
    assert (found.reject, found.format) == (None, form)
    assert np.abs(pixels(found.picture) - pixels(photo())).mean() < 12


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"", "empty", "0 bytes"),
        (b"<html><body>404</body></html>", "not_an_image", "starts with b'<html>"),
        (b"BMW makes cars, and this is a text.", "not_an_image", "none of JPEG, PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image", "starts with"),
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


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
def test_cut_files_are_truncated(form, share):
    data = encode(photo(), form)
    found = inspect_image(data[: int(len(data) * share)], LIMITS, min_side=64)
    assert found.reject == "truncated", found.detail


def test_cut_progressive_jpeg_is_truncated():
    data = encode(photo(), "JPEG", progressive=True)
    assert inspect_image(data[: len(data) * 3 // 4], LIMITS).reject == "truncated"


def test_cut_jpeg_is_truncated_in_draft_mode_too():
    data = encode(photo().resize((1200, 900)), "JPEG")
    assert inspect_image(data[: len(data) // 2], LIMITS, min_side=64).reject == "truncated"


def test_damaged_png_is_corrupt():
    data = bytearray(encode(photo(), "PNG"))
    at = data.index(b"IDAT") + 500
    data[at : at + 64] = bytes(64)
    assert inspect_image(bytes(data), LIMITS).reject == "corrupt"


def png_claiming(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def test_decoding_alone_refuses_what_inspection_refuses():
    for data, reason in ((b"", "empty"), (b"<html>", "not_an_image"), (photo_bytes()[:900], "truncated")):
        with pytest.raises(RejectedImage, match=re.escape(inspect_image(data, LIMITS).detail)) as caught:
            decode_rgb(data)
        assert caught.value.reason == reason
    with pytest.raises(RejectedImage, match="120 x 90 = 10800 pixels, at most 1000 are allowed"):
        decode_rgb(png_claiming(120, 90), max_pixels=1000)


def test_decoding_alone_reduces_as_inspection_does():
    data = encode(photo().resize((1200, 900)), "JPEG")
    found = decode_rgb(data, min_side=200)
    assert found.size < (1200, 900)
    np.testing.assert_array_equal(pixels(found), pixels(inspect_image(data, LIMITS, min_side=200).picture))


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


@pytest.mark.parametrize("form", ["JPEG", "TIFF", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = gradient((96, 64))
    options = {"quality": 95} if form == "JPEG" else {"lossless": True} if form == "WEBP" else {}
    data = encode(stored, form, exif=exif, **options)
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert wanted.size == ((64, 96) if orientation >= 5 else (96, 64))
    found = inspect_image(data, LIMITS)
    assert (found.width, found.height) == wanted.size
    np.testing.assert_array_equal(pixels(found.picture), pixels(wanted))


def test_broken_exif_leaves_the_picture_as_it_lies():
    found = inspect_image(encode(gradient(), "JPEG", exif=b"Exif\0\0broken"), LIMITS)
    assert (found.reject, found.width, found.height) == (None, 96, 64)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation_is_taken(form):
    first, second = gradient(), Image.new("RGB", (96, 64), "black")
    options = {"lossless": True} if form == "WEBP" else {}
    data = encode(first, form, save_all=True, append_images=[second, second], **options)
    found = inspect_image(data, LIMITS)
    assert np.abs(pixels(found.picture) - pixels(first)).mean() < 15


def test_sixteen_bits_scale_to_eight():
    values = np.linspace(0, 65535, 96 * 64).reshape(64, 96).astype(np.uint16)
    for form in ("PNG", "TIFF"):
        found = inspect_image(encode(Image.fromarray(values), form), LIMITS)
        wanted = np.rint(values / 257)
        np.testing.assert_array_equal(pixels(found.picture), np.repeat(wanted[:, :, None], 3, axis=2))


@pytest.mark.parametrize("scale", [1.0, 255.0, 65535.0])
def test_float_images_scale_by_their_full_range(scale):
    ramp = np.linspace(0, scale, 96 * 64, dtype=np.float32).reshape(64, 96)
    found = inspect_image(encode(Image.fromarray(ramp), "TIFF"), LIMITS)
    assert np.abs(pixels(found.picture)[:, :, 0] - ramp / scale * 255).max() < 1


def test_float_images_of_another_range_are_stretched():
    ramp = np.linspace(-5, 90_000, 96 * 64, dtype=np.float32).reshape(64, 96)
    found = inspect_image(encode(Image.fromarray(ramp), "TIFF"), LIMITS)
    assert (pixels(found.picture).min(), pixels(found.picture).max()) == (0, 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
def test_transparency_lies_on_white(mode):
    base = gradient().convert("RGBA")
    alpha = np.full((64, 96), 255, np.uint8)
    alpha[:20] = 0
    base.putalpha(Image.fromarray(alpha))
    if mode == "P":
        image = gradient().quantize(64)
        image.info["transparency"] = bytes([0] * 8 + [255] * 56)
        hidden = pixels(image) < 8
    elif mode == "L":  # one grey is declared transparent
        image = gradient().convert("L")
        image.info["transparency"] = 40
        hidden = pixels(image) == 40
    else:
        image, hidden = base.convert(mode), alpha == 0
    options = {"transparency": image.info["transparency"]} if "transparency" in image.info else {}
    found = inspect_image(encode(image, "PNG", **options), LIMITS)
    assert hidden.any()
    assert (pixels(found.picture)[hidden] == 255).all()
    opaque = pixels(image.convert("RGBA").convert("RGB") if mode != "P" else image.convert("RGB"))
    np.testing.assert_array_equal(pixels(found.picture)[~hidden], opaque[~hidden])


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_keeps_its_colours(form):
    found = inspect_image(encode(gradient().convert("CMYK"), form), LIMITS)
    assert np.abs(pixels(found.picture) - pixels(gradient())).mean() < 4


def test_cmyk_jpeg_without_adobes_mark_is_not_inverted():
    cmyk = Image.fromarray(255 - np.asarray(gradient().convert("CMYK")), "CMYK")
    data = encode(cmyk, "JPEG")  # Pillow inverts and adds Adobe's APP14 mark
    at = data.index(b"\xff\xee")
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    found = inspect_image(data[:at] + data[at + 2 + length :], LIMITS)
    assert np.abs(pixels(found.picture) - pixels(gradient())).mean() < 4


@pytest.mark.parametrize("mode", ["L", "1", "P", "YCbCr"])
def test_other_modes_become_rgb(mode):
    source = gradient().convert(mode)  # "1" is dithered: rough close up, yet no noise
    found = inspect_image(encode(source, "TIFF"), LIMITS)
    assert found.reject is None
    assert np.abs(pixels(found.picture) - pixels(source.convert("RGB"))).mean() < 2


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


def test_reduced_picture_looks_like_the_full_one():
    data = encode(photo().resize((1100, 800), Image.Resampling.BICUBIC), "JPEG", quality=90)
    how = Preprocess(224, "short_edge_crop", 256, "bicubic", (0.5,) * 3, (0.5,) * 3)
    full = preprocess(inspect_image(data, LIMITS).picture, how)
    reduced = preprocess(inspect_image(data, LIMITS, min_side=decode_side([how])).picture, how)
    assert np.abs(full.astype(int) - reduced).mean() < 3


def test_threads_agree_with_one():
    files = [photo_bytes(name) for name in SUBJECTS] * 8
    one = [inspect_image(data, LIMITS, min_side=64) for data in files]
    with ThreadPoolExecutor(4) as threads:
        many = list(threads.map(lambda data: inspect_image(data, LIMITS, min_side=64), files))
    for a, b in zip(one, many, strict=True):
        assert (a.luma_std, a.smoothness) == (b.luma_std, b.smoothness)
        np.testing.assert_array_equal(pixels(a.picture), pixels(b.picture))


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
