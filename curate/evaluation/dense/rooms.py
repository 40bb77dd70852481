"""Rooms of layered planes with exact depth: a ground, a wall, and upright objects that stand between them.

A camera one unit above the ground looks level. Depth shows as it does outdoors: by where things stand on the ground, by
the texture of the ground, by how large things are, by what hides what, and by haze. Horizon, wall and haze differ from
room to room, so that the row of a pixel alone does not tell its depth.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from curate.evaluation.dense.material import Half
from curate.evaluation.dense.truth import Deep
from curate.evaluation.dense.warps import Pose, from_corners, place, warp

if TYPE_CHECKING:
    from curate.evaluation.dense.composites import Composer

SIDE = 256
"""Pixels along the side of a picture."""
FOCAL = 1.0 * SIDE
"""Focal length in pixels: 53 degrees across."""
HORIZON = (0.3, 0.5)
"""Row of the horizon as a share of the side."""
WALL = (5.0, 10.0)
"""Depth of the wall, in heights of the camera."""
DEEPEST = WALL[1]
"""No depth is larger."""
NUM_OBJECTS = 3
NEAREST = 1.8
"""Depth from which on objects stand."""
HEIGHTS = (0.5, 1.0)
"""Heights of objects, of which the camera's is 1."""
HAZE = 0.08
"""Share of light that one unit of depth scatters."""
TILE, TILES, WIDE = 64, 6, 6.0
"""Pixels of a tile of the ground, tiles along its side, and half its width in heights of the camera."""


def make_room(maker: "Composer", half: Half, number: int) -> Deep:
    """Room `number` of a composer."""
    rng = maker.rng("depth", half, number)
    horizon, wall = SIDE * rng.uniform(*HORIZON), rng.uniform(*WALL)
    depth = ground_depth(horizon, wall)
    picture = maker.background(half, rng, SIDE)
    ground = _draw_ground(maker.background(half, rng, TILE), horizon, wall)
    picture.paste(ground, (0, 0), Image.fromarray((depth < wall).astype(np.uint8) * 255))
    labels = rng.permutation(len(maker.material.classes))[:NUM_OBJECTS].tolist()
    for label, z in zip(labels, sorted(rng.uniform(NEAREST, 0.85 * wall, len(labels)), reverse=True), strict=True):
        thing = maker.thing(label, half, rng, long_side=FOCAL * rng.uniform(*HEIGHTS) / z)
        foot = horizon + FOCAL / z
        where = (SIDE * rng.uniform(0.15, 0.85), foot - thing.picture.height / 2)
        moved = place(thing.picture.size, Pose(1.0, 0.0, where))
        mask = warp(thing.mask, moved, picture.size)
        picture.paste(warp(thing.picture, moved, picture.size), (0, 0), mask)
        depth[np.asarray(mask) >= 128] = z
    return Deep(_hazy(picture, depth, rng), depth)


def ground_depth(horizon: float, wall: float) -> np.ndarray:
    """(S, S) float32, the depth of each pixel: that of the ground below the wall's foot, else that of the wall.

    The ray through row y falls by (y - horizon) / FOCAL for each unit of depth, and meets the ground one unit below.
    """
    below = np.arange(SIDE) + 0.5 - horizon
    rows = np.where(below > 0, FOCAL / np.maximum(below, 1e-9), math.inf)
    return np.repeat(np.minimum(rows, wall)[:, None], SIDE, axis=1).astype(np.float32)


def _draw_ground(tile: Image.Image, horizon: float, wall: float) -> Image.Image:
    texture = Image.new("RGB", (TILE * TILES, TILE * TILES))
    for column in range(TILES):
        for row in range(TILES):
            texture.paste(tile, (column * TILE, row * TILE))
    near = FOCAL / (SIDE - horizon)
    ground = np.array([[-WIDE, wall], [WIDE, wall], [WIDE, near], [-WIDE, near]])  # x and depth
    seen = np.column_stack([SIDE / 2 + FOCAL * ground[:, 0] / ground[:, 1], horizon + FOCAL / ground[:, 1]])
    end = TILE * TILES
    corners = np.array([[0, 0], [end, 0], [end, end], [0, end]], np.float64)
    return warp(texture, from_corners(corners, seen), (SIDE, SIDE))


def _hazy(picture: Image.Image, depth: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """The picture through haze of a random light gray, whose share of light follows from the depth."""
    seen = np.exp(-HAZE * depth)[..., None]
    haze = rng.uniform(170, 230) + rng.uniform(-10, 10, 3)
    return Image.fromarray((np.asarray(picture) * seen + haze * (1 - seen)).round().clip(0, 255).astype(np.uint8))
