"""Layers that keep less for the backward pass, by computing again there what is cheap: norms and activations.

Most of the memory of a training step is what autograd keeps between the forward and the backward pass. Plain layers
keep the output of each norm (the linear after it needs it) and both sides of each activation, which together are more
than half, though computing them again costs little beside the matrix products around them. So a norm and the linear
that follows are one autograd function that keeps the norm's input, which the residual stream holds anyway; an
activation and its linear are one that keeps the activation's input. LayerScale goes into the weights of the branch's
last linear, and needs no copy of the branch's output. A step of ViT-S/14 at batch 8 peaked at 3.6 instead of 4.7 GB
with this.

The functions compute what the plain layers would, in the same precisions under autocast. The plain layers run where
no gradients are wanted, and while torch compiles or exports, since its graphs decide for themselves what to keep.
Checkpointing whole blocks saves more, but computes their products again: a third more time.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curate.memory import release_holes

Gradients = tuple[Tensor | None, ...]

LARGE = 4 << 20
"""Bytes of a tensor of tokens from which on freed memory is given back around the layers."""


def norm_linear(x: Tensor, norm: nn.LayerNorm, linear: nn.Linear) -> Tensor:
    """`linear(norm(x))` of x (M, D); keeps x for the backward pass, but not the output of the norm."""
    if runs_plain():
        return linear(norm(x))
    product: Tensor = _NormLinear.apply(x, norm.weight, norm.bias, linear.weight, used_bias(linear), norm.eps)
    return product


class KeylessLinear(nn.Linear):
    """The qkv layer with a bias whose middle third, that of the keys, is held at 0 and has no gradient."""

    def forward(self, input: Tensor) -> Tensor:
        """As a linear."""
        return F.linear(input, self.weight, used_bias(self))


def used_bias(linear: nn.Linear) -> Tensor | None:
    """The bias that a linear adds; None: it has none."""
    bias: Tensor | None = linear.bias
    if bias is None or not isinstance(linear, KeylessLinear):
        return bias
    queries, keys, values = bias.chunk(3)
    return torch.cat([queries, torch.zeros_like(keys), values])


def activated_linear(x: Tensor, activation: Callable[[Tensor], Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    """`F.linear(activation(x), weight, bias)` of x (M, D); keeps x for the backward pass, but not `activation(x)`."""
    if runs_plain():
        return F.linear(activation(x), weight, bias)
    product: Tensor = _ActivatedLinear.apply(x, weight, bias, activation)
    return product


def scaled_linear(linear: nn.Linear, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear that computes `gamma * linear(x)`.

    To scale the weights costs less than to scale the tokens, which autograd would keep for the gradient of gamma.
    """
    return linear.weight * gamma[:, None], linear.bias * gamma


def add_rows(x: Tensor, rows: Tensor, update: Tensor, scale: Tensor, *, in_place: bool = False) -> Tensor:
    """Add `update * scale` to some rows of x.

    `index_add` on the product would keep `update` for the gradient of `scale`, which is never wanted here.

    Args:
        x: (M, D).
        rows: (K,) int64, without duplicates.
        update: (K, D).
        scale: (K, 1).
        in_place: overwrite x with the sum while gradients are recorded; nothing else may read x afterwards.

    Returns:
        (M, D), in the dtype of x.
    """
    if runs_plain():
        return x.index_add(0, rows, (update * scale).to(x.dtype))
    added: Tensor = _AddRows.apply(x, rows, update, scale, in_place)
    return added


def leaves_holes(x: Tensor) -> bool:
    """Whether layers on tokens x (M, D) leave freed memory between the tensors that they keep.

    They do with large tensors and gradients on a CPU; other devices have allocators of their own.
    """
    return x.device.type == "cpu" and not runs_plain() and x.nbytes >= LARGE


