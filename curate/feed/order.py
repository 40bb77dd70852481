"""Sample number -> row of a shard: a pure function of (seed, number), reached without replaying what came before."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from curate.feed.recent import Recent
from curate.feed.shards import ShardIndex
from curate.feed.weights import SHIFTS, Comb

GROUP_ORDER, ROW_ORDER, ROUNDING = 0, 1, 5
"""First word of the seeds, so that the streams of random numbers are independent."""


class Position(NamedTuple):
    """Where a sample lies: index of its row group in `ShardIndex.groups`, row within it."""

    group: int
    row: int


@dataclass(frozen=True)
class Window:
    """Samples that are shuffled together."""

    start: int  # number of the first sample
    rows: np.ndarray  # (S, 2) int64, row group and row of every sample, in order

    def position(self, sample: int) -> Position:
        """Where sample number `sample` of the window lies."""
        return Position(*self.rows[sample - self.start].tolist())


class SampleOrder:
    """Sample number -> position, for ever: epochs follow one another, each in an order of its own.

    In an epoch the row groups are shuffled and cut into windows of about `window` samples; within a window
    all samples are shuffled. Reading is thus sequential over a few row groups at a time. Every epoch has
    `epoch_size` samples; a weight that is not whole is rounded by `Comb`, in each epoch anew.
    """

    def __init__(self, index: ShardIndex, *, seed: int, window: int, source: str | None = None) -> None:
        """`source`: whose images alone are shown; None: all."""
        self._index, self._seed, self._source, self.window_size = index, seed, source, window
        sums = np.array([g.weight if source is None else g.row_weights(source).sum() for g in index.groups])
        self._comb = Comb(sums)
        self.epoch_size = self._comb.size
        self.groups_a_window = math.ceil(window * np.count_nonzero(sums) / self.epoch_size) + 1
        self._epochs: Recent[int, _Epoch] = Recent(2)
        self._windows: Recent[tuple[int, int], Window] = Recent(4)

    def window(self, sample: int) -> Window:
        """The window that sample number `sample` >= 0 lies in."""
        number, offset = divmod(sample, self.epoch_size)
        epoch = self._epochs.get(number, self._draw_epoch)
        window = int(np.searchsorted(epoch.starts, offset, side="right")) - 1
        return self._windows.get((number, window), self._draw_window)

    def row_weights(self, group: int) -> np.ndarray:
        """(num_rows,) weights of the rows of a row group."""
        return self._index.groups[group].row_weights(self._source)

    def _draw_epoch(self, number: int) -> "_Epoch":
        first = int(np.random.default_rng([ROUNDING, self._seed]).integers(SHIFTS))
        counts, early = self._comb.count(number, first=first)
        order = np.random.default_rng([GROUP_ORDER, self._seed, number]).permutation(len(counts))
        order = order[counts[order] > 0]
        ends = np.cumsum(counts[order])
        heads = np.flatnonzero(np.diff((ends - 1) // self.window_size, prepend=-1))  # of each window, in `order`
        return _Epoch(np.concatenate([[0], ends])[heads], np.split(order, heads[1:]), counts, early)

    def _draw_window(self, key: tuple[int, int]) -> Window:
        number, window = key
        epoch = self._epochs.get(number, self._draw_epoch)
        rows = np.concatenate([self._shown(epoch, int(group)) for group in epoch.groups[window]])
        rows = np.random.default_rng([ROW_ORDER, self._seed, number, window]).permutation(rows)
        return Window(number * self.epoch_size + int(epoch.starts[window]), rows)

    def _shown(self, epoch: "_Epoch", group: int) -> np.ndarray:
        """(n, 2) group and row of the samples that an epoch takes from a row group."""
        count, early = int(epoch.counts[group]), float(epoch.early[group])
        rows = self._comb.pick(self.row_weights(group), count=count, early=early)
        return np.stack([np.full(count, group), rows], axis=1)


@dataclass(frozen=True)
class _Epoch:
    starts: np.ndarray  # (W,) first sample of each window
    groups: list[np.ndarray]  # of each window
    counts: np.ndarray  # (G,) samples of each row group, see `Comb.count`
    early: np.ndarray  # (G,)
