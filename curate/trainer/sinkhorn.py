"""Sinkhorn-Knopp: targets in which all prototypes are used equally.

The scores of M rows become exp(score / temperature), then columns and rows are scaled in turn until columns have equal
sums and rows sum to 1. Sums of columns run over the rows of all ranks, however many each has; the total, by which
DINOv2 and DINOv3 divide too, cancels in the rows.

The difficulty is memory: the matrix of the patches of a large batch has as many rows as patches and as many columns
as prototypes, in float32. A distillation at 256 images a GPU, with all 256 patches of both global crops and 131,072
prototypes, needed 69 GB for it. But the scores are only the product of two small factors, units and prototypes, and
what the scaling finds is only a number a column: a row after any iteration is the softmax of its scores plus those
numbers. So where the matrix is large, it is never held. Each iteration goes through the rows in chunks, computes their
scores again and adds up the columns, and the loss computes the targets of the rows that it comes to. That takes four
products for one, so that smaller matrices are held as before.

Source: SwAV, arXiv:2006.09882; DINOv2, arXiv:2304.07193.
"""

import math

import torch
from torch import Tensor

from curate.trainer.heads import Projection
from curate.trainer.parallel import World
from curate.trainer.projected import CHUNK, Targets

ITERATIONS = 3
HELD = {"cpu": 512 << 20, "cuda": 2 << 30}
"""Bytes of the largest float32 matrix of targets that is held, by device."""


def projected_sinkhorn(
    teacher: Projection, *, temperature: float, world: World, num_iterations: int = ITERATIONS
) -> Targets:
    """Targets of the rows of `teacher`, which may differ in number between ranks; held, or computed when asked for.

    Ranks may decide differently: both ways combine the same things in the same order.

    Args:
        temperature: sharpness, > 0.
    """
    matrix = 4 * len(teacher.units) * len(teacher.prototypes)
    if matrix <= HELD[teacher.units.device.type]:
        return sinkhorn_targets(
            teacher.scores(), temperature=temperature, world=world, num_iterations=num_iterations
        ).__getitem__
    offsets = sinkhorn_offsets(teacher, temperature=temperature, world=world, num_iterations=num_iterations)
    return lambda rows: _balanced(teacher, rows, offsets, temperature)


@torch.no_grad()
def sinkhorn_targets(scores: Tensor, *, temperature: float, world: World, num_iterations: int = ITERATIONS) -> Tensor:
    """Targets by alternating normalization of the columns and rows of a matrix that is held.

    Args:
        scores: (M, K) the teacher's, of this rank's rows, M >= 0; sums run over the rows of all ranks.
        temperature: sharpness, > 0.

    Returns:
        (M, K) float32, rows sum to 1.
    """
    q = scores.to(torch.float32, copy=True).div_(temperature)  # the only tensor of this size
    highest = q.amax(dim=0) if len(q) else q.new_full(q.shape[1:], -torch.inf)  # another rank may have rows
    q.sub_(world.max(highest)).exp_()  # a column's factor cancels; without it exp overflows, or a whole column is 0
    num_prototypes = q.shape[1]
    for _ in range(num_iterations):
        used = world.sum(q.sum(dim=0, keepdim=True))  # (1, K)
        q.div_(used.mul_(num_prototypes).clamp_min_(torch.finfo(q.dtype).tiny))
        q.div_(q.sum(dim=1, keepdim=True).clamp_min_(torch.finfo(q.dtype).tiny))
    return q


@torch.no_grad()
def sinkhorn_offsets(
    teacher: Projection, *, temperature: float, world: World, num_iterations: int = ITERATIONS
) -> Tensor:
    """(K,) float32: a row's targets are the softmax of its scores / temperature plus these.

    The matrix of all scores is never held. Arguments as of `projected_sinkhorn`.
    """
    chunks = _chunks(teacher)
    offsets = -_log_columns(teacher, chunks, temperature, world)
    for _ in range(num_iterations - 1):
        used = torch.zeros_like(offsets)
        for rows in chunks:
            used += _balanced(teacher, rows, offsets, temperature).sum(dim=0)
        offsets -= world.sum(used).clamp_min(torch.finfo(used.dtype).tiny).log() + math.log(len(used))
    return offsets


def _log_columns(teacher: Projection, chunks: list[slice], temperature: float, world: World) -> Tensor:
    """(K,) logarithms of the sums of exp(score / temperature) over the rows of all ranks.

    Sums are relative to a column's largest entry, without which exp overflows or a whole column is 0; it is found on
    the way.
    """
    prototypes = teacher.prototypes
    used = torch.zeros(len(prototypes), device=prototypes.device)
    highest = torch.full_like(used, torch.finfo(used.dtype).min)
    for rows in chunks:
        x = teacher.scores(rows).float().div_(temperature)
        before, highest = highest, torch.maximum(highest, x.amax(dim=0))
        used.mul_((before - highest).exp()).add_(x.sub_(highest).exp_().sum(dim=0))
    of_all = world.max(highest)
    return world.sum(used.mul_((highest - of_all).exp())).log().add_(of_all)


@torch.no_grad()
def _balanced(teacher: Projection, rows: slice | Tensor, offsets: Tensor, temperature: float) -> Tensor:
    """(n, K) float32 targets of some rows."""
    return teacher.scores(rows).float().div_(temperature).add_(offsets).softmax(dim=-1)


def _chunks(teacher: Projection) -> list[slice]:
    size = max(1, CHUNK[teacher.units.device.type] // (4 * len(teacher.prototypes)))
    return [slice(start, start + size) for start in range(0, len(teacher.units), size)]