def release_holes_around(x: Tensor) -> None:
    """Give freed memory back to the system, now and again when the backward pass arrives at x (M, D).

    What the layers up to x freed lies in holes between the tensors that they keep. Done every six blocks of a ViT-S at
    batch 8, this lowers the peak by 0.4 of 3.0 GB, for about a tenth more time in bfloat16, since the system clears
    the memory that it hands out again.
    """
    if x.requires_grad:
        release_holes()
        x.register_hook(lambda _: release_holes())


def autocast_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which matrix products with x run here: autocast's where it is on, else that of x."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def runs_plain() -> bool:
    """Whether the plain layers run: without gradients, or while torch compiles or exports."""
    return not torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()


class _NormLinear(torch.autograd.Function):
    """Layer norm, then a linear; gamma and beta are the norm's, weight and bias the linear's."""

    @staticmethod
    def forward(  # noqa: PLR0917  # autograd passes by position
        ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, weight: Tensor, bias: Tensor | None, eps: float
    ) -> Tensor:
        ctx.eps, ctx.dtype, ctx.bias_dtype = eps, autocast_dtype(x), None if bias is None else bias.dtype
        normed, mean, rstd = _norm(x, gamma, beta, eps)
        ctx.save_for_backward(x, gamma, beta, weight, mean, rstd)
        return F.linear(normed.to(ctx.dtype), weight.to(ctx.dtype), None if bias is None else bias.to(ctx.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        x, gamma, beta, weight, mean, rstd = ctx.saved_tensors
        normed = _norm(x, gamma, beta, ctx.eps)[0].to(ctx.dtype)
        of_weight = (grad.t() @ normed).to(weight.dtype)
        of_bias = None if ctx.bias_dtype is None else _sum(grad, ctx.bias_dtype)
        of_normed = (grad @ weight.to(ctx.dtype)).to(x.dtype)
        of_x, of_gamma, of_beta = torch.ops.aten.native_layer_norm_backward(
            of_normed, x, x.shape[-1:], mean, rstd, gamma.to(x.dtype), beta.to(x.dtype), [True, True, True]
        )
        return of_x, of_gamma.to(gamma.dtype), of_beta.to(beta.dtype), of_weight, of_bias, None


class _ActivatedLinear(torch.autograd.Function):
    """An elementwise activation, then a linear; the activation's gradient is autograd's, on its second computation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.activation, ctx.dtype, ctx.bias_dtype = activation, autocast_dtype(x), bias.dtype
        ctx.save_for_backward(x, weight)
        return F.linear(activation(x).to(ctx.dtype), weight.to(ctx.dtype), bias.to(ctx.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        x, weight = ctx.saved_tensors
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            active = ctx.activation(leaf)
        of_active = (grad @ weight.to(ctx.dtype)).to(active.dtype)
        (of_x,) = torch.autograd.grad(active, leaf, of_active)
        of_weight = (grad.t() @ active.detach().to(ctx.dtype)).to(weight.dtype)
        return of_x, of_weight, _sum(grad, ctx.bias_dtype), None


class _AddRows(torch.autograd.Function):
    """A scaled update of some rows; keeps neither x nor the update."""

    @staticmethod
    def forward(  # noqa: PLR0917  # autograd passes by position
        ctx: Any, x: Tensor, rows: Tensor, update: Tensor, scale: Tensor, in_place: bool
    ) -> Tensor:
        ctx.dtype = update.dtype
        ctx.save_for_backward(rows, scale)
        update = (update * scale).to(x.dtype)
        if not in_place:
            return x.index_add(0, rows, update)
        ctx.mark_dirty(x)
        return x.index_add_(0, rows, update)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        rows, scale = ctx.saved_tensors
        return grad, None, grad.index_select(0, rows).mul_(scale).to(ctx.dtype), None, None


def _norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Output, mean and reciprocal deviation, in the precision of x."""
    return torch.native_layer_norm(x, x.shape[-1:], gamma.to(x.dtype), beta.to(x.dtype), eps)


def _sum(grad: Tensor, dtype: torch.dtype) -> Tensor:
    """Gradient of a bias, summed over rows; to ask `sum` for another dtype would convert a copy of all rows first."""
    return grad.sum(dim=0).to(dtype)
