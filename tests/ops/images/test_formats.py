"""What a file is, by its first bytes; and what follows from the one list of formats."""

import re
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from PIL import Image

from benchmarks import encoders as enc
from benchmarks.formats import cases, encoded_cases, samples
from curate.evaluation.labeled import PICTURE_SUFFIXES
from curate.ops.images import decoders, formats
from curate.ops.images.bounds import Bounds
from curate.ops.images.decode import RejectedImage, decode_rgb
from curate.ops.images.inspect import inspect_image
from curate.sources.suffixes import IMAGE, may_be_image
from tests.ops.images.pictures import LIMITS, encode, photo


@pytest.fixture(scope="module")
def files():
    """One file of every format that is read."""
    found = {case.form: case for case in cases() if case.reject is None and not case.fault}
    assert found.keys() == formats.READ.keys()
    return found


def test_every_format_begins_as_the_image_that_it_is(files):
    for form, case in files.items():
        assert formats.sniff(case.data) == form
        told_by_first_bytes = form not in ("PPM", "TGA")  # whose first bytes may be those of a text
        assert formats.begins_as_image(case.data[: formats.HEAD_BYTES]) == told_by_first_bytes, form


def test_suffixes_everywhere_are_those_of_the_list():
    assert IMAGE == PICTURE_SUFFIXES == {suffix for form in formats.READ.values() for suffix in form.suffixes}
    assert all(may_be_image(f"a{suffix}") for suffix in IMAGE)


@pytest.mark.parametrize("text", [b"BMW", b"P3 is a model", b"GIFT", b"II", b"\n\5", b"qoi", b"\0\0\1\0", b"RIFF", b""])
def test_words_are_no_images(text):
    for data in (text, text + b" and more words, until the head of a file is full" + b"." * 64):
        assert not formats.begins_as_image(data)


def test_text_is_never_a_targa():
    rng = np.random.default_rng(0)
    texts = rng.choice(np.frombuffer(b"abcdef ,.\n\t0123", np.uint8), (2000, 64))
    assert not any(formats.sniff(text.tobytes()) for text in texts)
    noise = rng.integers(0, 256, (20_000, 64), dtype=np.uint8)
    assert sum(formats.sniff(data.tobytes()) == "TGA" for data in noise) == 0


def test_brands_tell_what_an_iso_file_is():
    def box(*brands):
        return (16 + 4 * len(brands[1:])).to_bytes(4, "big") + b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])

    assert formats.sniff(box(b"avif", b"mif1")) == "AVIF"
    assert formats.sniff(box(b"mif1", b"miaf", b"avif")) == "AVIF"
    assert formats.sniff(box(b"mif1", b"heic")) == "HEIF"
    assert formats.sniff(box(b"heic", b"mif1", b"avif")) == "HEIF"
    assert formats.sniff(box(b"isom", b"avif")) == "MP4 or other ISO video"


@pytest.mark.parametrize(("form", "package"), [("HEIF", "pillow_heif"), ("JXL", "pillow_jxl")])
def test_missing_decoder_is_told_with_the_command_that_brings_it(files, monkeypatch, form, package):
    monkeypatch.setitem(sys.modules, package, None)
    decoders._has_decoder.cache_clear()
    try:
        found = inspect_image(files[form].data, LIMITS)
    finally:
        decoders._has_decoder.cache_clear()
    assert found.reject == "unsupported"
    assert re.fullmatch(rf"{form}: bring its decoder with: pip install 'curate-vision\[formats\]'", found.detail)


def test_decoders_of_the_extra_are_registered_once_whatever_thread_comes_first(files):
    decoders._has_decoder.cache_clear()
    data = [files[form].data for form in ("HEIF", "JXL", "AVIF")] * 8
    with ThreadPoolExecutor(8) as threads:
        many = list(threads.map(lambda d: np.asarray(decode_rgb(d)), data))
    for found, alone in zip(many, data, strict=True):
        np.testing.assert_array_equal(found, np.asarray(decode_rgb(alone)))


def test_a_fresh_process_registers_for_itself(files):
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        shape, imported = pool.submit(_decode_afresh, files["HEIF"].data).result()
    assert shape == np.asarray(decode_rgb(files["HEIF"].data)).shape
    assert not imported  # nothing is paid for until the first picture of the format comes


def _decode_afresh(data):
    before = "pillow_heif" in sys.modules
    return np.asarray(decode_rgb(data)).shape, before


@pytest.mark.parametrize("form", ["TGA", "ICO", "PCX", "SGI", "QOI", "JPEG2000", "AVIF", "HEIF", "JXL"])
def test_header_is_checked_before_pixels_are_decoded(files, form, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("decoded")

    width, height = decode_rgb(files[form].data).size
    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(RejectedImage, match=f"{width} x {height} = {width * height} pixels, at most 99"):
        decode_rgb(files[form].data, bounds=Bounds(max_pixels=99))


def test_jxl_sizes_of_every_form_are_read_before_the_decoder():
    for width, height in ((8, 8), (64, 64), (48, 40), (300, 200), (333, 777), (1600, 900), (5, 9), (2048, 8)):
        data = encode(Image.new("RGB", (width, height)), "JXL", effort=1)
        boxed = encode(Image.new("RGB", (width, height)), "JXL", effort=1, use_container=True)
        for file in (data, boxed):
            with pytest.raises(RejectedImage, match=f"{width} x {height} ="):
                decode_rgb(file, bounds=Bounds(max_pixels=1))


@pytest.mark.parametrize("form", ["AVIF", "HEIF", "JXL", "JPEG2000", "TGA", "QOI", "SGI", "PCX", "ICO"])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_cut_files_of_further_formats_are_never_accepted_nor_no_image(files, form, share):
    data = files[form].data
    found = inspect_image(data[: int(len(data) * share)], LIMITS)
    assert found.reject in ("truncated", "corrupt"), found.detail


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["AVIF", "HEIF", "JXL"])
def test_orientation_is_undone_once(form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(samples(3, 8).astype(np.uint8))
    options = {"lossless": True} if form == "JXL" else {"quality": 95}
    found = decode_rgb(encode(stored, form, exif=exif.tobytes(), **options))
    upright = orientation < 5 or form == "JXL"  # whose EXIF is a note: its codestream tells, which was not turned
    assert found.size == (stored.size if upright else stored.size[::-1])


def test_jpeg_in_the_disguise_of_a_jxl_is_turned_as_the_jpeg_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo().save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as jpeg:
        data = encode(jpeg, "JXL", lossless_jpeg=True)
    turned = np.asarray(decode_rgb((tmp_path / "a.jpg").read_bytes())).astype(int)
    found = np.asarray(decode_rgb(data)).astype(int)
    assert found.shape == turned.shape == (photo().width, photo().height, 3)
    assert np.abs(found - turned).mean() < 1


def test_largest_picture_of_an_icon_is_taken():
    large, small = samples(3, 8)[:40, :40], samples(3, 8, seed=2)[:16, :16]
    for order in ([(16, small), (40, large)], [(40, large), (16, small)]):
        file = enc.ico([(side, enc.png(picture, 8)) for side, picture in order])
        np.testing.assert_array_equal(np.asarray(decode_rgb(file)), large)


def test_photographs_survive_the_formats_of_the_extra():
    for case in encoded_cases():
        assert case.form != "HEIF" or case.wanted is not None
    for form in ("HEIF", "JXL", "AVIF", "JPEG2000"):
        found = inspect_image(encode(photo(), form), LIMITS, min_side=64)
        assert (found.reject, found.format, (found.width, found.height)) == (None, form, photo().size)
