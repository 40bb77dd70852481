"""Pictures written again with parts blurred: what changes, what does not, and what must not be left."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin
from scipy import ndimage

from curate.ops.images.blurring import KEPT_FORMATS, Blur, blur_boxes, enlarge
from curate.ops.images.decode import RejectedImage, decode_rgb
from curate.ops.images.decoding import blur_picture
from tests.ops.images.pictures import encode, photo, photo_bytes, pixels

FACE = "music_people/astronaut.jpg"
BOX = (0.353, 0.112, 0.532, 0.345)
"""Of the face in that picture."""
LOSSLESS = [("PNG", {}), ("WEBP", {"lossless": True}), ("BMP", {}), ("TIFF", {}), ("PPM", {})]


def mask_of(size, box=BOX):
    """(H, W) bool: pixels that may change."""
    left, top, right, bottom = enlarge(box, 0.15, size)
    mask = np.zeros((size[1], size[0]), bool)
    mask[top:bottom, left:right] = True
    return mask


def detail(values):
    """What a blur takes away: how pixels differ from the mean of their surroundings."""
    return np.abs(values - ndimage.uniform_filter(values.astype(float), (5, 5, 0))).mean()


def test_a_box_is_enlarged_about_its_middle_and_stays_in_the_picture():
    assert enlarge((0.4, 0.2, 0.6, 0.6), 0.15, (1000, 500)) == (385, 85, 615, 315)
    assert enlarge((0.0, 0.0, 1.0, 1.0), 0.15, (100, 50)) == (0, 0, 100, 50)


@pytest.mark.parametrize(("form", "options"), LOSSLESS)
def test_of_lossless_pictures_the_boxes_alone_change(form, options):
    data = encode(photo(FACE), form, **options)
    found = blur_boxes(data, [BOX], Blur())
    before, after = pixels(decode_rgb(data)), pixels(decode_rgb(found.data))
    mask = mask_of(photo(FACE).size)
    np.testing.assert_array_equal(after[~mask], before[~mask])
    rows, columns = np.ix_(mask.any(axis=1), mask.any(axis=0))
    assert detail(after[rows, columns]) < detail(before[rows, columns]) / 10
    assert Image.open(io.BytesIO(found.data)).format == (form if form in KEPT_FORMATS else "PNG")
    assert found.note == (form if form in KEPT_FORMATS else f"PNG, was {form}")


@pytest.mark.parametrize("quality", ["same", 95])
def test_of_a_jpeg_little_changes_beyond_the_blocks_of_the_boxes(quality):
    data = photo_bytes(FACE)
    before = pixels(decode_rgb(data))
    after = pixels(decode_rgb(blur_boxes(data, [BOX], Blur(jpeg_quality=quality)).data))
    mask = mask_of(photo(FACE).size)
    far = ~ndimage.binary_dilation(mask, iterations=16)  # blocks of colors have 16 pixels
    again = pixels(Image.open(io.BytesIO(encode(photo(FACE), "JPEG", quality=75))))
    assert abs(after - before)[far].mean() < abs(again - before)[far].mean() / (4 if quality == "same" else 1.5)
    assert abs(after - before)[mask].mean() > 20


def test_a_jpeg_keeps_its_own_tables_and_sampling():
    data = encode(photo(FACE), "JPEG", quality=61, subsampling=1, progressive=True)
    before = Image.open(io.BytesIO(data))
    after = Image.open(io.BytesIO(blur_boxes(data, [BOX], Blur()).data))
    assert after.quantization == before.quantization
    assert JpegImagePlugin.get_sampling(after) == JpegImagePlugin.get_sampling(before) == 1
    assert "progressive" in after.info
    coarse = Image.open(io.BytesIO(blur_boxes(data, [BOX], Blur(jpeg_quality=20)).data))
    assert np.mean(coarse.quantization[0]) > np.mean(before.quantization[0])


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_those_of_the_upright_picture(form, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"lossless": True} if form == "WEBP" else {"quality": 95} if form in ("JPEG", "AVIF") else {}
    data = encode(photo("places/brick_wall2.jpg"), form, exif=exif.tobytes(), **options)
    upright = decode_rgb(data)
    box = (0.1, 0.6, 0.3, 0.9)
    found = decode_rgb(blur_boxes(data, [box], Blur()).data)
    assert found.size == upright.size
    changed = abs(pixels(found) - pixels(upright)).mean(axis=2)
    mask = mask_of(upright.size, box)
    far = ~ndimage.binary_dilation(mask, iterations=16)
    assert changed[mask].mean() > 4
    assert changed[far].mean() < 1.5


def with_thumbnail():
    """A JPEG whose EXIF block holds a thumbnail, a maker's note, a date and a place."""
    thumbnail = encode(photo(FACE).resize((64, 64)), "JPEG")
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a camera"
    exif[ExifTags.Base.Orientation] = 3
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2020:01:02 03:04:05"
    exif.get_ifd(ExifTags.IFD.Exif)[0x927C] = b"preview" + thumbnail
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    block = exif.tobytes()
    at = len(block) - 6  # bytes from the TIFF header to the end
    ifd = struct.pack(">H", 2)
    ifd += struct.pack(">HHII", 0x0201, 4, 1, at + 2 + 24 + 4) + struct.pack(">HHII", 0x0202, 4, 1, len(thumbnail))
    ifd += struct.pack(">I", 0)
    assert block[6:8] == b"MM"
    entries = struct.unpack_from(">H", block, 6 + 8)[0]
    place = 6 + 8 + 2 + 12 * entries
    block = block[:place] + struct.pack(">I", at) + block[place + 4 :] + ifd + thumbnail
    return encode(photo(FACE), "JPEG", exif=block), thumbnail


