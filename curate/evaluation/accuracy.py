"""A share of right answers, with its standard error."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers."""

    value: float
    """0..1."""
    stderr: float
    """Binomial standard error of `value`."""
    correct: npt.NDArray[np.bool_]
    """(N,) which answers were right, for paired comparisons."""

    @classmethod
    def of(cls, correct: npt.NDArray[np.bool_]) -> "Accuracy":
        """The accuracy of N > 0 answers."""
        value = float(np.mean(correct))
        return cls(value, math.sqrt(value * (1 - value) / len(correct)), correct)


def paired_stderr(first: Accuracy, second: Accuracy) -> float:
    """Standard error of `second.value - first.value` on the same test rows."""
    difference = second.correct.astype(np.float64) - first.correct
    return float(difference.std() / math.sqrt(len(difference)))


@dataclass(frozen=True)
class Improvement:
    """Two answers to the same test rows: of the initial weights and of the trained ones."""

    initial: Accuracy
    trained: Accuracy

    @property
    def gain(self) -> float:
        return self.trained.value - self.initial.value

    @property
    def gain_stderr(self) -> float:
        """Paired, since both answer for the same rows."""
        return paired_stderr(self.initial, self.trained)
