"""Cross-entropies between prototypes, of scores that are never all held.

Scores, targets and their gradients would be the largest tensors of a step at 65,536 prototypes. Here a head gives its
`Projection`, and the loss goes through the rows in chunks and computes the gradients with it.
"""

from collections.abc import Callable, Mapping
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from curate.models.nets.lean import autocast_dtype
from curate.trainer.heads import Projection

Targets = Callable[[slice], Tensor]
"""(n, K) float32 targets of some rows, which sum to 1: computed when asked for, or a tensor's `__getitem__`."""

CHUNK = {"cpu": 24 << 20, "cuda": 128 << 20}
"""Bytes of scores that are held at a time, by device. Each chunk goes over all prototypes and their gradient, which are
as large: a smaller chunk costs more memory traffic than its products."""
PIECE = {"cpu": 1 << 21, "cuda": 1 << 26}
"""Scores of a chunk that become probabilities at a time, in float32: 8 MiB stay in a CPU's cache."""


class Part(NamedTuple):
    """Rows of the student and what they are compared with; its loss is the weighted sum of their cross-entropies."""

    student: Projection  # units (M, D)
    targets: Targets  # called once for each piece
    weights: Tensor  # (M,) float32


def dino_part(student: Projection, targets: Tensor) -> Part:
    """What `dino_loss` compares: units (V * B, D), views first, with targets (T, B, K)."""
    num_teacher, batch, _ = targets.shape
    num_views = len(student.units) // batch
    total = targets.sum(dim=0)  # cross-entropy is linear in the targets: one row serves all its pairs
    others = torch.stack([(total - targets[view]) / max(num_teacher - 1, 1) for view in range(num_teacher)])
    table = torch.cat([others.flatten(0, 1), total / num_teacher])  # (T * B + B, K): of each global view, of local ones
    row = torch.arange(len(student.units), device=targets.device)
    row = torch.where(row < num_teacher * batch, row, num_teacher * batch + row % batch)
    num_pairs = num_teacher * (num_views - 1)
    pairs = torch.full(row.shape, float(num_teacher), device=targets.device)
    pairs[: num_teacher * batch] -= 1
    return Part(student, lambda rows: table[row[rows]], pairs / (num_pairs * batch))


def ibot_part(student: Projection, targets: Targets, weights: Tensor, *, num_crops: int) -> Part:
    """What `ibot_loss` compares."""
    return Part(student, targets, weights / num_crops)


def projected_loss(
    parts: Mapping[str, Part], factors: Mapping[str, float] | None = None, *, temperature: float = 0.1
) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of the parts' losses, each times its factor.

    Parts with the same prototypes are gone through together, so that these have one gradient.

    Args:
        factors: by the parts' names; None: 1.

    Returns:
        () float32, nats, and for each part its loss before the factor, without gradients.
    """
    groups: dict[int, list[str]] = {}
    for name, part in parts.items():
        groups.setdefault(id(part.student.prototypes), []).append(name)
    totals: list[Tensor] = []
    values: dict[str, Tensor] = {}
    for names in groups.values():
        chosen = [parts[name] for name in names]
        total, entropies = _CrossEntropy.apply(
            torch.cat([part.student.units for part in chosen]),
            chosen[0].student.prototypes,
            _joined(chosen),
            torch.cat([parts[name].weights * (1 if factors is None else factors[name]) for name in names]),
            temperature,
        )
        totals.append(total)
        rows = entropies.split([len(part.weights) for part in chosen])
        values |= {name: (own * parts[name].weights).sum() for name, own in zip(names, rows, strict=True)}
    return torch.stack(totals).sum(), {name: values[name] for name in parts}


def _joined(parts: list[Part]) -> Targets:
    """Of the parts' rows one after another."""
    ends = list(accumulate((len(part.weights) for part in parts), initial=0))

    def targets(rows: slice) -> Tensor:
        found = [
            part.targets(slice(max(rows.start, first) - first, min(rows.stop, last) - first))
            for part, (first, last) in zip(parts, pairwise(ends), strict=True)
            if rows.start < last and rows.stop > first
        ]
        return found[0] if len(found) == 1 else torch.cat(found)

    return targets


class _CrossEntropy(torch.autograd.Function):
    """Products run in autocast's precision where it is on, softmax and sums in float32."""

    @staticmethod
    def forward(  # noqa: PLR0917, autograd passes by position
        ctx: Any, units: Tensor, prototypes: Tensor, targets: Targets, weights: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        kind, dtype = units.device.type, autocast_dtype(units)
        ctx.dtypes = units.dtype, prototypes.dtype
        x, w = units.to(dtype), prototypes.to(dtype)
        grad_x, grad_w = torch.empty_like(x), torch.zeros_like(w, dtype=torch.float32)
        entropies = torch.empty(len(x), device=x.device)
        size = max(1, CHUNK[kind] // (len(w) * w.itemsize))
        for start in range(0, len(x), size):
            rows = slice(start, min(start + size, len(x)))
            scores = torch.mm(x[rows], w.t())
            _to_errors(scores, targets, weights, temperature, entropies, start=start)
            torch.mm(scores, w, out=grad_x[rows])
            _add_product(grad_w, scores, x[rows])
        ctx.grads = grad_x, grad_w  # not by save_for_backward, since backward writes into them
        ctx.mark_non_differentiable(entropies)
        return (entropies * weights).sum(), entropies  # a dot product would be autocast's

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.grads is None:
            raise RuntimeError("a second backward pass through a projected loss; its gradients went with the first")
        (grad_x, grad_w), ctx.grads = ctx.grads, None  # the second is among a step's largest tensors: in place
        of_units, of_prototypes = ctx.dtypes
        return grad_x.mul_(grad).to(of_units), grad_w.mul_(grad).to(of_prototypes), None, None, None


def _to_errors(
    scores: Tensor, targets: Targets, weights: Tensor, temperature: float, entropies: Tensor, *, start: int
) -> None:
    """Scores (n, K) of the rows from `start` on become the loss's gradients with respect to them, in place, and fill
    their cross-entropies: a piece at a time, in float32."""
    for piece in scores.split(max(1, PIECE[scores.device.type] // scores.shape[1])):
        rows = slice(start, start + len(piece))
        start = rows.stop
        target = targets(rows)
        with torch.autocast(scores.device.type, enabled=False):
            log_probs = piece.float().div_(temperature).log_softmax(dim=-1)
            entropies[rows] = -torch.einsum("mk,mk->m", target, log_probs)
            piece.copy_(log_probs.exp_().sub_(target).mul_(weights[rows, None] / temperature))


def _add_product(total: Tensor, errors: Tensor, x: Tensor) -> None:
    """Add errors (n, K) transposed times x (n, D) to `total` (K, D) float32, without a second tensor of its size."""
    if errors.dtype == total.dtype:
        total.addmm_(errors.t(), x)
        return
    size = max(1, PIECE[x.device.type] // x.shape[1])
    for some, part in zip(total.split(size), errors.split(size, dim=1), strict=True):
        some.add_(part.t() @ x)
