"""Composites: objects pasted on backgrounds, so that the truth of every pixel is exact. All follow from a seed.

The pictures are real and their arrangement is not: composites tell models apart and show the course of a training, and
their figures are not comparable with those of the sets of the papers.
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance

from curate.evaluation.dense import clips, rooms
from curate.evaluation.dense.cutouts import CutOut, cut_out
from curate.evaluation.dense.material import Half, Material
from curate.evaluation.dense.truth import (
    CorrespondenceTask,
    DenseTruth,
    DepthTask,
    DiscoveryTask,
    Matched,
    PropagationTask,
    SegmentationTask,
    Segmented,
    Series,
    WithObjects,
)
from curate.evaluation.dense.warps import Pose, apply, place, random_view, translation, warp
from curate.evaluation.labeled import LabeledImages

CANVAS = 256
"""Pixels along the side of a composite."""
TRAIN_SHARE = 2
"""Composites that are learned on, for each that is asked for."""
CLIP_SHARE = 5
"""Composites asked for by other measures, for each clip."""
OBJECTS = 3
"""Objects of a composite for segmentation."""
SIZES, LONE_SIZES = (0.3, 0.55), (0.4, 0.65)
"""Long side of an object as a share of the composite's; of one that is alone."""
TURN = math.radians(30)
"""Angle by which an object is turned, at most."""
LIGHT = (0.7, 1.3)
"""Factors on brightness and contrast of an object, and of a second view."""
BASE = 384
"""Side of the scene that both views of a pair show a part of."""
NUM_POINTS, FEWEST_POINTS = 64, 16
"""Points of a pair that are drawn, and that must be seen in both views."""
VIEW_TURN, VIEW_ZOOM, VIEW_TILT = math.radians(45), 1.6, 0.08
"""How much a second view differs: turn, zoom, and share of the side by which corners move."""


class Scene(NamedTuple):
    """A composite and its objects."""

    picture: Image.Image
    labels: np.ndarray  # (S, S) int64: 0 background, else the class of the object plus 1


