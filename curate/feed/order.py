"""The order of samples: which row of which shard is sample number n.

The difficulty. A training on billions of samples is killed and goes on, with other numbers of processes and workers,
and must see the samples that it would have seen. It must read shards sequentially, since a random read for each image
costs a hundred times the bytes. And it must shuffle well.

The solution is a pure function of (seed, n), in three steps that are each computed at once, whatever n is:

1. Sample n lies in epoch n // epoch_size. The order of an epoch's row groups is a permutation drawn from (seed, epoch).
2. The permuted row groups are cut into windows of about `window` samples. Of a row group the epoch shows as many
   samples as `SystematicSampling` says, so that weights and repeats that are not whole hold over epochs.
3. Inside a window all samples are shuffled by a permutation drawn from (seed, epoch, window), or, where batches are to
   cover clusters, dealt to its batches by draws from the same (`strata.py`).

So a window needs a few whole row groups and no memory of what came before: every process computes the same order and
takes its own samples of it, and the one integer n is the loader's whole state. A shuffle buffer, as in webdataset or
`datasets`, has to be refilled after a resume or forgets what it held; a permutation of all samples would read single
rows at random; shards dealt to processes tie the order to the number of processes.
"""

import math
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from curate.feed.lru import LruCache
from curate.feed.seeds import Stream
from curate.feed.shards import ShardIndex
from curate.feed.strata import deal
from curate.feed.systematic import SHIFTS, SystematicSampling


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
    """Sample number -> window and position, for ever: epochs follow one another, each in an order of its own."""

    def __init__(self, index: ShardIndex, *, seed: int, window: int, source: str | None = None) -> None:
        """`source`: the source whose images alone are shown; None: all."""
        self._index, self._seed, self._source, self.window_size = index, seed, source, window
        sums = np.array([g.weight if source is None else g.row_weights(source).sum() for g in index.groups])
        self._sampling = SystematicSampling(sums)
        self.epoch_size = self._sampling.size
        """Samples of an epoch."""
        self.groups_a_window = math.ceil(window * np.count_nonzero(sums) / self.epoch_size) + 1
        """Row groups that a window needs, about."""
        self._batch_size = 1
        self._epochs: LruCache[int, _Epoch] = LruCache(2)
        self._windows: LruCache[tuple[int, int], Window] = LruCache(4)

    def in_batches(self, size: int) -> "SampleOrder":
        """The order for batches of `size` consecutive samples: they cover the clusters where the feed stratifies, and
        elsewhere the size changes nothing."""
        other = copy(self)
        other._batch_size, other._windows = size, LruCache(4)
        return other

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
        first = int(np.random.default_rng([Stream.ROUNDING, self._seed]).integers(SHIFTS))
        counts, phases = self._sampling.count(number, first=first)
        order = np.random.default_rng([Stream.GROUP_ORDER, self._seed, number]).permutation(len(counts))
        order = order[counts[order] > 0]
        ends = np.cumsum(counts[order])
        heads = np.flatnonzero(np.diff((ends - 1) // self.window_size, prepend=-1))  # of each window, in `order`
        return _Epoch(np.concatenate([[0], ends])[heads], np.split(order, heads[1:]), counts, phases)

    def _draw_window(self, key: tuple[int, int]) -> Window:
        number, window = key
        epoch = self._epochs.get(number, self._draw_epoch)
        rows = np.concatenate([self._shown(epoch, int(group)) for group in epoch.groups[window]])
        start = number * self.epoch_size + int(epoch.starts[window])
        rng = np.random.default_rng([Stream.ROW_ORDER, self._seed, number, window])
        strata = self._strata_of(rows)
        if strata is None:
            return Window(start, rng.permutation(rows))
        return Window(start, rows[deal(strata, start=start, batch_size=self._batch_size, rng=rng)])

    def _strata_of(self, rows: np.ndarray) -> np.ndarray | None:
        """(S,) the cluster of each sample of a window, whose (S, 2) rows come row group by row group; None: the feed
        does not stratify."""
        heads = np.flatnonzero(np.diff(rows[:, 0], prepend=-1))
        found = []
        for start, stop in zip(heads, [*heads[1:], len(rows)], strict=True):
            strata = self._index.groups[rows[start, 0]].strata
            if strata is None:
                return None
            found.append(strata[rows[start:stop, 1]])
        return np.concatenate(found)

    def _shown(self, epoch: "_Epoch", group: int) -> np.ndarray:
        """(n, 2) group and row of the samples that an epoch takes from a row group."""
        count, phase = int(epoch.counts[group]), float(epoch.phases[group])
        rows = self._sampling.pick(self.row_weights(group), count=count, phase=phase)
        return np.stack([np.full(count, group), rows], axis=1)


@dataclass(frozen=True)
class _Epoch:
    starts: np.ndarray  # (W,) first sample of each window
    groups: list[np.ndarray]  # the row groups of each window
    counts: np.ndarray  # (G,) samples of each row group, see `SystematicSampling.count`
    phases: np.ndarray  # (G,)
