"""Whether one picture can be laid over another, and how well they agree where it lies.

A network says that two pictures are of one kind; whether one is a copy of the other shows in their pixels. A copy that
was cropped, framed, turned, mirrored or written over lies exactly over its original once that is undone, and two
pictures that differ do not. Points that look alike in both pictures propose how (`features.py`); a similarity
transform that most of them agree on is the registration. Two answers come of it:

- how many points agree. Distinct photographs have three or four by chance, copies tens.
- how well the pictures agree. After registration both are cut into tiles. Within each the correlation of the details
  is taken, the best over shifts by two pixels, and the value that a fifth of the tiles stay below is the agreement. So
  a copy may be written over in one place. Forms of one layout agree wherever nothing is filled in, as frames of one
  camera do where nothing moves. Where pictures look alike a tenth is asked instead, and a pair must stand out of the
  others (`crowds.py`).

Source: RANSAC, Fischler and Bolles 1981 (Communications of the ACM 24:6); matches by the ratio of distances, Lowe 2004.
"""

from typing import NamedTuple

import cv2
import numpy as np

from curate.ops.copies.features import LocalFeatures

RATIO = 0.9
"""Largest ratio of a match's distance to that of the next best one; both points must choose each other."""
MAX_ERROR = 3.0
"""Pixels by which a point may miss its partner."""
ITERATIONS = 300
"""Random samples of two matches at most; the generator is OpenCV's, which starts anew for each pair."""
LEAST_POINTS = 4
"""Points that must agree: two alone define a transform."""
ENOUGH_POINTS = 20
"""Points from which on the other side of the mirror is not tried."""
MAX_SCALE = 5.0
"""Largest scale between two copies."""
FINE, COARSE = 1.0, 6.0
"""Standard deviations in pixels of the blurs whose difference is compared: details without noise and shading."""
TILE = 32
"""Pixels of a side of a tile."""
SHIFT = 2
"""Pixels by which a tile may be off in each direction."""
LEAST_DETAIL = 1.5
"""Standard deviation of the details from which on a tile counts, in either picture, 0..255: a step of luma shows, such
as two colors of nearly one luma make."""
LEAST_TILES = 3
"""Tiles that must count."""
WEAK_TILES = 0.2
"""Share of the tiles that may disagree: those that are written over."""
FEW_TILES = 0.1
"""The same where pictures look alike, and differ in a few places."""
POINTS_WEIGHT = 0.125
"""What twice the points add to the score."""


class Registration(NamedTuple):
    """How one picture lies over another."""

    agreement: float
    """Correlation of details that all tiles but the weakest fifth reach, -1..1; -1: no transform was found."""
    least_agreement: float
    """The same of all but the weakest tenth."""
    num_points: int
    """Points that agree on the transform."""


NONE = Registration(-1.0, -1.0, 0)
"""No transform was found."""


def registration_score(agreement: np.ndarray, num_points: np.ndarray) -> np.ndarray:
    """(N,) float32, at most 1: the agreement, and 0.125 more for each time that the points are twice as many as four.

    So 0.5 is an agreement of 0.5 with 4 points, and 0.25 with 16.
    """
    points = np.log2(np.maximum(num_points, LEAST_POINTS) / LEAST_POINTS).astype(np.float32)
    score: np.ndarray = np.minimum(agreement + np.float32(POINTS_WEIGHT) * points, 1).astype(np.float32)
    return score


def register(a: LocalFeatures, b: LocalFeatures) -> Registration:
    """Lay `b` over `a`, mirrored or not.

    The result depends on the two pictures and their order alone.
    """
    matches = _matches(a, b, mirrored=False), _matches(a, b, mirrored=True)
    best = _Transform(np.empty((2, 3)), mirrored=False, num_points=0)
    for mirrored in sorted((False, True), key=lambda side: -len(matches[side])):
        if len(matches[mirrored]) >= LEAST_POINTS:
            best = max(best, _transform(a, b, matches[mirrored], mirrored=mirrored), key=lambda one: one.num_points)
        if best.num_points >= ENOUGH_POINTS:
            break
    if best.num_points < LEAST_POINTS:
        return NONE._replace(num_points=best.num_points)
    return Registration(*_agreement(a.luma, b.luma, best), best.num_points)


class _Transform(NamedTuple):
    """From one picture to the other: scale, rotation and shift."""

    matrix: np.ndarray
    """(2, 3)"""
    mirrored: bool
    """Whether the picture is mirrored before."""
    num_points: int
    """Points that agree on it."""


