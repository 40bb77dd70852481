"""Figures with standard errors, and paired differences of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from curate.evaluation.accuracy import Accuracy

BOOTSTRAPS = 200
"""Times that pictures are drawn anew for the standard error of a figure of all of them."""


@dataclass(frozen=True)
class Score:
    """One figure of one model, with what its standard error is computed from.

    A figure is the mean over answers, over random splits, or a value of a whole list that a bootstrap draws anew. In
    each case its standard error is the standard deviation of its `parts` times a factor, `spread`. The parts of two
    models that were measured with one seed on the same pictures belong together, one by one, so the same factor gives
    the paired error of their difference.
    """

    measure: str
    """Name of the measure, see `measures/registry.py`."""
    figure: str
    """Which figure of the measure: `k=20`, `mAP`, ..."""
    protocol: str
    """On which pictures it was measured, and how these were chosen."""
    value: float
    """0..1, higher is better, unless `unit` says otherwise."""
    num: int
    """Number of answers, queries or splits behind the value."""
    parts: np.ndarray = field(repr=False)
    """(P,) values of the single answers, queries, splits or bootstrap draws."""
    spread: float
    """Standard error of the value divided by the standard deviation of the parts."""
    chosen: str = ""
    """What was chosen on the training rows: the strength of a penalty, or a head."""
    unit: str = ""
    """Unit of an error, of which a lower one is better; empty: a share of 0..1, of which a higher one is."""

    @property
    def stderr(self) -> float:
        """Standard error of `value`."""
        return float(self.parts.std()) * self.spread

    @property
    def name(self) -> tuple[str, str]:
        """(measure, figure), which no other score of an evaluation has."""
        return self.measure, self.figure


def of_items(measure: str, figure: str, protocol: str, items: np.ndarray, *, chosen: str = "") -> Score:
    """The score of a mean over answers or queries, (N,) values."""
    parts = np.asarray(items, dtype=np.float64)
    return Score(measure, figure, protocol, float(parts.mean()), len(parts), parts, len(parts) ** -0.5, chosen)


def of_errors(measure: str, figure: str, protocol: str, items: np.ndarray, *, unit: str, chosen: str = "") -> Score:
    """The score of a mean over (N,) errors in `unit`; lower is better."""
    return replace(of_items(measure, figure, protocol, items, chosen=chosen), unit=unit)


def of_accuracy(measure: str, figure: str, protocol: str, accuracy: Accuracy, *, chosen: str = "") -> Score:
    """The score of a share of right answers."""
    return of_items(measure, figure, protocol, accuracy.correct, chosen=chosen)


def of_splits(figure: str, protocol: str, values: list[float], *, test_share: float) -> Score:
    """The score of a mean over random splits of one set, of which there are at least two.

    Splits share most of their rows, so the plain standard error would shrink to zero as their number grows, although
    no new image is seen. The variance between splits is therefore multiplied by 1/n + test/train instead of 1/n.

    Source: Nadeau and Bengio 2003, Inference for the Generalization Error.
    """
    parts, n = np.array(values), len(values)
    variance = (1 / n + test_share / (1 - test_share)) * n / (n - 1)  # of parts whose deviation divides by n
    return Score("splits", figure, protocol, float(parts.mean()), n, parts, math.sqrt(variance))


def of_bootstrap(measure: str, figure: str, protocol: str, value: float, draws: np.ndarray, *, num: int) -> Score:
    """The score of a figure of a whole list; `draws` are its values where the queries are drawn anew."""
    return Score(measure, figure, protocol, value, num, draws, 1.0)


def of_weighted(
    measure: str,
    figure: str,
    protocol: str,
    figure_of: Callable[[np.ndarray], float],
    *,
    num: int,
    seed: int,
    chosen: str = "",
) -> Score:
    """The score of a figure of all pictures together, such as an IoU over all of their pixels.

    Args:
        measure: name of the measure.
        figure: name of the figure.
        protocol: on which pictures it is measured.
        figure_of: from how often each picture counts, (num,) float64, to the figure.
        num: number of pictures, which a bootstrap draws anew.
        seed: seed of the bootstrap.
        chosen: see `Score`.
    """
    rng = np.random.default_rng(seed)
    drawn = (np.bincount(rng.integers(num, size=num), minlength=num).astype(np.float64) for _ in range(BOOTSTRAPS))
    draws = np.array([figure_of(weights) for weights in drawn])
    return Score(measure, figure, protocol, figure_of(np.ones(num)), num, draws, 1.0, chosen)


@dataclass(frozen=True)
class ScoreDifference:
    """By how much the second of two models scores higher on the same pictures."""

    first: Score
    second: Score

    @property
    def value(self) -> float:
        """The second value minus the first."""
        return self.second.value - self.first.value

    @property
    def stderr(self) -> float:
        """Paired standard error of `value`: what both models find hard, or easy, cancels."""
        return float((self.second.parts - self.first.parts).std()) * self.first.spread
