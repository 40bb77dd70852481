"""What does not decide about pixels is dropped, and what does is kept to the byte."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks import encoders as enc
from benchmarks.formats import cases, exif, samples
from curate.ops.images import containers, formats
from curate.ops.images.decode import RejectedImage, decode_rgb
from curate.ops.images.inspect import inspect_image
from curate.tables import REJECT_REASONS
from tests.ops.images.pictures import LIMITS, encode, gradient, photo

WHOLE = [case for case in cases() if case.reject is None and not case.fault]


def test_pixels_of_the_essence_are_those_of_the_file_as_pillow_has_them():
    compared = 0
    for case in WHOLE:
        if case.form in ("JPEG", "PNG", "WEBP", "GIF", "JPEG2000") and "tRNS" not in case.kind:
            kept = containers.essence(case.form, case.data).data
            one, two = (np.asarray(Image.open(io.BytesIO(data))) for data in (case.data, kept))
            np.testing.assert_array_equal(one, two, err_msg=case.name)
            compared += 1
    assert compared > 30


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_note_counts_though_another_note_is_broken(orientation):
    stored = samples(3, 8)
    wanted = Image.fromarray(stored.astype(np.uint8))
    if orientation in containers_transposes():
        wanted = wanted.transpose(containers_transposes()[orientation])
    broken = enc.chunk(b"tEXt", b"Comment\0x", right=False)
    xmp = b'<x tiff:Orientation="%d"/>' % orientation
    notes = {
        "EXIF": enc.chunk(b"eXIf", exif(orientation)),
        "XMP": enc.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
    }
    for note in notes.values():
        for before, after in (([broken, note], []), ([broken], [note])):
            found = decode_rgb(enc.png(stored, 8, before=before, after=after))
            np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))


def containers_transposes():
    from curate.ops.images.decode import TRANSPOSE

    return TRANSPOSE


def test_jpeg_keeps_its_orientation_beside_broken_segments():
    data = encode(photo(), "JPEG", exif=b"Exif\0\0" + exif(6))
    data = enc.with_segment(data, 0xE2, b"MPF\0II*\0\xff\xff\xff\xff")
    found = inspect_image(data, LIMITS)
    assert (found.width, found.height) == photo().size[::-1]


def test_animated_png_shows_its_default_image_whatever_its_frames_are():
    file = io.BytesIO()
    gradient().save(file, "PNG", save_all=True, append_images=[Image.new("RGB", (96, 64), "black")] * 2)
    data = file.getvalue()
    at = data.index(b"fdAT")
    damaged = data[:at] + b"fdAT" + bytes(40) + data[at + 44 :]
    for each in (data, damaged):
        np.testing.assert_array_equal(np.asarray(decode_rgb(each)), np.asarray(gradient()))


def test_damage_of_pixels_is_still_told():
    data = bytearray(enc.png(samples(3, 8), 8, before=[enc.chunk(b"tEXt", b"Comment\0x", right=False)]))
    at = data.index(b"IDAT") + 300
    data[at : at + 40] = bytes(40)
    with pytest.raises(RejectedImage) as caught:
        decode_rgb(bytes(data))
    assert caught.value.reason == "corrupt"
    tail = encode(photo(), "JPEG")
    tail = enc.with_segment(tail, 0xED, b"x" * 100)
    assert inspect_image(tail[: len(tail) // 2], LIMITS).reject == "truncated"


@settings(max_examples=300, deadline=None)
@given(number=st.integers(0, len(WHOLE) - 1), seed=st.integers(0, 2**32 - 1))
def test_random_damage_of_any_format_never_raises(number, seed):
    rng, case = np.random.default_rng(seed), WHOLE[number]
    data = bytearray(case.data)
    head = min(len(data), 400)  # where the structure is told
    for at in rng.integers(0, head, rng.integers(1, 6)):
        data[at] = rng.integers(256)
    found = inspect_image(bytes(data[: rng.integers(1, len(data) + 1)]), LIMITS)
    assert found.reject is None or found.reject in REJECT_REASONS
    assert " at 0x" not in (found.detail or "")


@settings(max_examples=200, deadline=None)
@given(form=st.sampled_from(sorted(formats.READ)), data=st.binary(max_size=200))
def test_walks_take_any_bytes(form, data):
    assert isinstance(containers.essence(form, data), containers.Essence)
    assert 1 <= containers.orientation_in((data,)) <= 8
