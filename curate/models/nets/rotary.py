"""Rotary positions of DINOv3: queries and keys of a patch are rotated by angles that its place gives.

Attention then depends on where two patches lie to one another, at any size and aspect ratio, without a parameter. The
center of a patch lies in [-1, 1] on both axes. With D dims in a head, its i-th pair of rotated dims turns by
2 pi y / 100^(2i / (D/2)) for i < D/4, the next D/4 pairs likewise by x; the two dims of a pair lie D/2 apart. Tokens
without a place (cls and registers) stay as they are.

A rotation is cheap to compute and dear to write: done plainly, with concatenations, it takes more memory and time than
attention's own overhead. Since nothing else reads the product of the qkv layer, `rotate` works in it, in place, and
autograd keeps nothing but the angles: the gradient of a rotation is the rotation back.

Source: Simeoni et al. 2025, arXiv:2508.10104, section 3.2; rotary embeddings: Su et al. 2021, arXiv:2104.09864, axial:
Heo et al. 2024, arXiv:2403.13298.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from curate.models.nets import lean
from curate.models.nets.config import ViTConfig
from curate.models.nets.depth import Group

BASE = 100.0
"""Longest period over the shortest one, but for one step."""

Grid = tuple[int, int]
"""Rows and columns of patches."""


class Rotation(NamedTuple):
    """Cosines and sines of the angles of a grid's patches."""

    cos: Tensor  # (N, D/2)
    sin: Tensor  # (N, D/2)


Rotations = Sequence[Rotation]
"""Of the groups of a pass, in their order."""


class PatchRotation(NamedTuple):
    """What is rotated, and how: the layout of the matrix (M, 3 * heads * D) that holds queries, keys and values."""

    groups: Sequence[Group]
    by: Rotations
    heads: int


def draw_rotations(
    config: ViTConfig,
    grids: Sequence[Grid],
    *,
    training: bool,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
) -> list[list[Rotation]]:
    """The rotations of every block, for every grid.

    In training, places are shifted and stretched as the config says, drawn anew for each block and grid and shared by
    the images; else all blocks share the same ones.

    Args:
        dtype: of the cosines and sines; rotations are computed in it, or in that of what they rotate if that is higher.
        generator: source of the randomness; None: torch's global one.
    """
    head_dim = config.dim // config.heads
    augmented = training and any((config.rope_shift, config.rope_jitter, config.rope_rescale))
    if not augmented:
        fixed = [_rotation(patch_centers(grid, device=device), head_dim, dtype) for grid in grids]
        return [fixed] * config.depth
    found = []
    for grid in grids:
        centers = _moved(patch_centers(grid, device=device), config, generator)  # (L, N, 2)
        cos, sin = _rotation(centers, head_dim, dtype)
        found.append([Rotation(*pair) for pair in zip(cos.unbind(), sin.unbind(), strict=True)])
    return [list(block) for block in zip(*found, strict=True)]


def patch_centers(grid: Grid, *, device: torch.device | None = None) -> Tensor:
    """(N, 2) y and x of the centers of patches, row by row from the top left; a picture spans [-1, 1] on each axis."""
    y, x = ((torch.arange(count, device=device) + 0.5) * 2 / count - 1 for count in grid)
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).flatten(0, 1)


def _moved(centers: Tensor, config: ViTConfig, generator: torch.Generator | None) -> Tensor:
    """(N, 2) centers -> (L, N, 2), shifted and stretched for each of L blocks by draws of its own."""
    source = centers.device if generator is None else generator.device
    draws = torch.rand(config.depth, 1, 5, generator=generator, device=source).to(centers.device, non_blocking=True)
    shift, jitter, rescale = (2 * draws - 1).split((2, 2, 1), dim=-1)  # each in [-1, 1)
    factors = math.log(config.rope_jitter or 1) * jitter + math.log(config.rope_rescale or 1) * rescale
    return (centers + (config.rope_shift or 0.0) * shift) * factors.exp()


