"""Figures with standard errors, and paired differences of them."""

import math
from dataclasses import dataclass, field

import numpy as np

from curate.evaluation.accuracy import Accuracy


@dataclass(frozen=True)
class Score:
    """One figure of one model."""

    measure: str
    """knn, logistic, linear, retrieval, copies or splits."""
    figure: str
    """What of it: `k=20`, `mAP`, ..."""
    protocol: str
    """On which pictures, chosen how."""
    value: float
    """0..1, higher is better."""
    num: int
    """Answers, queries or splits behind it."""
    parts: np.ndarray = field(repr=False)
    """What the value varies over: an item's share of it, a split's or a bootstrap draw's value. Equal in order between
    models measured with one seed on one data set."""
    spread: float
    """Standard error of the value for each unit of the parts' standard deviation."""
    chosen: str = ""
    """What the training rows chose: a strength, a head."""

    @property
    def stderr(self) -> float:
        return float(self.parts.std()) * self.spread

    @property
    def name(self) -> tuple[str, str]:
        return self.measure, self.figure


def of_items(measure: str, figure: str, protocol: str, items: np.ndarray, *, chosen: str = "") -> Score:
    """The mean over answers or queries."""
    parts = np.asarray(items, dtype=np.float64)
    return Score(measure, figure, protocol, float(parts.mean()), len(parts), parts, len(parts) ** -0.5, chosen)


def of_accuracy(measure: str, figure: str, protocol: str, accuracy: Accuracy, *, chosen: str = "") -> Score:
    """A share of right answers."""
    return of_items(measure, figure, protocol, accuracy.correct, chosen=chosen)


def of_splits(figure: str, protocol: str, values: list[float], *, test_share: float) -> Score:
    """The mean over random splits of one set, at least two.

    Splits share most of their rows, so the plain standard error would shrink to zero with their number; the variance is
    taken times 1/n + test/train instead.

    Source: Nadeau and Bengio 2003, Inference for the Generalization Error.
    """
    parts, n = np.array(values), len(values)
    variance = (1 / n + test_share / (1 - test_share)) * n / (n - 1)  # of parts whose deviation divides by n
    return Score("splits", figure, protocol, float(parts.mean()), n, parts, math.sqrt(variance))


def of_bootstrap(measure: str, figure: str, protocol: str, value: float, draws: np.ndarray, *, num: int) -> Score:
    """A figure of a whole list, with its values where queries are drawn anew."""
    return Score(measure, figure, protocol, value, num, draws, 1.0)


@dataclass(frozen=True)
class Difference:
    """How much higher the second of two models scores on the same pictures."""

    first: Score
    second: Score

    @property
    def value(self) -> float:
        return self.second.value - self.first.value

    @property
    def stderr(self) -> float:
        """Paired: what both find hard or easy cancels."""
        return float((self.second.parts - self.first.parts).std()) * self.first.spread
