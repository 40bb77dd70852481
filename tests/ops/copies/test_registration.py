"""Registration: copies lie over their original however they were turned, others do not, and differences show."""

from functools import cache

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps
from scipy.ndimage import gaussian_filter

from benchmarks.domains import draw_domain
from curate.ops.copies.crowds import LEAST_SPREAD, fisher
from curate.ops.copies.features import LocalFeatures, extract_features
from curate.ops.copies.registration import (
    COARSE,
    FEW_TILES,
    FINE,
    LEAST_DETAIL,
    LEAST_POINTS,
    NONE,
    SHIFT,
    TILE,
    WEAK_TILES,
    Registration,
    _details,
    _tile_correlations,
    _tile_sums,
    register,
    registration_score,
)
from curate.samples.bundled import PHOTOS

FILES = sorted(PHOTOS.rglob("*.jpg"))[5::34]


@cache
def photo(number: int) -> Image.Image:
    picture = Image.open(FILES[number]).convert("RGB")
    picture.thumbnail((480, 480))
    return picture


@cache
def features(number: int) -> LocalFeatures:
    return extract_features(photo(number))


def cropped(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    return picture.crop((width // 5, height // 6, width * 9 // 10, height * 19 // 20))


EDITS = {
    "same": lambda x: x,
    "crop": cropped,
    "rotation": lambda x: x.rotate(17, Image.Resampling.BICUBIC, fillcolor=(255, 255, 255)),
    "half": lambda x: x.resize((x.width // 2, x.height // 2), Image.Resampling.LANCZOS),
    "mirror": ImageOps.mirror,
    "mirrored crop": lambda x: ImageOps.mirror(cropped(x)),
    "upside down": lambda x: x.rotate(180),
    "quarter": lambda x: x.transpose(Image.Transpose.ROTATE_90),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_planted_copy_lies_over_its_original(edit: str) -> None:
    for number in (0, 4):
        copy = extract_features(EDITS[edit](photo(number)))
        for found in (register(features(number), copy), register(copy, features(number))):
            assert found.agreement > 0.85
            assert found.least_agreement <= found.agreement <= 1
            assert found.num_points >= 12


def test_a_picture_agrees_with_itself_wholly() -> None:
    for number in range(4):
        assert register(features(number), features(number)).least_agreement == pytest.approx(1, abs=1e-3)


def test_distinct_photographs_do_not_lie_over_each_other() -> None:
    for number in range(1, len(FILES)):
        found = register(features(number - 1), features(number))
        assert registration_score(np.float32([found.agreement]), np.array([found.num_points]))[0] < 0.4
        assert found.num_points < 8


def test_a_copy_in_a_frame_counts_though_its_edge_differs() -> None:
    found = register(features(0), extract_features(ImageOps.expand(photo(0), 70, (240, 240, 240))))
    assert registration_score(np.float32([found.agreement]), np.array([found.num_points]))[0] > 0.7
    assert found.num_points >= 30


def textured(captioned: tuple[int, int]) -> LocalFeatures:
    """A picture of 10 x 10 tiles with details everywhere, over so many rows and columns of which text is written."""
    noise = gaussian_filter(np.random.default_rng(0).standard_normal((10 * TILE, 10 * TILE)), 2)
    picture = Image.fromarray(np.clip(128 + 40 * noise / noise.std(), 0, 255).astype(np.uint8)).convert("RGB")
    rows, columns = captioned
    if rows:
        place = TILE + 3, TILE + 3, (1 + columns) * TILE - 4, (1 + rows) * TILE - 4
        pen = ImageDraw.Draw(picture)
        pen.rectangle(place, fill=(120, 120, 120))
        pen.text((place[0] + 4, place[1] + 4), "HOW IT STARTED HOW IT IS GOING", fill=(250, 250, 250), font_size=13)
    return extract_features(picture)


def test_a_caption_lowers_the_least_agreement_where_it_covers_more_than_a_tenth() -> None:
    plain = textured((0, 0))
    small, large, huge = (register(plain, textured(tiles)) for tiles in ((2, 3), (2, 7), (3, 8)))
    assert small.least_agreement > 0.8  # 6 of 100 tiles
    assert large.agreement > 0.8  # 14
    assert large.least_agreement < 0.5
    assert huge.agreement < 0.6  # 24
    assert huge.num_points >= LEAST_POINTS


def test_forms_of_one_layout_with_other_entries_agree_far_less_than_a_copy() -> None:
    forms = draw_domain("forms", 4, seed=1)
    first, *others = map(extract_features, forms)
    copy = register(first, extract_features(forms[0].resize((340, 440), Image.Resampling.LANCZOS)))
    assert copy.least_agreement > 0.95
    for other in others:
        found = register(first, other)
        assert found.num_points > 50  # the layout is the same, and registers
        assert found.least_agreement < found.agreement < 0.9
        height = np.diff(fisher(np.array([found.least_agreement, copy.least_agreement])))[0]
        assert height > 6 * LEAST_SPREAD  # so that a copy can stand out of them


def test_pictures_without_points_are_not_registered() -> None:
    flat = extract_features(Image.new("RGB", (200, 200), (9, 9, 9)))
    assert register(flat, flat) == register(features(0), flat) == register(flat, features(0)) == NONE


def test_the_result_depends_on_the_two_pictures_alone() -> None:
    pairs = [(features(0), features(1)), (features(2), extract_features(cropped(photo(2))))]
    first = [register(*pair) for pair in pairs]
    for seed in (1, 99):
        cv2.setRNGSeed(seed)
        register(features(3), features(4))
        assert [register(*pair) for pair in reversed(pairs)][::-1] == first
    stored = [LocalFeatures(x.stored_points, x.stored_descriptors, x.encoded) for x in pairs[1]]
    assert register(stored[0], stored[1]) == first[1]


def test_twice_the_points_add_an_eighth_to_the_agreement() -> None:
    agreement = np.float32([0.5, 0.25, 0.25, 0.9, -1, 0.3, 0.3])
    points = np.array([4, 16, 8, 64, 0, 2, 4])
    expected = [0.5, 0.5, 0.375, 1.0, -1.0, 0.3, 0.3]
    found = registration_score(agreement, points)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def correlations(x: np.ndarray, y: np.ndarray, mask: np.ndarray) -> list[float]:
    """Of each tile that counts the best correlation over shifts, by plain loops."""
    rows, columns = x.shape[0] // TILE, x.shape[1] // TILE
    top, left = (x.shape[0] - rows * TILE) // 2, (x.shape[1] - columns * TILE) // 2
    around, found = np.pad(y.astype(np.float64), SHIFT), []
    for row in range(top, top + rows * TILE, TILE):
        for column in range(left, left + columns * TILE, TILE):
            m = mask[row : row + TILE, column : column + TILE] > 0
            a = x[row : row + TILE, column : column + TILE].astype(np.float64)[m]
            best, middle = -1.0, 0.0
            for down in range(-SHIFT, SHIFT + 1):
                for right in range(-SHIFT, SHIFT + 1):
                    at = row + down + SHIFT, column + right + SHIFT
                    b = around[at[0] : at[0] + TILE, at[1] : at[1] + TILE][m]
                    best = max(best, float(a @ b) / np.sqrt(max(float(a @ a) * float(b @ b), 1e-6)))
                    middle = float(b @ b) if down == right == 0 else middle
            if m.sum() > TILE**2 / 2 and max(float(a @ a), middle) > LEAST_DETAIL**2 * m.sum():
                found.append(best)
    return found


@pytest.mark.parametrize("shape", [(150, 107), (64, 96), (33, 40)])
def test_tiles_equal_plain_loops(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x = 5 * rng.standard_normal(shape).astype(np.float32)
    y = np.roll(x, (1, -2), axis=(0, 1)) + 4 * rng.standard_normal(shape).astype(np.float32)
    x[:40, :30] *= 0.01  # without details in one picture
    x[40:70, 30:66], y[40:70, 30:66] = 0, 0
    mask = np.ones(shape, np.float32)
    mask[:, :20] = 0
    np.testing.assert_allclose(_tile_correlations(x, y, mask), correlations(x, y, mask), atol=1e-4)


def test_pictures_smaller_than_a_tile_have_none() -> None:
    nothing = np.ones((TILE - 1, 5 * TILE), np.float32)
    assert len(_tile_correlations(nothing, nothing, nothing)) == 0


def test_sums_of_tiles() -> None:
    x = np.random.default_rng(1).standard_normal((3 * TILE, 2 * TILE))
    expected = x.reshape(3, TILE, 2, TILE).sum(axis=(1, 3))
    np.testing.assert_allclose(_tile_sums(x), expected)


def test_details_are_a_band_without_shading() -> None:
    _, x = np.mgrid[:120, :160]
    shading = (0.5 * x + 40).astype(np.uint8)
    inside = (slice(30, -30), slice(30, -30))
    assert np.abs(_details(shading)[inside]).max() < 1
    wave = (128 + 100 * np.sin(x * 2 * np.pi / 16)).astype(np.uint8)
    gain = np.exp(-0.5 * (2 * np.pi / 16 * FINE) ** 2) - np.exp(-0.5 * (2 * np.pi / 16 * COARSE) ** 2)
    assert np.abs(_details(wave)[inside]).max() == pytest.approx(100 * gain, rel=0.03)


def test_agreements_are_the_quantiles_of_the_tiles() -> None:
    """Of a picture over itself no point moves, so that the agreement is that of its tiles at one place."""
    a = features(0)
    changed = a.luma.copy()
    changed[60:130] = 255 - changed[60:130]
    encoded = LocalFeatures(a.stored_points, a.stored_descriptors, _lossless(changed))
    plain = LocalFeatures(a.stored_points, a.stored_descriptors, _lossless(a.luma))
    found = register(plain, encoded)
    mask = cv2.erode(np.ones(changed.shape, np.uint8), np.ones((5, 5), np.uint8), borderValue=0)
    tiles = correlations(_details(a.luma), _details(changed), mask)
    expected = Registration(*np.quantile(tiles, [WEAK_TILES, FEW_TILES]), found.num_points)
    assert found == pytest.approx(expected, abs=2e-3)
    assert found.num_points == len(a.points)


def _lossless(luma: np.ndarray) -> bytes:
    return cv2.imencode(".png", luma)[1].tobytes()