def periods(head_dim: int, *, device: torch.device | None = None) -> Tensor:
    """(D/4,) float32, the periods of the rotations of a head of D dims."""
    steps = torch.arange(head_dim // 4, device=device, dtype=torch.float32)
    return BASE ** (2 * steps / (head_dim // 2))


def _rotation(centers: Tensor, head_dim: int, dtype: torch.dtype) -> Rotation:
    """Rotations (..., N, D/2) of centers (..., N, 2).

    The angles themselves are float32 in both precisions: rounded to bfloat16 they would be wrong by up to 1.5 degrees.
    """
    angles = 2 * math.pi * centers.unsqueeze(-1) / periods(head_dim, device=centers.device)
    angles = angles.flatten(-2)
    return Rotation(angles.cos().to(dtype), angles.sin().to(dtype))


def rotate(qkv: Tensor, how: PatchRotation) -> Tensor:
    """Rotate the queries and keys of patches, the last tokens of an image, in the product of a qkv layer.

    Args:
        qkv: (M, 3 * heads * D), overwritten unless torch compiles or exports: nothing else may read it.

    Returns:
        (M, 3 * heads * D), in the dtype of `qkv`.
    """
    if not (torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()):
        return _rotate_in_place(qkv, how)
    if lean.runs_plain():
        return _rotated_copy(qkv, how)
    rotated: Tensor = _Rotate.apply(qkv, how)
    return rotated


def rotate_tokens(x: Tensor, by: Rotation) -> Tensor:
    """(B, T, H, D) -> the same with its last tokens, as many as `by` has places for, rotated."""
    places = len(by.cos)
    return torch.cat([x[:, :-places], _turned(x[:, -places:], by)], dim=1)


def _turned(x: Tensor, by: Rotation) -> Tensor:
    """(B, N, ..., D) patches rotated: [a, b] -> [a cos - b sin, b cos + a sin] of the halves of D."""
    cos, sin = (_over_heads(value, x.ndim).to(_precision(x, by)) for value in by)
    a, b = x.to(cos.dtype).chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


def _precision(x: Tensor, by: Rotation) -> torch.dtype:
    """The rotation's own, but no lower than that of x."""
    return torch.promote_types(x.dtype, by.cos.dtype)


def _over_heads(value: Tensor, ndim: int) -> Tensor:
    return value.view(len(value), *[1] * (ndim - 3), -1)  # (N, D/2) beside (B, N, ..., D/2)


def _rotated_copy(qkv: Tensor, how: PatchRotation) -> Tensor:
    parts = []
    for part, group, by in zip(qkv.split([g.rows for g in how.groups]), how.groups, how.by, strict=True):
        x = part.view(group.images, group.tokens, 3, how.heads, -1)
        both = rotate_tokens(x[:, :, :2].flatten(2, 3), by).unflatten(2, (2, how.heads))
        parts.append(torch.cat([both, x[:, :, 2:]], dim=2).view(group.rows, -1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _rotate_in_place(qkv: Tensor, how: PatchRotation, *, back: bool = False) -> Tensor:
    start = 0
    for group, by in zip(how.groups, how.by, strict=True):
        x = qkv[start : start + group.rows].view(group.images, group.tokens, 3, how.heads, -1)
        start += group.rows
        patches = x[:, -len(by.cos) :, :2]  # (B, N, 2, H, D)
        a, b = patches.chunk(2, dim=-1)
        cos, sin = (_over_heads(value, patches.ndim).to(_precision(x, by)) for value in by)
        if back:
            sin = -sin
        if a.dtype == cos.dtype:
            crossed = a * sin
            a.mul_(cos).addcmul_(b, sin, value=-1)
            b.mul_(cos).add_(crossed)
        else:  # each result is rounded once
            turned = a * cos - b * sin, b * cos + a * sin
            a.copy_(turned[0])
            b.copy_(turned[1])
    return qkv


class _Rotate(torch.autograd.Function):
    """A rotation in place; its gradient is the rotation back."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, how: PatchRotation) -> Tensor:
        ctx.how = how
        ctx.mark_dirty(qkv)
        return _rotate_in_place(qkv, how)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return _rotate_in_place(grad.clone(), ctx.how, back=True), None
