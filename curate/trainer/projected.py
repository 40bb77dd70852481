"""Cross-entropies between prototypes, of scores that are never all held.

The difficulty. At 65,536 prototypes the scores of a step (the student's, their probabilities and gradients, and the
targets) are its largest tensors by far, and writing and reading them takes about as long as the products that make
them. Yet scores are only the product of two small factors: unit vectors (M, 256) and prototypes (K, 256).

The solution. A head gives these factors, a `Projection`, and the loss goes through the rows in chunks. A product gives
the chunk's scores, which become probabilities and then errors, probabilities minus targets, in place. Two more products
turn the errors into the gradients of units and prototypes, and the chunk is forgotten. So the gradients are computed in
the forward pass, and the backward pass scales them by what comes from above; it can run only once. Targets are asked
for by rows and may be computed then: a centered softmax needs the teacher's scores of these rows alone, while
Sinkhorn-Knopp holds all of them. Terms of one head, as with tied heads, are gone through together, so that the
prototypes have one gradient.

Against all scores at once, the step of a ViT-S/14 at batch 8 in float32 fell from 16.3 to 13.7 CPU seconds on two
cores, and its page faults from 766,000 to 219,000. Smaller chunks lose again, since each goes over all prototypes and
their whole gradient; so a chunk is larger than the caches, and softmax and sums run on pieces of it that stay in them.
"""

from collections.abc import Callable, Mapping
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from curate.models.nets.lean import autocast_dtype
from curate.trainer.heads import Projection

Targets = Callable[[slice | Tensor], Tensor]
"""(n, K) float32 targets of some rows, which sum to 1: computed when asked for, or a tensor's `__getitem__`."""

CHUNK = {"cpu": 24 << 20, "cuda": 128 << 20}
"""Bytes of scores that are held at a time, by device. Each chunk goes over all prototypes and their gradient, which are
as large: a smaller chunk costs more memory traffic than its products."""
PIECE = {"cpu": 1 << 21, "cuda": 1 << 26}
"""Scores of a chunk that become probabilities at a time, in float32: 8 MiB stay in a CPU's cache."""


class CrossEntropyTerm(NamedTuple):
    """A term of the loss: the weighted sum of the cross-entropies of the student's rows with their targets."""

    student: Projection  # units (M, D)
    targets: Targets  # called once for each piece
    weights: Tensor  # (M,) float32


def dino_term(student: Projection, targets: Tensor, *, local_weight: float = 1.0) -> CrossEntropyTerm:
    """The DINO loss: mean cross-entropy over all pairs of a teacher's view and another view of the student.

    Args:
        student: units (V * B, D), views before images, the global ones first.
        targets: (T, B, K) the teacher's, of the T global views in the same order.
        local_weight: factor on the pairs with a local view; pairs of two global ones keep their share of the mean.
    """
    num_teacher, batch, _ = targets.shape
    num_views = len(student.units) // batch
    total = targets.sum(dim=0)  # cross-entropy is linear in the targets: one row serves all its pairs
    others = torch.stack([(total - targets[view]) / max(num_teacher - 1, 1) for view in range(num_teacher)])
    table = torch.cat([others.flatten(0, 1), total / num_teacher])  # (T * B + B, K): of each global view, of local ones
    row = torch.arange(len(student.units), device=targets.device)
    row = torch.where(row < num_teacher * batch, row, num_teacher * batch + row % batch)
    num_pairs = num_teacher * (num_views - 1)
    pairs = torch.full(row.shape, float(num_teacher * local_weight), device=targets.device)
    pairs[: num_teacher * batch] = num_teacher - 1
    return CrossEntropyTerm(student, lambda rows: table[row[rows]], pairs / (num_pairs * batch))


def ibot_term(student: Projection, targets: Targets, weights: Tensor, *, num_crops: int) -> CrossEntropyTerm:
    """The iBOT loss on masked patches: mean within each crop, summed over crops, divided by `num_crops`.

    Args:
        student: units (M, D) of the M masked patches of all global crops.
        targets: the teacher's, of the same patches unmasked.
        weights: (M,) 1 / number of masked patches in the patch's crop.
        num_crops: global crops of the batch, masked or not: 2B.
    """
    return CrossEntropyTerm(student, targets, weights / num_crops)


def projected_loss(
    terms: Mapping[str, CrossEntropyTerm], factors: Mapping[str, float] | None = None, *, temperature: float = 0.1
) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of the terms, each times its factor.

    Terms with the same prototypes are gone through together, so that these have one gradient.

    Args:
        factors: by the terms' names; None: 1.
        temperature: of the student's softmax.

    Returns:
        () float32, nats, and for each term its value before the factor, without gradients.
    """
    groups: dict[int, list[str]] = {}
    for name, term in terms.items():
        groups.setdefault(id(term.student.prototypes), []).append(name)
    totals: list[Tensor] = []
    values: dict[str, Tensor] = {}
    for names in groups.values():
        chosen = [terms[name] for name in names]
        total, entropies = _CrossEntropy.apply(
            torch.cat([term.student.units for term in chosen]),
            chosen[0].student.prototypes,
            _joined_targets(chosen),
            torch.cat([terms[name].weights * (1 if factors is None else factors[name]) for name in names]),
            temperature,
        )
        totals.append(total)
        rows = entropies.split([len(term.weights) for term in chosen])
        values |= {name: (own * terms[name].weights).sum() for name, own in zip(names, rows, strict=True)}
    return torch.stack(totals).sum(), {name: values[name] for name in terms}


def _joined_targets(terms: list[CrossEntropyTerm]) -> Callable[[slice], Tensor]:
    """The targets of the terms' rows one after another."""
    ends = list(accumulate((len(term.weights) for term in terms), initial=0))

    def targets(rows: slice) -> Tensor:
        found = [
            term.targets(slice(max(rows.start, first) - first, min(rows.stop, last) - first))
            for term, (first, last) in zip(terms, pairwise(ends), strict=True)
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
    """Turn the scores (n, K) of the rows from `start` on, in place, into the gradients of the loss with respect to
    them, and write their cross-entropies: a piece at a time, in float32."""
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
