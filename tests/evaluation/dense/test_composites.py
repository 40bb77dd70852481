import numpy as np
import pytest
from PIL import Image

from curate.errors import SourceError
from curate.evaluation.dense import clips, rooms
from curate.evaluation.dense.composites import CANVAS, compose
from curate.evaluation.dense.cutouts import cut_out, lies_on_one_color
from curate.evaluation.dense.material import Material
from curate.evaluation.dense.truth import DenseTruth
from curate.evaluation.dense.warps import apply
from curate.evaluation.labeled import LabeledImages, from_arrays, open_labeled
from tests.evaluation.backbones import of_pictures


def noise(num: int, *, classes: int = 5) -> LabeledImages:
    rng = np.random.default_rng(0)
    return from_arrays(rng.integers(0, 256, (num, 64, 64, 3), np.uint8), np.arange(num) % classes, name="noise")


@pytest.fixture(scope="module")
def photos() -> DenseTruth:
    return compose(open_labeled("bundled"), seed=3, scenes=6)


def test_composites_are_equal_whenever_they_are_made() -> None:
    first, second = (compose(noise(40), seed=1, scenes=3) for _ in range(2))
    other = compose(noise(40), seed=2, scenes=3)
    a, b, c = (truth.segmentation.test[2] for truth in (first, second, other) if truth.segmentation)
    assert np.array_equal(np.asarray(a.picture), np.asarray(b.picture))
    assert np.array_equal(a.labels, b.labels)
    assert not np.array_equal(a.labels, c.labels)
    rooms_made = [truth.depth.train[1].depth for truth in (first, second) if truth.depth]
    np.testing.assert_array_equal(*rooms_made)


def test_halves_share_no_picture_and_backgrounds_are_of_other_classes() -> None:
    images = noise(60, classes=6)
    material = Material(images, seed=0)
    halves = [np.concatenate(material._objects.of(half)) for half in ("train", "test")]
    behind = [np.concatenate(material._backgrounds.of(half)) for half in ("train", "test")]
    every = np.concatenate([*halves, *behind])
    assert len(every) == len(np.unique(every))
    assert not set(images.labels[np.concatenate(halves)]) & set(images.labels[np.concatenate(behind)])


def test_labels_are_the_pixels_that_differ_from_the_background(photos: DenseTruth) -> None:
    assert photos.segmentation
    one = photos.segmentation.test[0]
    assert one.labels.shape == one.picture.size == (CANVAS, CANVAS)
    shown = np.unique(one.labels)
    assert shown[0] == 0
    assert 1 <= len(shown) - 1 <= 3
    assert len(photos.segmentation.classes) > shown.max()


def test_things_on_one_color_are_cut_out_exactly() -> None:
    pixels = np.full((40, 50, 3), 250, np.uint8)
    pixels[10:30, 5:25] = (200, 10, 10)
    pixels[15:20, 10:15] = 250  # a hole of the background's color belongs to the thing
    picture = Image.fromarray(pixels)
    assert lies_on_one_color(picture)
    cut = cut_out(picture, np.random.default_rng(0))
    assert cut.picture.size == cut.mask.size == (20, 20)
    assert (np.asarray(cut.mask) == 255).all()
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    assert not lies_on_one_color(photo)
    assert 0.3 < (np.asarray(cut_out(photo, np.random.default_rng(1)).mask) > 0).mean() < 1


def test_both_views_show_the_same_thing_at_points_that_match(photos: DenseTruth) -> None:
    assert photos.correspondence
    agree = []
    for pair in photos.correspondence.pairs:
        assert len(pair.points) == len(pair.found) >= 16
        assert (pair.found > 0).all()
        assert (pair.found < CANVAS).all()
        gray = [np.asarray(view.convert("L"), np.float64) for view in (pair.first, pair.second)]
        values = [
            image[np.floor(points[:, 1]).astype(int), np.floor(points[:, 0]).astype(int)]
            for image, points in zip(gray, (pair.points, pair.found), strict=True)
        ]
        agree.append(np.corrcoef(*values)[0, 1])
    assert np.mean(agree) > 0.8


def test_masks_of_a_clip_move_with_the_camera() -> None:
    path = clips.Path((40.0, 0.0), (0.0, 0.0), 0.0, 0.0, 0.0)
    points = np.array([[10.0, 20.0]])
    np.testing.assert_allclose(apply(path.layer(1.0, 1.0), points), [[50.0, 20.0]])  # near things pass by faster
    np.testing.assert_allclose(apply(path.layer(0.5, 4.0), points), [[15.0, 20.0]])


def test_clips_begin_with_two_objects_that_then_move(photos: DenseTruth) -> None:
    assert photos.propagation
    clip = photos.propagation.clips[0]
    first, last = clip.masks[0], clip.masks[len(clip.masks) - 1]
    assert set(np.unique(first)) == {0, 1, 2}
    assert (first != last).mean() > 0.02
    assert len(clip.frames) == len(clip.masks) == clips.FRAMES


def test_depth_of_the_ground_is_that_of_its_rays() -> None:
    horizon, wall = 100.0, 8.0
    depth = rooms.ground_depth(horizon, wall)
    for row in (150, 200, 255):
        # the ray (0, y, FOCAL) reaches one unit below the camera at depth FOCAL / y
        assert depth[row, 7] == pytest.approx(min(wall, rooms.FOCAL / (row + 0.5 - horizon)))
    assert (depth[:100] == wall).all()


def test_objects_stand_in_front_of_what_they_hide(photos: DenseTruth) -> None:
    assert photos.depth
    for room in photos.depth.test:
        assert np.isfinite(room.depth).all()
        assert 0 < room.depth.min() < room.depth.max() <= photos.depth.deepest


def test_box_and_mask_of_a_lone_object_agree(photos: DenseTruth) -> None:
    assert photos.discovery
    one = photos.discovery.pictures[1]
    assert one.mask is not None
    left, top, right, bottom = one.boxes[0].astype(int)
    assert one.mask.sum() == one.mask[top:bottom, left:right].sum() > 0
    assert one.mask[top].any()
    assert one.mask[:, right - 1].any()


def test_pictures_without_classes_are_classes_of_their_own() -> None:
    pictures = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8)) for i in range(9)]
    truth = compose(of_pictures(pictures), seed=0, scenes=2)
    assert truth.segmentation
    assert len(truth.segmentation.classes) == 4
    assert "the same pictures" in truth.segmentation.protocol


def test_too_few_pictures_are_an_error() -> None:
    with pytest.raises(SourceError, match="noise: 5 pictures, at least 6 are needed for composites"):
        compose(noise(5), seed=0, scenes=2)
