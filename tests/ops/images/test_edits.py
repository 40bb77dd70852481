"""Planted copies: seeded, recognisable, and every edit changes the picture."""

from importlib import resources

import numpy as np
import pytest
from PIL import Image

from curate.ops.images.edits import EDITS, MIN_SIDE, plant

PHOTO = Image.open(resources.files("curate").joinpath("samples/photos/birds/heron.jpg").open("rb")).convert("RGB")


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
    with pytest.raises(ValueError, match=r"11 edits: 1 to 10 are possible"):
        plant(PHOTO, np.random.default_rng(0), num_edits=11)
