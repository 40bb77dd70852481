"""Planted copies: seeded, recognisable, and every edit changes the picture."""

import io
from importlib import resources

import numpy as np
import pytest
from PIL import Image

from curate.ops.images.decode import decode_rgb
from curate.ops.images.edits import BORDERS, EDITS, MIN_SIDE, plant, plant_file

PHOTO = Image.open(resources.files("curate").joinpath("samples/photos/birds/heron.jpg").open("rb")).convert("RGB")
SMALL = PHOTO.resize((96, 72))


@pytest.mark.parametrize("num_edits", [1, 2, 3, len(EDITS)])
def test_one_seed_gives_one_copy(num_edits):
    first, names = plant(PHOTO, np.random.default_rng(5), num_edits=num_edits)
    again, same = plant(PHOTO, np.random.default_rng(5), num_edits=num_edits)
    assert names == same
    assert len(set(names)) == num_edits
    np.testing.assert_array_equal(np.asarray(first), np.asarray(again))
    other, _ = plant(PHOTO, np.random.default_rng(6), num_edits=num_edits)
    assert first.size != other.size or (np.asarray(first) != np.asarray(other)).any()


@pytest.mark.parametrize("name", sorted(EDITS))
def test_every_edit_changes_the_picture_and_leaves_its_source(name):
    before = np.asarray(PHOTO).copy()
    for seed in range(5):
        edited = EDITS[name](PHOTO, np.random.default_rng(seed))
        assert edited.mode == "RGB"
        assert edited.size != PHOTO.size or (np.asarray(edited) != before).any()
        if name in ("jpeg", "text", "colour", "blur", "rescale"):  # what lies where stays recognisable
            shapes = (np.asarray(p.convert("L").resize((16, 16)), float).ravel() for p in (PHOTO, edited))
            assert np.corrcoef(*shapes)[0, 1] > 0.8
    np.testing.assert_array_equal(np.asarray(PHOTO), before)


def test_every_edit_is_drawn():
    rng = np.random.default_rng(0)
    small = PHOTO.resize((64, 48))
    assert {plant(small, rng, num_edits=1)[1][0] for _ in range(100)} == set(EDITS)


def test_crops_keep_half_to_nine_tenths_of_the_area():
    shares = [
        np.prod(EDITS["crop"](PHOTO, np.random.default_rng(seed)).size) / np.prod(PHOTO.size) for seed in range(50)
    ]
    assert 0.49 < min(shares) < 0.6
    assert 0.8 < max(shares) < 0.91


def test_rescaling_stops_at_the_smallest_side():
    edited = EDITS["rescale"](PHOTO.resize((120, MIN_SIDE + 2)), np.random.default_rng(0))
    assert min(edited.size) >= MIN_SIDE


def test_more_edits_than_there_are_is_an_error():
    with pytest.raises(ValueError, match=r"11 edits, 0 of them borders: 1 to 10 edits are possible"):
        plant(PHOTO, np.random.default_rng(0), num_edits=11)
    with pytest.raises(ValueError, match=r"2 edits, 3 of them borders: .* 0 to 2 borders"):
        plant(PHOTO, np.random.default_rng(0), num_edits=2, num_borders=3)


@pytest.mark.parametrize("name", sorted(BORDERS))
def test_every_border_surrounds_the_picture_as_it_was(name):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        bordered = BORDERS[name](PHOTO, rng)
        shown = np.asarray(decode_rgb(_png(bordered)))  # as the program reads it: on white
        inner = np.asarray(PHOTO)[60:-60, 60:-60]
        if name == "framed_crop":
            inner = np.asarray(EDITS["crop"](PHOTO, np.random.default_rng(seed)))
        assert _holds(shown, inner)
        assert shown.shape != np.asarray(PHOTO).shape or (shown != np.asarray(PHOTO)).any()
        if bordered.mode == "RGBA":
            assert (shown[np.asarray(bordered)[..., 3] == 0] == 255).all()


def test_a_chain_has_as_many_borders_as_it_was_asked_for():
    drawn: set[str] = set()
    for seed in range(60):
        _, names = plant(SMALL, np.random.default_rng(seed), num_edits=3, num_borders=1)
        assert sum(name in BORDERS for name in names) == 1
        assert len(set(names)) == 3
        drawn |= set(names)
    assert drawn == set(BORDERS) | set(EDITS)


def test_a_planted_file_shows_what_was_planted():
    forms: set[str] = set()
    for seed in range(40):
        data, names = plant_file(SMALL, np.random.default_rng(seed), num_edits=2, num_borders=seed % 2)
        shown, same = plant(SMALL, np.random.default_rng(seed), num_edits=2, num_borders=seed % 2)
        assert names == same
        np.testing.assert_array_equal(np.asarray(decode_rgb(data)), np.asarray(shown))
        forms.add(str(Image.open(io.BytesIO(data)).format))
    assert forms == {"JPEG", "PNG"}


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _holds(whole: np.ndarray, part: np.ndarray) -> bool:
    """Whether a (H, W, 3) picture holds another one, pixel by pixel, at some place."""
    height, width = part.shape[:2]
    corner = (whole[: len(whole) - height + 1, : whole.shape[1] - width + 1] == part[0, 0]).all(axis=2)
    places = np.argwhere(corner)
    return any((whole[y : y + height, x : x + width] == part).all() for y, x in places.tolist())
