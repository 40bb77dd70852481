"""The share of right answers, with its standard error."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Accuracy:
    """The share of right answers to N questions."""

    value: float
    """0..1."""
    stderr: float
    """Binomial standard error of `value`."""
    correct: npt.NDArray[np.bool_]
    """(N,) bool, which answers are right; kept for paired comparisons."""

    @classmethod
    def of(cls, correct: npt.NDArray[np.bool_]) -> "Accuracy":
        """The accuracy of (N,) answers, of which there must be at least one."""
        value = float(np.mean(correct))
        return cls(value, math.sqrt(value * (1 - value) / len(correct)), correct)


def paired_stderr(first: Accuracy, second: Accuracy) -> float:
    """Standard error of `second.value - first.value` where both answered the same questions.

    Questions that both get right, or both get wrong, do not add to it, so it is smaller than the two errors combined.
    """
    difference = second.correct.astype(np.float64) - first.correct
    return float(difference.std() / math.sqrt(len(difference)))
