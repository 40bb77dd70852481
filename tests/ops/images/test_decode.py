"""Pictures that equal what their files mean, and files that are damaged."""

import io
import re

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from curate.ops.images.bounds import Bounds
from curate.ops.images.decode import RejectedImage, decode_rgb
from curate.ops.images.inspect import inspect_image
from tests.ops.images.pictures import LIMITS, encode, gradient, photo, photo_bytes, pixels, png_claiming


@pytest.mark.parametrize(
    "form",
    ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"] + (["AVIF"] if features.check("avif") else []),
)
def test_every_format_is_told_by_content(form):
    found = inspect_image(encode(photo(), form), LIMITS)
    assert (found.reject, found.format) == (None, form)
    assert np.abs(pixels(found.picture) - pixels(photo())).mean() < 12


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


def test_decoding_alone_refuses_what_inspection_refuses():
    for data, reason in ((b"", "empty"), (b"<html>", "not_an_image"), (photo_bytes()[:900], "truncated")):
        with pytest.raises(RejectedImage, match=re.escape(inspect_image(data, LIMITS).detail)) as caught:
            decode_rgb(data)
        assert caught.value.reason == reason
    with pytest.raises(RejectedImage, match="120 x 90 = 10800 pixels, at most 1000 are allowed"):
        decode_rgb(png_claiming(120, 90), bounds=Bounds(max_pixels=1000))


def test_decoding_alone_reduces_as_inspection_does():
    data = encode(photo().resize((1200, 900)), "JPEG")
    found = decode_rgb(data, min_side=200)
    assert found.size < (1200, 900)
    np.testing.assert_array_equal(pixels(found), pixels(inspect_image(data, LIMITS, min_side=200).picture))


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
    # Before version 13 Pillow cannot read the YCbCr without compression that it writes; others write it as JPEG anyway.
    options = {"compression": "jpeg"} if mode == "YCbCr" else {}
    found = inspect_image(encode(source, "TIFF", **options), LIMITS)
    assert found.reject is None
    assert np.abs(pixels(found.picture) - pixels(source.convert("RGB"))).mean() < 2
