"""Borders of one color: planted ones are taken off to the pixel, pictures without one stay whole."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from curate.ops.images.borders import LEAST_PICTURE, ROUNDS, SIDE, TOLERANCE, Box, find_border, without_border
from curate.samples.bundled import PHOTOS


def texture(width: int, height: int, *, seed: int = 0) -> Image.Image:
    """A picture of noise: no line of it has one color."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def framed(
    picture: Image.Image, left: int, top: int, right: int, bottom: int, color: tuple[int, int, int] = (250, 240, 230)
) -> tuple[Image.Image, Box]:
    """The picture within strips of these widths, and where it lies."""
    whole = Image.new("RGB", (picture.width + left + right, picture.height + top + bottom), color)
    whole.paste(picture, (left, top))
    return whole, Box(left, top, left + picture.width, top + picture.height)


def assert_within(found: Box | None, planted: Box, *, size: tuple[int, int]) -> None:
    """Nothing of the border is left, and on each side that has one at most the lines that may be mixed are lost."""
    factor = max(1, max(size) // SIDE)
    assert found is not None
    lost = (
        found.left - planted.left,
        found.top - planted.top,
        planted.right - found.right,
        planted.bottom - found.bottom,
    )
    bordered = planted.left > 0, planted.top > 0, planted.right < size[0], planted.bottom < size[1]
    for pixels, has_border in zip(lost, bordered, strict=True):
        assert 0 <= pixels <= (2 * factor if has_border else 0)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(40, 200), st.integers(40, 200)),
    st.tuples(*[st.integers(0, 30)] * 4),
    st.tuples(*[st.integers(0, 255)] * 3),
)
def test_planted_borders_are_taken_off_to_the_pixel(
    size: tuple[int, int], widths: tuple[int, int, int, int], color: tuple[int, int, int]
) -> None:
    whole, planted = framed(texture(*size), *widths, color=color)
    found = find_border(whole)
    shares = (widths[0] + widths[2]) / whole.width, (widths[1] + widths[3]) / whole.height
    if max(whole.size) >= 2 * SIDE:
        factor = max(whole.size) // SIDE
        if max(shares) > 0.02 + 2 * factor / min(whole.size):
            assert_within(found, planted, size=whole.size)
    elif max(shares) >= 0.02:
        one_less = [
            edge + step * (step_of > 0) for edge, step, step_of in zip(planted[:2], (1, 1), widths, strict=False)
        ]
        far = (planted.right - (widths[2] > 0), planted.bottom - (widths[3] > 0))
        assert found == Box(*one_less, *far)
    else:
        assert found is None


@pytest.mark.parametrize("scale", [1, 4, 7])
@pytest.mark.parametrize(
    "widths", [(20, 20, 20, 20), (0, 25, 0, 25), (30, 0, 30, 0), (0, 0, 0, 15), (12, 0, 0, 0), (0, 9, 14, 0)]
)
def test_frames_letterboxes_and_strips_of_large_pictures(widths: tuple[int, int, int, int], scale: int) -> None:
    left, top, right, bottom = (scale * width for width in widths)
    whole, planted = framed(texture(scale * 150, scale * 110), left, top, right, bottom)
    assert_within(find_border(whole), planted, size=whole.size)
    inside = without_border(whole)
    assert inside is not None
    box = find_border(whole)
    assert box is not None
    assert inside.size == (box.right - box.left, box.bottom - box.top)
    assert np.array_equal(np.asarray(inside), np.asarray(whole)[box.top : box.bottom, box.left : box.right])


def test_a_passe_partout_has_two_colors() -> None:
    mat, within = framed(texture(150, 120), 25, 25, 25, 30, color=(240, 236, 225))
    whole, around = framed(mat, 8, 8, 8, 8, color=(60, 30, 10))
    planted = Box(around.left + within.left, around.top + within.top, 8 + within.right, 8 + within.bottom)
    assert_within(find_border(whole), planted, size=whole.size)