def test_exif_is_kept_without_what_shows_the_face():
    data, thumbnail = with_thumbnail()
    assert data.count(thumbnail[20:200]) == 2
    found = blur_boxes(data, [BOX], Blur())
    exif = Image.open(io.BytesIO(found.data)).getexif()
    assert exif[ExifTags.Base.Make] == "a camera"
    assert exif[ExifTags.Base.Orientation] == 3
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    assert inner[ExifTags.Base.DateTimeOriginal] == "2020:01:02 03:04:05"
    assert 0x927C not in inner
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
    assert thumbnail[20:200] not in found.data
    assert found.data.count(b"\xff\xd8\xff") == 1


def test_exif_is_dropped_but_for_the_orientation():
    found = blur_boxes(with_thumbnail()[0], [BOX], Blur(exif="drop"))
    assert dict(Image.open(io.BytesIO(found.data)).getexif()) == {ExifTags.Base.Orientation: 3}
    plain = blur_boxes(photo_bytes(FACE), [BOX], Blur(exif="drop"))
    assert b"Exif" not in plain.data


def test_a_damaged_exif_block_is_left_out_and_told():
    data = photo_bytes(FACE)
    body = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHIHH", 0x010F, 99, 1 << 30, 1, 0)
    broken = data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body + data[2:]
    found = blur_boxes(broken, [BOX], Blur())
    assert decode_rgb(found.data).size == photo(FACE).size


def test_the_color_profile_stays():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for form in ("JPEG", "PNG", "WEBP"):
        found = blur_boxes(encode(photo(FACE), form, icc_profile=profile), [BOX], Blur(exif="drop"))
        assert Image.open(io.BytesIO(found.data)).info["icc_profile"] == profile


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_every_mode_of_png_keeps_what_lies_outside(mode):
    image = photo(FACE)
    if mode == "P":
        image = image.quantize(64)
    elif mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode in ("LA", "RGBA"):
        image = image.convert(mode)
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    else:
        image = image.convert(mode)
    data = encode(image, "PNG")
    after = Image.open(io.BytesIO(blur_boxes(data, [BOX], Blur()).data))
    wanted = "RGB" if mode == "P" else "L" if mode == "1" else mode
    assert after.mode == wanted
    before = np.asarray(Image.open(io.BytesIO(data)).convert(wanted) if mode in ("P", "1") else image)
    mask = mask_of(image.size)
    np.testing.assert_array_equal(np.asarray(after)[~mask], before[~mask])
    assert (np.asarray(after)[mask] != before[mask]).any()
    if mode in ("LA", "RGBA"):
        np.testing.assert_array_equal(np.asarray(after)[..., -1], before[..., -1])


@pytest.mark.parametrize("channels", [3, 4])
def test_colors_of_sixteen_bits_keep_all_of_them(channels):
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 65536, (64, 80, channels)).astype(np.uint16)
    data = cv2.imencode(".png", deep)[1].tobytes()
    box = (0.25, 0.25, 0.5, 0.5)
    after = cv2.imdecode(np.frombuffer(blur_boxes(data, [box], Blur()).data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert after.dtype == np.uint16
    mask = mask_of((80, 64), box)
    np.testing.assert_array_equal(after[~mask], deep[~mask])
    assert after[mask][:, :3].std() < deep[mask][:, :3].std() / 4


def test_of_an_animation_the_first_frame_alone_is_written():
    frames = [photo(FACE), photo("birds/duck.jpg").resize(photo(FACE).size)]
    for form in ("GIF", "PNG", "WEBP"):
        data = encode(frames[0], form, save_all=True, append_images=frames[1:], duration=100)
        found = Image.open(io.BytesIO(blur_boxes(data, [BOX], Blur()).data))
        assert getattr(found, "n_frames", 1) == 1


def test_a_large_face_is_blurred_as_strongly_as_a_small_one():
    small = photo(FACE)
    large = small.resize([8 * side for side in small.size], Image.Resampling.BICUBIC)
    found = [decode_rgb(blur_boxes(encode(image, "PNG"), [BOX], Blur()).data) for image in (small, large)]
    again = found[1].resize(small.size, Image.Resampling.BOX)
    mask = mask_of(small.size)
    inner = ndimage.binary_erosion(mask, iterations=2)
    assert abs(pixels(again) - pixels(found[0]))[inner].mean() < 4


def test_several_boxes_none_and_empty_ones():
    data = encode(photo(FACE), "PNG")
    other = (0.7, 0.7, 0.9, 0.9)
    both = pixels(decode_rgb(blur_boxes(data, [BOX, other], Blur()).data))
    before = pixels(photo(FACE))
    mask = mask_of(photo(FACE).size) | mask_of(photo(FACE).size, other)
    np.testing.assert_array_equal(both[~mask], before[~mask])
    for boxes in ([], [(0.5, 0.5, 0.5, 0.5)], [(0.9, 0.9, 0.1, 0.1)]):
        np.testing.assert_array_equal(pixels(decode_rgb(blur_boxes(data, boxes, Blur()).data)), before)


def test_within_bounds_the_bytes_are_the_same():
    for data in (photo_bytes(FACE), encode(photo(FACE), "WEBP"), encode(photo(FACE), "TIFF")):
        assert blur_picture(data, [BOX], Blur()) == blur_boxes(data, [BOX], Blur())


def test_what_does_not_decode_is_told():
    with pytest.raises(RejectedImage, match="0 bytes"):
        blur_picture(b"", [BOX], Blur())
    with pytest.raises(RejectedImage) as told:
        blur_picture(encode(photo(FACE), "WEBP")[:2000], [BOX], Blur())
    assert told.value.reason == "truncated"
