"""Samples in an order that is a pure function of (seed, sample number), and their crops in batches.

The whole state of the loader is one integer, the samples consumed: a run resumes exactly, with any number of
workers.
"""

import math
import multiprocessing
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from curate.errors import ConfigError, SourceError
from curate.ops.images import RejectedImage
from curate.trainer.config import CropSettings, TrainConfig
from curate.trainer.crops import decode, make_crops, needed_side
from curate.trainer.shards import RowGroup, ShardIndex

Key = TypeVar("Key")
Value = TypeVar("Value")

GROUP_ORDER, ROW_ORDER, AUGMENT = 0, 1, 2
"""First word of the seeds, so that the streams of random numbers are independent."""


@dataclass(frozen=True)
class Position:
    """Where a sample lies: index of its row group in `ShardIndex.groups`, row within it."""

    group: int
    row: int


class SampleOrder:
    """Sample number -> position, for ever: epochs follow one another, each in an order of its own.

    In an epoch the row groups are shuffled and cut into windows of about `window` samples; within a window
    all samples are shuffled. Reading is thus sequential over a few row groups at a time.
    """

    def __init__(self, index: ShardIndex, *, seed: int, window: int) -> None:
        self._groups, self._seed, self._window = index.groups, seed, window
        self.epoch_size = index.num_samples
        self._epochs: _Recent[int, _Epoch] = _Recent(2)
        self._windows: _Recent[tuple[int, int], np.ndarray] = _Recent(4)

    def locate(self, sample: int) -> Position:
        """The position of sample number `sample` >= 0."""
        number, offset = divmod(sample, self.epoch_size)
        epoch = self._epochs.get(number, self._draw_epoch)
        window = int(np.searchsorted(epoch.starts, offset, side="right")) - 1
        rows = self._windows.get((number, window), self._draw_window)
        group, row = rows[offset - epoch.starts[window]]
        return Position(int(group), int(row))

    def _draw_epoch(self, number: int) -> "_Epoch":
        order = np.random.default_rng([GROUP_ORDER, self._seed, number]).permutation(len(self._groups))
        ends = np.cumsum([self._groups[g].num_samples for g in order])
        first = np.flatnonzero(np.diff((ends - 1) // self._window, prepend=-1))  # of each window, in `order`
        starts = np.concatenate([[0], ends])[first]
        return _Epoch(starts, np.split(order, first[1:]))

    def _draw_window(self, key: tuple[int, int]) -> np.ndarray:
        """(S, 2) int64: group and row of every sample of a window, shuffled."""
        number, window = key
        groups = self._epochs.get(number, self._draw_epoch).groups[window]
        rows = np.concatenate([_sample_rows(int(g), self._groups[g]) for g in groups])
        return np.random.default_rng([ROW_ORDER, self._seed, number, window]).permutation(rows)


@dataclass(frozen=True)
class _Epoch:
    starts: np.ndarray  # (W,) first sample of each window
    groups: list[np.ndarray]  # of each window


def _sample_rows(number: int, group: RowGroup) -> np.ndarray:
    rows = np.arange(group.num_rows)
    if group.repeats is not None:
        rows = np.repeat(rows, group.repeats)
    return np.stack([np.full(len(rows), number), rows], axis=1)


class _Recent(Generic[Key, Value]):
    """The most recently used values, shared by threads; a worker process starts with none."""

    def __init__(self, size: int) -> None:
        self._size, self._lock = size, threading.RLock()
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key, make: Callable[[Key], Value]) -> Value:
        with self._lock:
            if key not in self._values:
                self._values[key] = make(key)
                if len(self._values) > self._size:
                    self._values.popitem(last=False)
            self._values.move_to_end(key)
            return self._values[key]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._size,)


class Crops(NamedTuple):
    """The crops of a batch, views before images, as uint8."""

    large: Tensor  # (2 * B, 3, G, G): first global crop of all images, then the second
    small: Tensor  # (L * B, 3, S, S)


