"""Clips of a moving camera: layers at different depths, which pass each other as it moves, turns and zooms."""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageEnhance

from curate.evaluation.dense.cutouts import CutOut
from curate.evaluation.dense.truth import Clip, Series
from curate.evaluation.dense.warps import Pose, place, rotation, scaling, translation, warp

if TYPE_CHECKING:
    from curate.evaluation.dense.composites import Composer

SIDE = 256
"""Pixels along the side of a frame."""
FRAMES = 12
"""Frames of a clip."""
NUM_OBJECTS = 2
BACKDROP = 2.0
"""Side of the background as a multiple of a frame's, so that the camera never sees its end."""
SIZES = (0.35, 0.55)
"""Long side of an object as a share of the frame's."""
NEAR, FAR = (1.0, 2.0), 4.0
"""Depths of objects, and of the background."""
DRIFT = 0.35
"""Share of the side by which something at depth 1 moves in a clip, at most."""
ROLL = math.radians(20)
"""Angle by which the camera turns about its axis in a clip, at most."""
ZOOM = 0.5
"""Natural logarithm of the factor by which something at depth 1 grows in a clip, at most."""
DIM = 0.25
"""By how much the light changes in a clip, at most."""


class Layer(NamedTuple):
    """An object, and how it lies in the first frame."""

    thing: CutOut
    placed: np.ndarray  # (3, 3)
    depth: float


class Path(NamedTuple):
    """What the camera does from the first to the last frame."""

    drift: tuple[float, float]  # pixels, of something at depth 1
    bend: tuple[float, float]  # pixels, to the side of the straight line
    zoom: float
    roll: float
    dim: float

    def layer(self, time: float, depth: float) -> np.ndarray:
        """The homography that brings the first frame to that of `time`, 0..1, for what lies at a depth."""
        x, y = (
            (line * time + bow * math.sin(math.pi * time)) / depth
            for line, bow in zip(self.drift, self.bend, strict=True)
        )
        middle = translation(SIDE / 2, SIDE / 2)
        moved = rotation(self.roll * time) @ scaling(math.exp(self.zoom * time / depth)) @ translation(x, y)
        return middle @ moved @ translation(-SIDE / 2, -SIDE / 2)


def make_clip(maker: "Composer", number: int) -> Clip:
    """Clip `number` of a composer; its frames are drawn when they are asked for."""
    rng = maker.rng("propagation", "test", number)
    backdrop = maker.background("test", rng, round(BACKDROP * SIDE))
    labels = rng.permutation(len(maker.material.classes))[:NUM_OBJECTS].tolist()
    layers = [_lay(maker, label, place_at, rng) for label, place_at in zip(labels, (0.32, 0.68), strict=False)]
    drift, bend = (tuple((SIDE * scale * rng.uniform(-1, 1, 2)).tolist()) for scale in (DRIFT, DRIFT / 4))
    path = Path(
        (drift[0], drift[1]),
        (bend[0], bend[1]),
        rng.uniform(-ZOOM, ZOOM),
        rng.uniform(-ROLL, ROLL),
        rng.uniform(-DIM, DIM),
    )
    times = np.linspace(0, 1, FRAMES).tolist()
    return Clip(
        f"clip {number + 1}",
        Series(FRAMES, lambda i: draw_frame(backdrop, layers, path, times[i])[0]),
        Series(FRAMES, lambda i: draw_frame(backdrop, layers, path, times[i])[1]),
    )


def _lay(maker: "Composer", label: int, x: float, rng: np.random.Generator) -> Layer:
    thing = maker.thing(label, "test", rng, long_side=SIDE * rng.uniform(*SIZES))
    where = (SIDE * (x + rng.uniform(-0.08, 0.08)), SIDE * rng.uniform(0.35, 0.65))
    return Layer(thing, place(thing.picture.size, Pose(1.0, 0.0, where)), rng.uniform(*NEAR))


def draw_frame(backdrop: Image.Image, layers: list[Layer], path: Path, time: float) -> tuple[Image.Image, np.ndarray]:
    """The frame at `time`, 0..1, and (S, S) int64: 0 background, else 1 plus the number of the layer."""
    centered = translation((SIDE - backdrop.width) / 2, (SIDE - backdrop.height) / 2)
    frame = warp(backdrop, path.layer(time, FAR) @ centered, (SIDE, SIDE))
    labels = np.zeros((SIDE, SIDE), np.int64)
    for number in sorted(range(len(layers)), key=lambda i: -layers[i].depth):  # the nearest is painted last
        layer = layers[number]
        moved = path.layer(time, layer.depth) @ layer.placed
        mask = warp(layer.thing.mask, moved, frame.size)
        frame.paste(warp(layer.thing.picture, moved, frame.size), (0, 0), mask)
        labels[np.asarray(mask) >= 128] = number + 1
    return ImageEnhance.Brightness(frame).enhance(1 + path.dim * time), labels