def compose(images: LabeledImages, *, seed: int, scenes: int) -> DenseTruth:
    """The tasks on composites of a set of pictures.

    Args:
        images: pictures, with or without classes.
        seed: seed of all composites.
        scenes: composites that are asked for in a task; twice as many are learned on.

    Raises:
        SourceError: there are too few pictures, or one does not decode.
    """
    material = Material(images, seed=seed)
    maker = Composer(material, seed)
    kind = "things on one color" if material.plain else "cut-outs"
    made = f"{scenes} composites of {kind}"
    learned = TRAIN_SHARE * scenes
    num_clips = max(2, scenes // CLIP_SHARE)
    return DenseTruth(
        f"composites of {images.name}",
        SegmentationTask(
            Series(learned, lambda i: maker.segmented("train", i)),
            Series(scenes, lambda i: maker.segmented("test", i)),
            ("background", *material.classes),
            f"{made}, {'the same' if material.same_pictures else 'new'} pictures",
        ),
        CorrespondenceTask(Series(scenes, maker.matched), f"{scenes} pairs of views of composites"),
        PropagationTask(Series(num_clips, lambda i: clips.make_clip(maker, i)), f"{num_clips} clips of moving layers"),
        DepthTask(
            Series(learned, lambda i: rooms.make_room(maker, "train", i)),
            Series(scenes, lambda i: rooms.make_room(maker, "test", i)),
            "camera heights",
            rooms.DEEPEST,
            f"{scenes} rooms of layered planes",
        ),
        DiscoveryTask(Series(scenes, maker.lone), f"{made}, one object each"),
    )


class Composer:
    """Makes composites by number; those of one number are equal whenever they are made."""

    def __init__(self, material: Material, seed: int) -> None:
        self.material, self.seed = material, seed

    def rng(self, task: str, half: Half, number: int) -> np.random.Generator:
        """The source of randomness of one composite."""
        return np.random.default_rng([self.seed, *task.encode(), half == "test", number])

    def segmented(self, half: Half, number: int) -> Segmented:
        """A composite with the class of every pixel."""
        rng = self.rng("segmentation", half, number)
        scene = self.scene(half, rng, side=CANVAS, num_objects=OBJECTS, sizes=SIZES)
        return Segmented(scene.picture, scene.labels)

    def lone(self, number: int) -> WithObjects:
        """A composite of one object."""
        rng = self.rng("discovery", "test", number)
        scene = self.scene("test", rng, side=CANVAS, num_objects=1, sizes=LONE_SIZES)
        mask = scene.labels > 0
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float64)
        return WithObjects(scene.picture, box, mask)

    def matched(self, number: int) -> Matched:
        """Two views of one composite, the second turned, zoomed, tilted and in another light."""
        rng = self.rng("correspondence", "test", number)
        scene = self.scene("test", rng, side=BASE, num_objects=2, sizes=SIZES).picture
        inset = translation((CANVAS - BASE) / 2, (CANVAS - BASE) / 2)
        first = warp(scene, inset, (CANVAS, CANVAS))
        points = rng.uniform(0, CANVAS, (NUM_POINTS, 2))
        while True:
            view = inset @ random_view(rng, BASE, angle=VIEW_TURN, zoom=VIEW_ZOOM, tilt=VIEW_TILT)
            found = apply(view @ np.linalg.inv(inset), points)
            seen = ((found > 0) & (found < CANVAS)).all(axis=1)
            if seen.sum() >= FEWEST_POINTS:
                break
        second = relight(warp(scene, view, (CANVAS, CANVAS), fill=(128, 128, 128)), rng)
        return Matched(first, second, points[seen], found[seen])

    def scene(
        self, half: Half, rng: np.random.Generator, *, side: int, num_objects: int, sizes: tuple[float, float]
    ) -> Scene:
        """Objects of different classes on a background."""
        picture = self.background(half, rng, side)
        labels = np.zeros((side, side), np.int64)
        num_classes = len(self.material.classes)
        for label in rng.permutation(num_classes)[:num_objects].tolist():
            thing = self.thing(label, half, rng, long_side=side * rng.uniform(*sizes))
            where = (side * rng.uniform(0.2, 0.8), side * rng.uniform(0.2, 0.8))
            pose = Pose(1.0, rng.uniform(-TURN, TURN), where, bool(rng.random() < 0.5) and not self.material.plain)
            labels[paste(picture, thing, place(thing.picture.size, pose))] = label + 1
        return Scene(picture, labels)

    def background(self, half: Half, rng: np.random.Generator, side: int) -> Image.Image:
        """A square part of a picture, `side` pixels along its side."""
        found = self.material.background(half, rng)
        length = round(min(found.size) * rng.uniform(0.6, 1.0))
        left, top = (int(rng.integers(0, full - length + 1)) for full in found.size)
        return found.resize((side, side), Image.Resampling.BICUBIC, (left, top, left + length, top + length))

    def thing(self, label: int, half: Half, rng: np.random.Generator, *, long_side: float) -> CutOut:
        """An object of a class, its long side so many pixels, in some light."""
        cut = cut_out(self.material.object(label, half, rng), rng)
        scale = long_side / max(cut.picture.size)
        width, height = (max(2, round(length * scale)) for length in cut.picture.size)
        picture, mask = (image.resize((width, height), Image.Resampling.BICUBIC) for image in cut)
        return CutOut(relight(picture, rng), mask)


def paste(picture: Image.Image, thing: CutOut, homography: np.ndarray) -> np.ndarray:
    """Paste an object into `picture`, which is changed; (H, W) bool, where it lies."""
    mask = warp(thing.mask, homography, picture.size)
    picture.paste(warp(thing.picture, homography, picture.size), (0, 0), mask)
    return np.asarray(mask) >= 128


def relight(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The picture at another brightness and contrast."""
    brighter = ImageEnhance.Brightness(picture).enhance(rng.uniform(*LIGHT))
    return ImageEnhance.Contrast(brighter).enhance(rng.uniform(*LIGHT))