@pytest.mark.parametrize("quality", [50, 75, 90])
@pytest.mark.parametrize("color", [(255, 255, 255), (0, 0, 0), (200, 30, 40)])
def test_ringing_of_jpeg_is_borne(quality: int, color: tuple[int, int, int]) -> None:
    photo = Image.open(next(iter(sorted(PHOTOS.rglob("*.jpg"))))).convert("RGB").resize((300, 240))
    whole, planted = framed(photo, 37, 29, 37, 29, color=color)
    file = io.BytesIO()
    whole.save(file, "JPEG", quality=quality)
    found = find_border(Image.open(file).convert("RGB"))
    assert found is not None
    assert np.abs(np.subtract(found, planted)).max() <= 4  # a block of JPEG's is 8 pixels, half of it may ring


def test_specks_in_the_border_are_borne() -> None:
    whole, planted = framed(texture(300, 240), 40, 40, 40, 40)
    pen = ImageDraw.Draw(whole)
    for number in range(8):  # dust, far apart
        pen.point((20 + 40 * number, 7 + 3 * number), fill=(0, 0, 0))
    pen.line((180, 300, 184, 300), fill=(0, 0, 0))  # a dash, 5 of 380 pixels
    assert_within(find_border(whole), planted, size=whole.size)


def test_a_wide_line_of_text_in_the_border_belongs_to_the_picture() -> None:
    whole, planted = framed(texture(150, 100), 20, 20, 20, 60)
    ImageDraw.Draw(whole).rectangle((30, 140, 120, 147), fill=(0, 0, 0))
    found = find_border(whole)
    assert found is not None
    assert found.bottom >= 147 > planted.bottom


def test_pictures_without_a_border_stay_whole() -> None:
    assert all(find_border(texture(200, 150, seed=seed)) is None for seed in range(5))
    soft = texture(12, 9).resize((320, 240), Image.Resampling.BICUBIC)
    assert find_border(soft) is None
    assert without_border(soft) is None


def test_what_is_taken_off_photographs_is_plain() -> None:
    found = 0
    for path in sorted(PHOTOS.rglob("*.jpg"))[::4]:
        photo = Image.open(path).convert("RGB")
        box = find_border(photo)
        if box is None:
            continue
        found += 1
        pixels = np.asarray(photo).astype(int)
        sides = pixels[: box.top], pixels[box.bottom :], pixels[:, : box.left], pixels[:, box.right :]
        for lines in (sides[0], sides[1], sides[2].transpose(1, 0, 2), sides[3].transpose(1, 0, 2)):
            off = np.abs(lines - np.median(lines, axis=1, keepdims=True)) if len(lines) else np.zeros(1)
            assert np.median(off) <= TOLERANCE
    assert found > 5  # things on a plain ground


def test_of_a_gradient_a_few_steps_are_taken_off_at_most() -> None:
    found = find_border(Image.merge("RGB", [Image.linear_gradient("L")] * 3))
    assert found is None or max(found.top, 256 - found.bottom) <= ROUNDS * (TOLERANCE + 1) + 1


@pytest.mark.parametrize("share", [0.1, LEAST_PICTURE - 0.06])
def test_a_small_thing_on_a_plain_ground_is_not_a_framed_picture(share: float) -> None:
    side = round(200 * share)
    whole, _ = framed(texture(side, side), *[(200 - side) // 2] * 4)
    assert find_border(whole) is None


def test_a_border_thinner_than_moves_a_hash_is_left() -> None:
    whole, _ = framed(texture(196, 196), 1, 1, 1, 1)
    assert find_border(whole) is None
    wider, planted = framed(texture(196, 196), 2, 2, 2, 2)
    assert_within(find_border(wider), planted, size=wider.size)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 2), (7, 7), (8, 400), (64, 64)])
def test_plain_pictures_of_any_size_have_nothing_to_surround(size: tuple[int, int]) -> None:
    assert find_border(Image.new("RGB", size, (9, 9, 9))) is None


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (3, 3), (16, 16)])
def test_tiny_pictures_stay_whole(size: tuple[int, int]) -> None:
    assert find_border(texture(*size)) is None


def test_gray_pictures_are_as_good() -> None:
    gray = Image.merge("RGB", [texture(120, 90).convert("L")] * 3)
    whole, planted = framed(gray, 20, 20, 20, 20, color=(128, 128, 128))
    assert_within(find_border(whole), planted, size=whole.size)