class CroppedSamples(Dataset[Crops]):
    """Sample number -> crops of one image; what it returns depends on (seed, sample number) alone."""

    def __init__(self, index: ShardIndex, settings: CropSettings, *, seed: int, window: int) -> None:
        self._index, self._settings, self._seed = index, settings, seed
        self._order = SampleOrder(index, seed=seed, window=window)
        self._min_side = needed_side(settings)
        per_window = math.ceil(window * len(index.groups) / index.num_samples)
        self._images: _Recent[int, list[bytes | None]] = _Recent(2 * per_window + 2)  # two windows overlap

    def __getitem__(self, sample: int) -> Crops:
        """The crops of sample number `sample`, (V, 3, S, S) each.

        Raises:
            SourceError: the shard cannot be read, or the row holds no image that decodes.
        """
        position = self._order.locate(sample)
        image = self._decode(position)
        rng = np.random.default_rng([AUGMENT, self._seed, sample])
        return Crops(*make_crops(image, self._settings, rng=rng))

    def _decode(self, position: Position) -> Tensor:
        group = self._index.groups[position.group]
        images = self._images.get(position.group, lambda _: self._index.read_images(group))
        encoded = images[position.row]
        try:
            return decode(encoded or b"", min_side=self._min_side)
        except RejectedImage as error:
            raise SourceError(
                f"shard {group.shard}, row group {group.number}, row {position.row}: the image does not "
                f"decode ({error}); write the shards again without it"
            ) from error


def collate(samples: list[Crops]) -> Crops:
    """Stack the crops of B samples, views first."""
    large, small = (torch.stack(part, dim=1).flatten(0, 1) for part in zip(*samples, strict=True))
    return Crops(large, small)


def check_workers(config: TrainConfig) -> None:
    """Whether `load_batches` can start its workers here.

    Raises:
        ConfigError: they are processes, and this process may not have any.
    """
    if config.workers and config.worker_kind == "process" and multiprocessing.current_process().daemon:
        raise ConfigError(
            "worker_kind=process: the training itself runs in a worker process, which may start no others; set "
            "worker_kind=thread or executor.kind=inprocess"
        )


def load_batches(
    samples: CroppedSamples, config: TrainConfig, *, start: int, rank: int = 0, size: int = 1
) -> Generator[Crops, None, None]:
    """Batches of samples start, start + 1, ... without end, made ahead by `config.workers`."""
    numbers = _batch_numbers(start, config.batch_size // config.accumulate, rank, size)
    if config.workers == 0:
        for batch in numbers:
            yield collate([samples[i] for i in batch])
    elif config.worker_kind == "thread":
        yield from _load_in_threads(samples, numbers, config.workers)
    else:
        yield from DataLoader(
            samples,
            batch_sampler=numbers,  # type: ignore[arg-type]  # an endless sampler has no length
            num_workers=config.workers,
            collate_fn=collate,
            multiprocessing_context="spawn",  # a fork would inherit locked locks of torch's threads
            persistent_workers=False,
        )


def _batch_numbers(start: int, images: int, rank: int, size: int) -> Iterator[list[int]]:
    each = images // size
    while True:
        yield list(range(start + rank * each, start + (rank + 1) * each))
        start += images


def _load_in_threads(
    samples: CroppedSamples, numbers: Iterator[list[int]], workers: int
) -> Generator[Crops, None, None]:
    """Each thread makes a whole batch; `workers` + 1 batches are under way."""

    def make(batch: list[int]) -> Crops:
        return collate([samples[i] for i in batch])

    pool = ThreadPoolExecutor(workers, thread_name_prefix="crops")
    waiting: deque[Future[Crops]] = deque(pool.submit(make, next(numbers)) for _ in range(workers + 1))
    try:
        while True:
            batch = waiting.popleft().result()
            waiting.append(pool.submit(make, next(numbers)))
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
