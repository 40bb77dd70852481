"""Layers that keep less for the backward pass, computing again there what is cheap: norms and activations.

A step's memory is mostly what its layers keep. A norm's output and an activation's are the largest of it and cost
little beside the products around them. Without gradients, and while torch compiles or exports, the plain layers run.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curate.models.nets.heap import release_holes

Gradients = tuple[Tensor | None, ...]

LARGE = 4 << 20
"""Bytes from which on a tensor of tokens is large."""


def norm_linear(x: Tensor, norm: nn.LayerNorm, linear: nn.Linear) -> Tensor:
    """`linear(norm(x))` of x (M, D), which keeps x but not its norm."""
    if _plain():
        return linear(norm(x))
    product: Tensor = _NormLinear.apply(x, norm.weight, norm.bias, linear.weight, linear.bias, norm.eps)
    return product


def activated_linear(x: Tensor, activation: Callable[[Tensor], Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    """`F.linear(activation(x), weight, bias)` of x (M, D), which keeps x but not its activation."""
    if _plain():
        return F.linear(activation(x), weight, bias)
    product: Tensor = _ActivatedLinear.apply(x, weight, bias, activation)
    return product


def scaled_linear(linear: nn.Linear, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of `gamma * linear(x)`: a factor on 0.6 M weights instead of on the tokens, which are kept."""
    return linear.weight * gamma[:, None], linear.bias * gamma


def add_rows(x: Tensor, rows: Tensor, update: Tensor, scale: Tensor, *, in_place: bool = False) -> Tensor:
    """x (M, D) with `update` (K, D) times `scale` (K, 1) added to its `rows`; `index_add` would keep the update.

    Args:
        in_place: x becomes the sum, where gradients are kept; nothing else may need x.
    """
    if _plain():
        return x.index_add(0, rows, (update * scale).to(x.dtype))
    added: Tensor = _AddRows.apply(x, rows, update, scale, in_place)
    return added


def leaves_holes(x: Tensor) -> bool:
    """Whether layers on tokens x (M, D) free memory between what they keep: large tensors, with gradients, on a CPU;
    other devices have allocators of their own."""
    return x.device.type == "cpu" and not _plain() and x.nbytes >= LARGE


def release_holes_around(x: Tensor) -> None:
    """Give back to the system what the layers up to x (M, D) freed between the tensors that they keep, and what those
    after it freed, once the backward pass is back at x.

    Of a ViT-S at batch 8, every six blocks, this is 0.4 of 3.0 GB for about a tenth more time in bfloat16, since the
    system clears memory that it gives again.
    """
    if x.requires_grad:
        release_holes()
        x.register_hook(lambda _: release_holes())


def product_dtype(x: Tensor) -> torch.dtype:
    """Of products with x here: autocast's where it is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _plain() -> bool:
    return not torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()


class _NormLinear(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  # autograd passes by position
        ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        ctx.eps, ctx.dtype, ctx.bias_dtype = eps, product_dtype(x), bias.dtype
        normed, mean, rstd = _norm(x, gamma, beta, eps)
        ctx.save_for_backward(x, gamma, beta, weight, mean, rstd)
        return F.linear(normed.to(ctx.dtype), weight.to(ctx.dtype), bias.to(ctx.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        x, gamma, beta, weight, mean, rstd = ctx.saved_tensors
        normed = _norm(x, gamma, beta, ctx.eps)[0].to(ctx.dtype)
        of_weight, of_bias = (grad.t() @ normed).to(weight.dtype), _sum(grad, ctx.bias_dtype)
        of_normed = (grad @ weight.to(ctx.dtype)).to(x.dtype)
        of_x, of_gamma, of_beta = torch.ops.aten.native_layer_norm_backward(
            of_normed, x, x.shape[-1:], mean, rstd, gamma.to(x.dtype), beta.to(x.dtype), [True, True, True]
        )
        return of_x, of_gamma.to(gamma.dtype), of_beta.to(beta.dtype), of_weight, of_bias, None


class _ActivatedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.activation, ctx.dtype, ctx.bias_dtype = activation, product_dtype(x), bias.dtype
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
    """Of a bias: over rows; torch adds up in float32, and to ask for a float32 result would convert all rows first."""
    return grad.sum(dim=0).to(dtype)
