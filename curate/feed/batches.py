"""Samples by number, and their crops in batches.

The whole state of the loader is one integer, the samples consumed: a run resumes exactly, with any number of
processes and workers.
"""

import logging
import multiprocessing
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from curate.errors import ConfigError, SourceError
from curate.feed.ahead import map_ahead
from curate.feed.crops import decode, make_crops, needed_side
from curate.feed.mixture import Mixture
from curate.feed.order import Position, SampleOrder, Window
from curate.feed.recent import Recent
from curate.feed.settings import CropSettings, FeedSettings
from curate.feed.shards import DamagedData, ShardIndex
from curate.ops.images.decode import RejectedImage

logger = logging.getLogger(__name__)

WorkerKind = Literal["thread", "process"]

AUGMENT, HOMOGENEOUS = 2, 6
"""First word of the seeds, after those of `curate.feed.order`."""


class Crops(NamedTuple):
    """The crops of a batch, views before images, as uint8."""

    large: Tensor  # (2 * B, 3, G, G): first global crop of all images, then the second
    small: Tensor  # (L * B, 3, S, S)


@dataclass(frozen=True)
class Split:
    """The part of every batch that one process gets: a contiguous slice of each micro-batch."""

    batch_size: int  # of an iteration, of all processes together
    accumulate: int = 1  # micro-batches of an iteration
    rank: int = 0
    size: int = 1  # processes

    def __post_init__(self) -> None:
        """Check that every process gets as many.

        Raises:
            ConfigError: they cannot.
        """
        step = self.accumulate * self.size
        if self.batch_size % step:
            fitting = [n * step for n in (self.batch_size // step, self.batch_size // step + 1) if n]
            raise ConfigError(
                f"batch_size {self.batch_size} cannot be dealt evenly to {self.accumulate} passes (accumulate) of "
                f"{self.size} processes; set batch_size={' or '.join(map(str, fitting))}"
            )

    @property
    def num_images(self) -> int:
        """Of one micro-batch on one process."""
        return self.batch_size // (self.accumulate * self.size)

    def owns(self, samples: np.ndarray) -> np.ndarray:
        """Which of the sample numbers are this process's; of any stream made of whole batches."""
        return samples // self.num_images % self.size == self.rank

    def batches(self, start: int) -> Iterator[list[int]]:
        """This process's sample numbers of each micro-batch from sample number `start` on, without end."""
        start += self.rank * self.num_images
        while True:
            yield list(range(start, start + self.num_images))
            start += self.size * self.num_images


class CroppedSamples(Dataset[Crops]):
    """Sample number -> crops of one image; what it returns depends on (seed, sample number) alone.

    Encoded images are held from the reading of their row group to their use: those of about one window of
    `window` samples, of them the rank's own. A worker process holds up to two windows, as it sees only some batches.
    """

    def __init__(
        self, index: ShardIndex, settings: CropSettings, *, seed: int, window: int, feed: FeedSettings | None = None
    ) -> None:
        feed = feed or FeedSettings()
        self._index, self._settings, self._seed, self._feed = index, settings, seed, feed
        self._min_side = needed_side(settings)
        sources = sorted(feed.homogeneous_sources or index.sources) if feed.homogeneous_share else []
        self._orders = [SampleOrder(index, seed=seed, window=window, source=name) for name in (None, *sources)]
        sizes = np.array([order.epoch_size for order in self._orders[1:]])
        chances = [1 - feed.homogeneous_share, *feed.homogeneous_share * sizes / sizes.sum()] if sources else [1.0]
        self._mixture = Mixture(chances, seed=(HOMOGENEOUS, seed))
        self._spare: Recent[int, list[bytes | None]] = Recent(2)
        self._skipped = multiprocessing.get_context("spawn").Value("q", 0)
        self._hold(Split(1), ahead=1)

    def of_rank(self, split: Split, *, ahead: int) -> "CroppedSamples":
        """The same samples for one rank, which holds only its own images and has `ahead` samples under way."""
        other = copy(self)
        other._hold(split, ahead=ahead)
        return other

    def _hold(self, split: Split, *, ahead: int) -> None:
        self._split = split
        self._images: list[Recent[tuple[int, int], dict[int, bytes | None]]] = [
            Recent(order.groups_a_window * (2 + ahead // order.window_size)) for order in self._orders
        ]

    @property
    def skipped(self) -> int:
        """Samples whose image was damaged and replaced so far, in this process and its workers."""
        return self._skipped.value

    def __getitem__(self, sample: int) -> Crops:
        """The crops of sample number `sample`, (V, 3, S, S) each.

        Raises:
            SourceError: the shard cannot be read, or the row holds no image that decodes.
        """
        image = self._image(sample)
        rng = np.random.default_rng([AUGMENT, self._seed, sample])
        return Crops(*make_crops(image, self._settings, rng=rng))

    def _image(self, sample: int) -> Tensor:
        batch, offset = divmod(sample, self._split.batch_size)
        stream, earlier = self._mixture.locate(batch)
        order, number = self._orders[stream], earlier * self._split.batch_size + offset
        window = order.window(number)
        position = window.position(number)
        try:
            return self._decode(position, self._take(stream, window, position.group, number))
        except DamagedData as error:
            if self._feed.on_damaged == "error":
                raise
            logger.warning("%s: another image takes its place", error)
            with self._skipped.get_lock():
                self._skipped.value += 1
            return self._replacement(order, position)

    def _take(self, stream: int, window: Window, group: int, number: int) -> bytes | None:
        """The encoded image of sample `number` of a stream, which is then no longer held."""
        held, key = self._images[stream], (window.start, group)
        images = held.get(key, lambda _: self._read_shown(window, group))
        if number not in images:  # used before, or another rank's
            return self._read(group, [window.position(number).row])[0]
        encoded = images.pop(number)
        if not images:
            held.drop(key)
        return encoded

    def _read_shown(self, window: Window, group: int) -> dict[int, bytes | None]:
        """The encoded images of a row group that the rank shows in a window, by sample number."""
        numbers = window.start + np.flatnonzero(window.rows[:, 0] == group)
        numbers = numbers[self._split.owns(numbers)]
        rows, found = np.unique(window.rows[numbers - window.start, 1], return_inverse=True)
        images = self._read(group, rows.tolist())
        return {number: images[i] for number, i in zip(numbers.tolist(), found, strict=True)}

    def _read(self, group: int, rows: Sequence[int]) -> list[bytes | None]:
        """The encoded images of some rows; None for all where damage is skipped and the row group cannot be read."""
        try:
            return self._index.read_images(self._index.groups[group], rows)
        except DamagedData:
            if self._feed.on_damaged == "error":
                raise
            return [None] * len(rows)

    def _decode(self, position: Position, encoded: bytes | None) -> Tensor:
        group = self._index.groups[position.group]
        try:
            return decode(encoded or b"", min_side=self._min_side)
        except RejectedImage as error:
            raise DamagedData(
                f"shard {group.shard}, row group {group.number}, row {position.row}: the image does not decode "
                f"({error}); write the shards again without it, or set feed.on_damaged=skip"
            ) from error

    def _replacement(self, order: SampleOrder, position: Position) -> Tensor:
        """The next image of the stream, in order of the shards, that is whole: of the same row group if it has one."""
        groups = self._index.groups
        for step in range(len(groups) + 1):  # back at last to the rows before it
            group = (position.group + step) % len(groups)
            rows = np.flatnonzero(order.row_weights(group))
            images = self._spare.get(group, lambda group: self._read(group, range(groups[group].num_rows)))
            for row in rows[rows > position.row] if step == 0 else rows:
                with suppress(DamagedData):
                    return self._decode(Position(group, row), images[row])
        raise SourceError("feed.on_damaged=skip: no image is left that decodes; write the shards again")


def collate(samples: Iterable[Crops]) -> Crops:
    """Stack the crops of B samples, views first."""
    large, small = (torch.stack(part, dim=1).flatten(0, 1) for part in zip(*samples, strict=True))
    return Crops(large, small)


def check_workers(workers: int, kind: WorkerKind) -> None:
    """Whether `load_batches` can start its workers here.

    Raises:
        ConfigError: they are processes, and this process may not have any.
    """
    if workers and kind == "process" and multiprocessing.current_process().daemon:
        raise ConfigError(
            "worker_kind=process: the training itself runs in a worker process, which may start no others; set "
            "worker_kind=thread or executor.kind=inprocess"
        )


def load_batches(
    samples: CroppedSamples, split: Split, *, start: int, workers: int = 0, kind: WorkerKind = "thread"
) -> Generator[Crops, None, None]:
    """Micro-batches of one process from sample number `start` on, without end.

    An iteration's batch is `split.batch_size` consecutive samples and yields `split.accumulate` micro-batches,
    equal parts of it in order; of each the process gets its contiguous slice. They are made ahead by `workers`.
    """
    samples = samples.of_rank(split, ahead=(workers + 1) * split.batch_size // split.accumulate)
    if workers == 0 or kind == "thread":
        yield from map_ahead(lambda batch: collate(samples[i] for i in batch), split.batches(start), workers)
    else:
        yield from DataLoader(
            samples,
            batch_sampler=split.batches(start),  # type: ignore[arg-type]  # an endless sampler has no length
            num_workers=workers,
            collate_fn=collate,
            multiprocessing_context="spawn",  # a fork would inherit locked locks of torch's threads
            persistent_workers=False,
        )
