"""Multinomial logistic regression on frozen features; its penalty is chosen on held-out training rows.

Source: the low-shot evaluation of DINO and DINOv2, which fits unit features by L-BFGS for L2 strengths on a log grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from curate.evaluation.accuracy import Accuracy
from curate.evaluation.splits import stratified_split

STRENGTHS = tuple(10.0 ** (exponent / 2) for exponent in range(-12, 11))
"""Inverse L2 strengths C from 1e-6 to 1e5, two for each power of ten."""
VALIDATION_SHARE = 0.2
"""Share of the training rows on which C is chosen; the model with that C is then fitted on all of them."""
MAX_ITERATIONS = 500
"""Iterations of L-BFGS at most."""
TOLERANCE = 1e-5
"""A fit ends where no component of the gradient is larger."""
BLOCK_CELLS = 2**26
"""Class scores that are held at a time, at most."""


@dataclass(frozen=True)
class LogisticModel:
    """A fitted linear classifier."""

    weight: Tensor
    """(C, D), float64 on a CPU, float32 on a GPU"""
    bias: Tensor
    """(C,), likewise"""

    def scores(self, x: np.ndarray) -> np.ndarray:
        """(N, C) logits of (N, D) features."""
        rows = torch.from_numpy(x).to(self.weight)
        return (rows @ self.weight.T + self.bias).cpu().numpy()

    def accuracy(self, x: np.ndarray, y: np.ndarray) -> Accuracy:
        """The accuracy on (N, D) features with (N,) labels 0..C-1."""
        block = max(1, BLOCK_CELLS // len(self.bias))
        guesses = [self.scores(x[start : start + block]).argmax(axis=1) for start in range(0, len(x), block)]
        return Accuracy.of(np.concatenate(guesses) == y)


def logistic_accuracy(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    seed: int,
    strengths: Sequence[float] = STRENGTHS,
    device: str | torch.device = "cpu",
) -> tuple[Accuracy, float]:
    """The accuracy on the test rows, and the C that was chosen without looking at them.

    Args:
        train_x, test_x: (N, D) and (M, D) features.
        train_y, test_y: (N,) and (M,) labels 0..C-1.
        seed: seed of the choice of rows on which C is chosen.
        strengths: values of C to try; of equally good ones the smallest, which is the strongest penalty, is taken.
    """
    num_classes = int(max(train_y.max(), test_y.max())) + 1
    chosen = choose_strength(train_x, train_y, num_classes, seed=seed, strengths=strengths, device=device)
    model = fit_logistic(train_x, train_y, num_classes, strength=chosen, device=device)
    return model.accuracy(test_x, test_y), chosen


def choose_strength(
    x: np.ndarray,
    y: np.ndarray,
    num_classes: int,
    *,
    seed: int,
    strengths: Sequence[float],
    device: str | torch.device = "cpu",
) -> float:
    """The C whose model classifies a held-out fifth of the rows best; of equally good ones the smallest."""
    if len(strengths) == 1:
        return strengths[0]
    fitted = stratified_split(y, train_share=1 - VALIDATION_SHARE, seed=seed)
    model: LogisticModel | None = None
    found: dict[float, float] = {}
    for strength in sorted(strengths):  # each fit starts from the one before, which is near
        model = fit_logistic(x[fitted], y[fitted], num_classes, strength=strength, start=model, device=device)
        found[strength] = model.accuracy(x[~fitted], y[~fitted]).value
    return max(found, key=lambda strength: found[strength])


def fit_logistic(
    x: np.ndarray,
    y: np.ndarray,
    num_classes: int,
    *,
    strength: float,
    start: LogisticModel | None = None,
    device: str | torch.device = "cpu",
) -> LogisticModel:
    """Minimize C * (sum of cross-entropies) + |weight|^2 / 2; the bias has no penalty.

    Args:
        x: (N, D) features.
        y: (N,) labels 0..num_classes-1.
        num_classes: number of classes.
        strength: C, above 0.
        start: the model to start from; None: zeros.
        device: float64 is used on a CPU, and float32 on GPUs, some of which are slow with float64.
    """
    where = torch.device(device)
    dtype = torch.float64 if where.type == "cpu" else torch.float32
    rows, labels = torch.from_numpy(x).to(where, dtype), torch.from_numpy(y).to(where)
    weight = torch.zeros(num_classes, x.shape[1], dtype=dtype, device=where)
    bias = torch.zeros(num_classes, dtype=dtype, device=where)
    if start is not None:
        weight.copy_(start.weight)
        bias.copy_(start.bias)
    # Under a strong penalty the curvature of the weights exceeds that of the bias a thousandfold, and L-BFGS creeps.
    # After scaling both are near 1.
    scale = (1 + 1 / (strength * len(x))) ** 0.5
    scaled = weight * scale
    solver = torch.optim.LBFGS(
        [scaled, bias],
        max_iter=MAX_ITERATIONS,
        history_size=10,
        tolerance_grad=TOLERANCE,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        loss, d_weight, bias.grad = _loss_and_gradient(rows, labels, scaled / scale, bias, strength=strength)
        scaled.grad = d_weight / scale
        return loss

    with torch.no_grad():
        solver.step(closure)
    return LogisticModel(scaled / scale, bias)


def _loss_and_gradient(
    rows: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, *, strength: float
) -> tuple[float, Tensor, Tensor]:
    """The objective divided by C * N and its gradient, in blocks of rows so that few scores are held at a time."""
    penalty = 1 / (strength * len(rows))
    loss = penalty / 2 * weight.square().sum()
    d_weight, d_bias = penalty * weight, torch.zeros_like(bias)
    block = max(1, BLOCK_CELLS // len(bias))
    for x, y in zip(rows.split(block), labels.split(block), strict=True):
        log_p = torch.log_softmax(x @ weight.T + bias, dim=1)
        places = torch.arange(len(y), device=y.device)
        loss = loss - log_p[places, y].sum() / len(rows)
        residual = log_p.exp_()
        residual[places, y] -= 1
        d_weight = d_weight + residual.T @ x / len(rows)
        d_bias = d_bias + residual.sum(dim=0) / len(rows)
    return loss.item(), d_weight, d_bias
