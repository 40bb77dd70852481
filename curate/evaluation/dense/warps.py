"""Homographies: where points of a picture go, and the picture as it looks from there.

A homography is a (3, 3) matrix on (x, y, 1). Coordinates are pixels from the top left corner, so that the center of the
first pixel is (0.5, 0.5), which is also Pillow's convention when it transforms a picture.
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image


class Pose(NamedTuple):
    """How something lies in a picture: what `place` composes, in this order."""

    scale: float
    angle: float  # radians, counterclockwise on the screen
    center: tuple[float, float]  # where the middle of the picture comes to lie
    mirrored: bool = False


def translation(x: float, y: float) -> np.ndarray:
    """The homography that moves points by (x, y)."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def scaling(factor: float) -> np.ndarray:
    """The homography that scales about the origin."""
    return np.diag([factor, factor, 1.0])


def rotation(angle: float) -> np.ndarray:
    """The homography that rotates by `angle` radians about the origin, counterclockwise as seen; y points down."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])


def place(size: tuple[int, int], pose: Pose) -> np.ndarray:
    """The homography that puts a picture of (width, height) into another one."""
    mirror = np.diag([-1.0 if pose.mirrored else 1.0, 1.0, 1.0])
    middle = translation(-size[0] / 2, -size[1] / 2)
    return translation(*pose.center) @ rotation(pose.angle) @ scaling(pose.scale) @ mirror @ middle


def from_corners(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The homography that brings four points to four others.

    Args:
        source, target: (4, 2), no three of them on a line.

    Source: Hartley and Zisserman, Multiple View Geometry, section 4.1, with the last entry set to 1.
    """
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.append(np.linalg.solve(np.array(rows, np.float64), np.array(values, np.float64)), 1.0).reshape(3, 3)


def apply(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(K, 2) points -> (K, 2) where they go."""
    moved = np.column_stack([points, np.ones(len(points))]) @ homography.T
    return moved[:, :2] / moved[:, 2:]


def warp(
    picture: Image.Image,
    homography: np.ndarray,
    size: tuple[int, int],
    *,
    resample: Image.Resampling = Image.Resampling.BILINEAR,
    fill: int | tuple[int, ...] | None = 0,
) -> Image.Image:
    """The picture moved by a homography, in a frame of (width, height); what lies outside of it is `fill`."""
    back = np.linalg.inv(homography)
    coefficients = tuple((back / back[2, 2]).ravel()[:8])
    return picture.transform(size, Image.Transform.PERSPECTIVE, coefficients, resample, fillcolor=fill)


def random_view(rng: np.random.Generator, side: int, *, angle: float, zoom: float, tilt: float) -> np.ndarray:
    """A homography within a square of `side` pixels: a view from elsewhere that keeps its middle about where it is.

    Args:
        rng: source of randomness.
        side: pixels along the square.
        angle: radians that it turns at most, to either side.
        zoom: factor by which it grows or shrinks at most.
        tilt: share of the side by which each corner moves besides, at most.
    """
    corners = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float64)
    scale = math.exp(rng.uniform(-1, 1) * math.log(zoom))
    turned = apply(place((side, side), Pose(scale, rng.uniform(-angle, angle), (side / 2, side / 2))), corners)
    return from_corners(corners, turned + rng.uniform(-tilt, tilt, (4, 2)) * side * scale)
