"""What the trainings gained over their weights before the first iteration, with paired standard errors."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.auto.running import BEFORE, NEIGHBORS, Cell, halves
from benchmarks.figures import Figure


class Gain(NamedTuple):
    """By how much one way to train raises k-NN on one set."""

    set: str
    arm: str
    iterations: int
    picked: int
    before: float
    after: float
    stderr: float
    """Of `value`, see `paired_stderr`."""
    by_seed: tuple[float, ...]

    @property
    def value(self) -> float:
        """Difference of the accuracies."""
        return self.after - self.before

    @property
    def errors(self) -> float:
        """The same in standard errors."""
        return self.value / self.stderr if self.stderr else math.copysign(math.inf, self.value)


def gains(cells: Sequence[Cell]) -> list[Gain]:
    """Of every set and way to train, over its seeds."""
    found = []
    for name, arm in dict.fromkeys((cell.set, cell.arm) for cell in cells if cell.arm in BEFORE):
        after = [cell for cell in cells if (cell.set, cell.arm) == (name, arm)]
        starts = {cell.digest: cell for cell in cells if cell.arm == BEFORE[arm]}
        before = [starts[cell.digest] for cell in after]
        known, learned = (float(np.concatenate([cell.answers() for cell in arms]).mean()) for arms in (before, after))
        changes = [b.answers() - a.answers() for a, b in zip(before, after, strict=True)]
        asked = [halves(cell.num_pictures, cell.seed, most_asked=len(cell.right))[1] for cell in after]
        by_seed = tuple(float(change.mean()) for change in changes)
        stderr = paired_stderr(np.concatenate(changes), np.concatenate(asked))
        found.append(Gain(name, arm, after[0].iterations, after[0].picked, known, learned, stderr, by_seed))
    return found


def paired_stderr(changes: np.ndarray, pictures: np.ndarray) -> float:
    """Standard error of the mean change, where answers about the same picture in several seeds count as one draw.

    Args:
        changes: (T,) of each answer: -1, 0 or 1.
        pictures: (T,) int64, row of the picture that it is about.

    Source: variance of a mean of clusters, Liang and Zeger 1986, Biometrika 73.
    """
    sums = np.bincount(pictures, weights=changes - changes.mean())
    return float(np.sqrt((sums**2).sum()) / len(changes))


def format_table(cells: Sequence[Cell]) -> str:
    """A line for every set and way to train."""
    lines = [f"{NEIGHBORS}-NN of the half of each set that was not trained on, each picture by the others of it"]
    lines.append(f"  {'set':<12} {'way':<10} iterations   before  after    gain, paired error  errors  by seed")
    for gain in gains(cells):
        cap = f"{gain.iterations}" + (f" of {gain.picked}" if gain.iterations < gain.picked else "")
        shares = f"{100 * gain.before:5.1f} % {100 * gain.after:5.1f} %"
        told = f"{100 * gain.value:+5.1f} % +- {100 * gain.stderr:.1f}"
        seeds = " ".join(f"{100 * value:+.1f}" for value in gain.by_seed)
        lines.append(f"  {gain.set:<12} {gain.arm:<10} {cap:<12} {shares}  {told:<18} {gain.errors:+6.1f}  {seeds}")
    return "\n".join(lines)


def as_figures(cells: Sequence[Cell]) -> list[Figure]:
    """The same for programs."""
    return [
        Figure(
            f"{gain.set}: {NEIGHBORS}-NN, {gain.arm}, {gain.iterations} iterations of {gain.picked}",
            gain.after,
            "share",
            BEFORE[gain.arm],
            gain.before,
            note=f"gain {gain.value:+.4f} +- {gain.stderr:.4f}, paired; {len(gain.by_seed)} seeds",
        )
        for gain in gains(cells)
    ]
