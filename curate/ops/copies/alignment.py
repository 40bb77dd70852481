"""Whether one picture can be laid over another: the best correlation over mirroring, rotation, scale and shift.

A network says that two photographs of one subject are alike; whether one is a copy of the other shows in their pixels.
A copy that was cropped, framed, turned or mirrored lies exactly over the original once that is undone, and two pictures
that differ do not, however they are turned. So both are taken as small pictures (24 x 24 values, high-passed), and all
ways to lay one over the other are tried: mirrored or not, at five rotations and seven scales (70 poses), each pose at
all shifts.

Trying every shift by itself would be more than two hundred thousand sums of products for one pair. The correlation
theorem gives all shifts of a pose at once: transform both pictures, multiply the one by the conjugate of the other,
transform back. The pictures are padded, so that they never meet around the edge. Where they overlap in part only the
overlap may count: the sum of products is divided by the energies of both pictures within it, and these are
correlations too, of one picture's squares with the other's mask. Shifts with little overlap are left out, since few
values correlate by chance. The posed picture and its transforms are made once for all pairs of that picture.

Source: normalized correlation of masked pictures by Fourier transforms after Padfield 2012 (IEEE TIP 21:5), without
its means: the pictures are high-passed.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

ROTATIONS = (-10.0, -5.0, 0.0, 5.0, 10.0)
"""Degrees; between two of them the correlation of small pictures hardly falls."""
MAX_LOG_SCALE = 0.35
"""Natural logarithm of the largest scale between two copies, 1.42: a crop to half of the area."""
NUM_SCALES = 7
"""Scales tried, evenly spread in their logarithm."""
CANVAS = 1.5
"""Side of the canvas on which a posed picture lies, in sides of the picture."""
MIN_OVERLAP = 0.42
"""Least overlap, as a share of the picture; the less, the easier it is to correlate by chance."""
LEAST_ENERGY = 1e-6
"""Energy below which an overlap counts as flat, so that it correlates with nothing."""


class _Poses(NamedTuple):
    """What depends on the poses alone: T poses, canvases of C x C, transforms of P x P, V shifts that count."""

    grid: Tensor
    """(T, C, C, 2), where in the picture each value of the canvas comes from, as `grid_sample` takes it"""
    mask: Tensor
    """(T, C, C), 1 inside the posed picture and 0 outside"""
    mask_f: Tensor
    """(T, P, P/2+1), conjugate transform of the mask"""
    frame_f: Tensor
    """(P, P/2+1), transform of a picture of ones"""
    valid: Tensor
    """(V,), positions in the flattened (T, P, P) of poses and shifts whose overlap is large enough"""


def align(queries: np.ndarray, images: np.ndarray, *, device: str = "cpu") -> np.ndarray:
    """Best correlation of each pair of pictures.

    Each picture is turned, mirrored and scaled on behalf of the pair that holds it in `images`; equal consecutive
    rows of `images` share that work. The result of a pair does not depend on the others.

    Args:
        queries: (N, S*S) float, pictures of S x S values around zero, such as the backbone `luma24` gives.
        images: (N, S*S) float, the partner of each.
        device: a torch device.

    Returns:
        (N,) float32 in -1..1; 1: equal.

    Raises:
        ValueError: shapes that differ or are not square.
    """
    import torch

    side = round(queries.shape[1] ** 0.5)
    if queries.shape != images.shape or side * side != queries.shape[1]:
        raise ValueError(f"queries {queries.shape}, images {images.shape}: both must be (N, S*S)")
    poses, where = _make_poses(side, device), torch.device(device)
    found = np.empty(len(queries), np.float32)
    with torch.inference_mode():
        for start, end in _runs_of_equal_rows(images):
            posed = _pose(torch.from_numpy(images[start].astype(np.float32)).to(where).view(side, side), poses)
            for row in range(start, end):
                picture = torch.from_numpy(queries[row].astype(np.float32)).to(where).view(side, side)
                found[row] = _best_correlation(picture, posed, poses)
    return np.clip(found, -1, 1)


def alignment_score(cosine: np.ndarray, correlation: np.ndarray, *, weight: float) -> np.ndarray:
    """(N,) float32: the weighted mean of what a network says of each pair and of how well one lies over the other.

    Args:
        cosine: (N,) float32, of the embeddings.
        correlation: (N,) float32, see `align`.
        weight: of the correlation, where the cosine weighs 1.
    """
    mean: np.ndarray = (cosine + np.float32(weight) * correlation) / np.float32(1 + weight)
    return mean


class _Posed(NamedTuple):
    """One picture in every pose."""

    spectrum: Tensor
    """(T, P, P/2+1), conjugate transform of the picture in each pose"""
    energy: Tensor
    """(V,), sum of its squares within the overlap"""


def _pose(picture: Tensor, poses: _Poses) -> _Posed:
    """(S, S) values in every pose, ready to be correlated."""
    import torch.nn.functional as F

    many = picture[None, None].expand(len(poses.grid), 1, *picture.shape)
    # The mask cuts off the rim, where sampling mixes the picture with the zeros around it.
    posed = F.grid_sample(many, poses.grid, padding_mode="zeros", align_corners=False)[:, 0] * poses.mask
    # A frame of ones laid over the squares sums those that it covers: the energy of the overlap at every shift.
    energy = _inverse(poses.frame_f * _transform(posed**2, picture.shape[0]).conj(), poses)
    return _Posed(_transform(posed, picture.shape[0]).conj(), energy)


def _best_correlation(picture: Tensor, posed: _Posed, poses: _Poses) -> float:
    """The largest normalized correlation of (S, S) values with the posed picture, over poses and shifts."""
    side = picture.shape[0]
    # (V,) each: the numerator, and the other half of the denominator, for which the mask is laid over the squares.
    product = _inverse(_transform(picture, side) * posed.spectrum, poses)
    energy = _inverse(_transform(picture**2, side) * poses.mask_f, poses)
    return float((product / (energy * posed.energy).clamp(min=LEAST_ENERGY**2).sqrt()).max())


def _transform(x: Tensor, side: int) -> Tensor:
    """(..., P, P/2+1) Fourier transform of real (..., H, W) values, padded with zeros."""
    import torch

    return torch.fft.rfft2(x, s=(_period(side), _period(side)))


def _inverse(spectrum: Tensor, poses: _Poses) -> Tensor:
    """(V,) values of a correlation, given its transform, at the poses and shifts that count."""
    import torch

    period = spectrum.shape[-2]
    return torch.fft.irfft2(spectrum, s=(period, period)).flatten()[poses.valid]


def _period(side: int) -> int:
    """Length of the transforms: picture and canvas never meet around the edge; a power of two is fastest."""
    return 1 << (side + int(side * CANVAS) - 1).bit_length()


@lru_cache(maxsize=4)
def _make_poses(side: int, device: str) -> _Poses:
    """All poses of pictures of `side` values, as maps from the canvas back to the picture."""
    import torch
    import torch.nn.functional as F

    canvas = int(side * CANVAS)  # larger than the picture, so that a turned or enlarged one has room
    scales = np.exp(np.linspace(-MAX_LOG_SCALE, MAX_LOG_SCALE, NUM_SCALES))
    maps = [  # (T, 2, 3), from the canvas to the picture, so by the inverse scale and without a shift
        [
            [mirror * np.cos(angle) / scale, -mirror * np.sin(angle) / scale, 0],
            [np.sin(angle) / scale, np.cos(angle) / scale, 0],
        ]
        for mirror in (1, -1)
        for angle in np.deg2rad(ROTATIONS)
        for scale in scales
    ]
    # affine_grid measures canvas and picture in half sides of each, which are not equally long.
    theta = torch.tensor(maps, dtype=torch.float32) * (canvas / side)
    grid = F.affine_grid(theta, [len(maps), 1, canvas, canvas], align_corners=False)
    ones = torch.ones(len(maps), 1, side, side)
    mask = (F.grid_sample(ones, grid, padding_mode="zeros", align_corners=False)[:, 0] > 0.9).float()
    frame_f = _transform(torch.ones(side, side), side)
    mask_f = _transform(mask, side).conj()
    # (T, P, P) values that overlap at each shift, from the correlation of frame and mask.
    overlap = torch.fft.irfft2(frame_f * mask_f, s=(_period(side), _period(side)))
    valid = torch.nonzero(overlap.flatten() >= MIN_OVERLAP * side * side)[:, 0]
    return _Poses(*(part.to(device) for part in (grid, mask, mask_f, frame_f, valid)))


def _runs_of_equal_rows(images: np.ndarray) -> list[tuple[int, int]]:
    """(start, end) of each run of consecutive equal rows."""
    if len(images) == 0:
        return []
    changes = np.flatnonzero((images[1:] != images[:-1]).any(axis=1)) + 1
    bounds = [0, *changes.tolist(), len(images)]
    return list(itertools.pairwise(bounds))
