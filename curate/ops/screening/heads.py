"""Small networks on embeddings: a score from a vector, by linear layers with an activation between them."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

Activation = Literal["none", "relu", "gelu"]
Output = Literal["none", "sigmoid", "softmax"]
BLOCK = 8192
"""Vectors that are scored together: 64 MB between layers of 2,048 units."""


class Layer(NamedTuple):
    """A linear layer and what follows it."""

    weight: np.ndarray
    """(out, in) float32"""
    bias: np.ndarray
    """(out,) float32"""
    activation: Activation


@dataclass(frozen=True)
class Head:
    """What turns a vector into a score."""

    layers: tuple[Layer, ...]
    output: Output = "none"
    """What the last layer's values become."""
    take: int = 0
    """Which of them is the score."""
    mean: np.ndarray | None = None
    """(D,) subtracted from vectors first."""
    scale: np.ndarray | None = None
    """(D,) what they are multiplied by then."""

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return int(self.layers[0].weight.shape[1])

    def score(self, vectors: np.ndarray) -> np.ndarray:
        """(N,) float32 scores of (N, D) float32 unit vectors."""
        blocks = [self._score(vectors[start : start + BLOCK]) for start in range(0, len(vectors), BLOCK)]
        return np.concatenate([np.empty(0, np.float32), *blocks])

    def _score(self, x: np.ndarray) -> np.ndarray:
        if self.mean is not None:
            x = x - self.mean
        if self.scale is not None:
            x = x * self.scale
        for layer in self.layers:
            x = _activate(x @ layer.weight.T + layer.bias, layer.activation)
        if self.output == "softmax":
            powers = np.exp(x - x.max(axis=1, keepdims=True))
            x = powers / powers.sum(axis=1, keepdims=True)
        elif self.output == "sigmoid":
            x = _sigmoid(x)
        return x[:, self.take].astype(np.float32)


def _activate(x: np.ndarray, activation: Activation) -> np.ndarray:
    if activation == "relu":
        return np.maximum(x, 0)
    if activation == "gelu":
        from scipy.special import erf

        found: np.ndarray = x * (1 + erf(x / np.sqrt(2))) / 2
        return found
    return x


def _sigmoid(x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))  # never overflows
    found: np.ndarray = np.where(x >= 0, 1, small) / (1 + small)
    return found
