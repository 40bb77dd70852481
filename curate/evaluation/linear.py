"""Linear evaluation: a grid of linear heads trained with SGD, all at once on the same frozen features.

Heads differ in their learning rate and in their input: the cls token of the last block or of the last four, with or
without the mean of the last block's patches. The best head is chosen on held-out TRAINING rows and then trained again
on all of them; the papers choose it on the set that they report, which flatters. Features are computed once, without
the random crops of the papers.

The heads of one input are one matrix, so a step of the whole grid is a few products, and the gradient of a linear head
is written down rather than left to autograd, which would hold the scores of all heads.

Source: Oquab et al. 2023, arXiv:2304.07193, appendix B.3: SGD with momentum 0.9, no weight decay, a cosine to 0,
12,500 iterations of 1,024 images = 10 epochs of ImageNet-1k, learning rates scaled by batch / 256.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from curate.evaluation.accuracy import Accuracy
from curate.evaluation.features import BlockFeatures
from curate.evaluation.logistic import VALIDATION_SHARE
from curate.evaluation.splits import stratified_split
from curate.progress import track

RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
"""Learning rates for a batch of 256; they are scaled by batch / 256."""
MOMENTUM = 0.9
BLOCKS = 4
"""Last blocks of a ViT that a head may read."""
MIN_ITERATIONS = 1000
"""Iterations at least, where 10 epochs are fewer."""
EVALUATED = 4096
"""Rows that are classified at a time."""

Views = Mapping[str, tuple[int, ...]]
"""Inputs of heads by name: the indices of the tokens that are concatenated."""


class Schedule(NamedTuple):
    """How long heads are trained, and on how many rows at a time."""

    iterations: int
    batch_size: int

    @classmethod
    def of(cls, num_rows: int, *, epochs: int = 10) -> "Schedule":
        """The paper's batch and epochs on large sets; on small ones smaller batches and at least 1,000 iterations."""
        batch = min(1024, max(32, num_rows // 10), num_rows)
        return cls(max(MIN_ITERATIONS, epochs * num_rows // batch), batch)


@dataclass(frozen=True)
class Head:
    """One head of the grid: its input and its learning rate."""

    view: str
    rate: float

    def __str__(self) -> str:
        return f"{self.view}, lr {self.rate:g}"


def make_views(num_tokens: int) -> Views:
    """The inputs for features of `num_tokens` tokens in the order of `Backbone.embed_blocks`."""
    if num_tokens == 1:
        return {"output": (0,)}
    last, patches = num_tokens - 2, num_tokens - 1
    views: dict[str, tuple[int, ...]] = {"cls": (last,), "cls + patches": (last, patches)}
    if last > 0:
        blocks = tuple(range(last + 1))
        views |= {f"cls of {len(blocks)} blocks": blocks, f"cls of {len(blocks)} blocks + patches": (*blocks, patches)}
    return views


def linear_accuracy(
    train: BlockFeatures,
    test: BlockFeatures,
    *,
    seed: int,
    rates: Sequence[float] = RATES,
    schedule: Schedule | None = None,
    device: str | torch.device = "cpu",
) -> tuple[Accuracy, Head]:
    """The accuracy on the test rows of the head that is best on held-out training rows, and that head.

    Args:
        train, test: features of one backbone with labels 0..C-1.
        seed: seed of the held-out rows, the initial weights and the order of rows.
        rates: learning rates of the grid, for a batch of 256.
        schedule: iterations and batch; None: by the number of rows.
    """
    num_classes = int(max(train.labels.max(), test.labels.max())) + 1
    views, scale = make_views(train.tokens.shape[1]), _scale(train)
    fitted = stratified_split(train.labels, train_share=1 - VALIDATION_SHARE, seed=seed)
    held = BlockFeatures(train.tokens[~fitted], train.labels[~fitted])
    grid = HeadGrid(views, rates, dim=train.tokens.shape[2], num_classes=num_classes, seed=seed, device=device)
    grid.fit(BlockFeatures(train.tokens[fitted], train.labels[fitted]), schedule, scale=scale)
    right = grid.correct(held, scale=scale)
    head = max(right, key=lambda candidate: right[candidate].mean())
    one = HeadGrid(
        {head.view: views[head.view]},
        (head.rate,),
        dim=train.tokens.shape[2],
        num_classes=num_classes,
        seed=seed,
        device=device,
    )
    one.fit(train, schedule, scale=scale)
    return Accuracy.of(one.correct(test, scale=scale)[head]), head


def _scale(train: BlockFeatures) -> float:
    """The factor on the features with which a learning rate means the same in all models.

    Tokens of a ViT come from its final norm and stay as they are; the outputs of other models are brought to the length
    that a norm gives, sqrt(D).
    """
    if train.tokens.shape[1] > 1:
        return 1.0
    return math.sqrt(train.tokens.shape[2]) / float(np.linalg.norm(train.tokens[:, 0], axis=1).mean() or 1.0)


class HeadGrid:
    """Linear heads for every input and learning rate."""

    def __init__(
        self,
        views: Views,
        rates: Sequence[float],
        *,
        dim: int,
        num_classes: int,
        seed: int,
        device: str | torch.device = "cpu",
    ) -> None:
        """Draw the weights from N(0, 0.01^2), the same for all rates of an input; biases are 0.

        Args:
            views: inputs of the heads.
            rates: learning rates, for a batch of 256.
            dim: length of a token.
            num_classes: outputs of a head.
            seed: seed of the weights and of the order of rows.
            device: where the heads are trained.
        """
        self.views, self.rates, self.num_classes = dict(views), tuple(rates), num_classes
        self.device, self.seed = torch.device(device), seed
        self.weights: dict[str, Tensor] = {}  # (L, C, tokens * dim)
        self.biases: dict[str, Tensor] = {}  # (L, C)
        for name, tokens in self.views.items():
            generator = torch.Generator().manual_seed(seed)
            first = 0.01 * torch.randn(num_classes, len(tokens) * dim, generator=generator)
            self.weights[name] = first.repeat(len(self.rates), 1, 1).to(self.device)
            self.biases[name] = torch.zeros(len(self.rates), num_classes, device=self.device)

    def fit(self, train: BlockFeatures, schedule: Schedule | None = None, *, scale: float = 1.0) -> None:
        """Train all heads on the same batches, of features times `scale`."""
        iterations, batch_size = schedule or Schedule.of(len(train.labels))
        rates = torch.tensor(self.rates, device=self.device) * batch_size / 256
        speeds = {name: (torch.zeros_like(w), torch.zeros_like(self.biases[name])) for name, w in self.weights.items()}
        tokens, labels = torch.from_numpy(train.tokens), torch.from_numpy(train.labels)
        order = _Order(len(labels), batch_size, self.seed)
        with track("linear heads", iterations, unit="iterations") as advance:
            for step in range(iterations):
                rows = order.next()
                x, y = tokens[rows].to(self.device) * scale, labels[rows].to(self.device)
                step_rates = rates * (0.5 * (1 + math.cos(math.pi * step / iterations)))
                for name, (speed_w, speed_b) in speeds.items():
                    d_weight, d_bias = self._gradient(name, x, y)
                    self.weights[name] -= step_rates[:, None, None] * speed_w.mul_(MOMENTUM).add_(d_weight)
                    self.biases[name] -= step_rates[:, None] * speed_b.mul_(MOMENTUM).add_(d_bias)
                advance(1)

    def correct(self, test: BlockFeatures, *, scale: float = 1.0) -> dict[Head, np.ndarray]:
        """For each head (N,) bool, which rows it classifies right."""
        found: dict[Head, list[np.ndarray]] = {Head(view, rate): [] for view in self.views for rate in self.rates}
        for start in range(0, len(test.labels), EVALUATED):
            tokens = torch.from_numpy(test.tokens[start : start + EVALUATED]).to(self.device) * scale
            labels = torch.from_numpy(test.labels[start : start + EVALUATED]).to(self.device)
            for view in self.views:
                right = (self._scores(view, self._read(view, tokens)).argmax(dim=2) == labels[:, None]).cpu().numpy()
                for number, rate in enumerate(self.rates):
                    found[Head(view, rate)].append(right[:, number])
        return {head: np.concatenate(parts) for head, parts in found.items()}

    def _read(self, view: str, tokens: Tensor) -> Tensor:
        return tokens[:, list(self.views[view])].flatten(1)  # (B, tokens * dim)

    def _scores(self, view: str, x: Tensor) -> Tensor:
        flat = x @ self.weights[view].flatten(0, 1).T
        return flat.view(len(x), len(self.rates), self.num_classes) + self.biases[view]  # (B, L, C)

    def _gradient(self, view: str, tokens: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of each head's mean cross-entropy by its weights (L, C, D) and biases (L, C)."""
        x = self._read(view, tokens)
        residual = self._scores(view, x).softmax(dim=2)
        residual[torch.arange(len(y), device=y.device), :, y] -= 1
        residual /= len(y)
        return (residual.flatten(1).T @ x).view_as(self.weights[view]), residual.sum(dim=0)


class _Order:
    """Draws batches of rows: each epoch a new permutation, without its incomplete last batch."""

    def __init__(self, num_rows: int, batch_size: int, seed: int) -> None:
        self.num_rows, self.batch_size = num_rows, min(batch_size, num_rows)
        self.generator = torch.Generator().manual_seed(seed)
        self.left = torch.empty(0, dtype=torch.int64)

    def next(self) -> Tensor:
        """(B,) int64 rows of the next batch."""
        if len(self.left) < self.batch_size:
            self.left = torch.randperm(self.num_rows, generator=self.generator)
        rows, self.left = self.left[: self.batch_size], self.left[self.batch_size :]
        return rows