def _matches(a: LocalFeatures, b: LocalFeatures, *, mirrored: bool) -> np.ndarray:
    """(M, 2) int64: points of both that choose each other, clearly before the next best."""
    if min(len(a.points), len(b.points)) < LEAST_POINTS:
        return np.empty((0, 2), np.int64)
    cosine = a.descriptors @ (b.mirrored if mirrored else b.descriptors).T  # (K, L)
    nearest = cosine.argmax(axis=1)
    rows = np.flatnonzero(cosine.argmax(axis=0)[nearest] == np.arange(len(nearest)))
    best, others = cosine[rows, nearest[rows]], cosine[rows]
    others[np.arange(len(rows)), nearest[rows]] = -1
    # The squared distance of unit vectors is 2 - 2 cosine.
    clear = 1 - best < RATIO**2 * (1 - others.max(axis=1, initial=-1))
    return np.stack([rows[clear], nearest[rows[clear]]], axis=1)


def _transform(a: LocalFeatures, b: LocalFeatures, matches: np.ndarray, *, mirrored: bool) -> _Transform:
    """The transform of points of `b` to those of `a` that most matches agree on."""
    to, of = a.points[matches[:, 0]], b.points[matches[:, 1]]
    if mirrored:
        of = np.stack([b.luma.shape[1] - 1 - of[:, 0], of[:, 1]], axis=1)
    matrix, inliers = cv2.estimateAffinePartial2D(
        of, to, method=cv2.RANSAC, ransacReprojThreshold=MAX_ERROR, maxIters=ITERATIONS, confidence=0.995
    )
    if matrix is None or not np.isfinite(matrix).all():
        return _Transform(np.empty((2, 3)), mirrored=mirrored, num_points=0)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if not 1 / MAX_SCALE < scale < MAX_SCALE:
        return _Transform(matrix, mirrored=mirrored, num_points=0)
    return _Transform(matrix, mirrored=mirrored, num_points=int(inliers.sum()))


def _agreement(a: np.ndarray, b: np.ndarray, transform: _Transform) -> tuple[float, float]:
    """Of two (H, W) uint8 pictures the agreement and the least agreement, see `Registration`."""
    if transform.mirrored:
        b = b[:, ::-1]
    matrix = transform.matrix
    if np.hypot(matrix[0, 0], matrix[1, 0]) > 1:  # the larger one is reduced, since details cannot be enlarged
        a, b, matrix = b, a, cv2.invertAffineTransform(matrix)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    b = np.ascontiguousarray(b)
    if scale < 0.9:
        b = _blur(b, 0.5 * float(np.sqrt(scale**-2 - 1)))  # so that what no pixel can hold does not alias
    size = a.shape[1], a.shape[0]
    laid = cv2.warpAffine(b, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.warpAffine(np.ones(b.shape, np.uint8), matrix, size, flags=cv2.INTER_NEAREST, borderValue=0)
    mask = cv2.erode(mask, np.ones((5, 5), np.uint8), borderValue=0)
    found = _tile_correlations(_details(np.ascontiguousarray(a)), _details(laid), mask.astype(np.float32))
    if len(found) < LEAST_TILES:
        return NONE.agreement, NONE.least_agreement
    agreement, least = np.quantile(found, [WEAK_TILES, FEW_TILES])
    return float(agreement), float(least)


def _blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    blurred: np.ndarray = cv2.GaussianBlur(picture, (0, 0), sigma)
    return blurred


def _details(picture: np.ndarray) -> np.ndarray:
    """(H, W) float32 around zero: a band of frequencies."""
    values = picture.astype(np.float32)
    return _blur(values, FINE) - _blur(values, COARSE)


def _tile_correlations(x: np.ndarray, y: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(T,) float32: of each tile that counts the best correlation over shifts; (H, W) float32 each."""
    rows, columns = x.shape[0] // TILE, x.shape[1] // TILE
    if not rows or not columns:
        return np.empty(0, np.float32)
    height, width = rows * TILE, columns * TILE
    top, left = (x.shape[0] - height) // 2, (x.shape[1] - width) // 2
    inside = slice(top, top + height), slice(left, left + width)
    mask, x, around = mask[inside], x[inside], np.pad(y, SHIFT)
    x = x * mask
    area, energy = _tile_sums(mask), _tile_sums(x * x)
    best, other = np.full((rows, columns), -1, np.float32), np.zeros((rows, columns), np.float32)
    for down in range(2 * SHIFT + 1):
        for right in range(2 * SHIFT + 1):
            shifted = around[top + down : top + down + height, left + right : left + right + width] * mask
            power = _tile_sums(shifted * shifted)
            np.maximum(best, _tile_sums(x * shifted) / np.sqrt(np.maximum(energy * power, 1e-6)), out=best)
            if down == right == SHIFT:
                other = power
    # A tile counts where either has details: what the one shows and the other does not is a difference.
    counts = (area > TILE**2 / 2) & (np.maximum(energy, other) > LEAST_DETAIL**2 * np.maximum(area, 1))
    return best[counts]


def _tile_sums(values: np.ndarray) -> np.ndarray:
    """(H / TILE, W / TILE) sums of (H, W) values."""
    rows = np.add.reduceat(values, np.arange(0, values.shape[0], TILE), axis=0)
    sums: np.ndarray = np.add.reduceat(rows, np.arange(0, values.shape[1], TILE), axis=1)
    return sums
