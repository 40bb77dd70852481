"""Samples by number: the crops of the image that the order gives a sample.

Encoded images are held from the reading of their row group to their use. A row group is read once for each window that
shows it, and of it the rank keeps its own images; each is dropped when its sample is made.
"""

import logging
import multiprocessing
from collections.abc import Collection, Sequence
from contextlib import suppress
from copy import copy

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from curate.errors import SourceError
from curate.feed.crops import Crops, decode_tensor, make_crops, needed_side
from curate.feed.lru import LruCache
from curate.feed.mixture import Mixture
from curate.feed.order import Position, SampleOrder, Window
from curate.feed.seeds import Stream, drawn
from curate.feed.settings import CropSettings, FeedSettings
from curate.feed.shards import DamagedData, Encoded, ShardIndex
from curate.feed.sizes import SizePlan
from curate.feed.split import BatchSplit
from curate.ops.images.decode import RejectedImage

logger = logging.getLogger(__name__)


class CroppedSamples(Dataset[Crops]):
    """Sample number -> crops of one image; what it returns depends on (seed, sample number) alone.

    Batches are drawn from streams: one of all images and, where the feed asks for batches of one source alone, one of
    each such source. `Mixture` says which stream a batch takes, and each stream has an order of its own.
    """

    def __init__(
        self,
        index: ShardIndex,
        settings: CropSettings,
        *,
        seed: int,
        window: int,
        feed: FeedSettings | None = None,
        sizes: SizePlan | None = None,
    ) -> None:
        """The samples of all ranks; `of_rank` parts them.

        Args:
            sizes: sides of the crops by batch; None: those of the settings, in every batch.
            window: samples that are shuffled together; their encoded bytes are held. A worker process holds up to two
                windows, since it sees only some of the batches.
        """
        feed = feed or FeedSettings()
        self._index, self._settings, self._seed, self._feed = index, settings, seed, feed
        self._sides = sizes or SizePlan.fixed(settings)
        sources = sorted(feed.homogeneous_sources or index.sources) if feed.homogeneous_share else []
        self._orders = [SampleOrder(index, seed=seed, window=window, source=name) for name in (None, *sources)]
        lengths = np.array([order.epoch_size for order in self._orders[1:]])
        chances = [1 - feed.homogeneous_share, *feed.homogeneous_share * lengths / lengths.sum()] if sources else [1.0]
        self._first_rows = np.cumsum([0, *(group.num_rows for group in index.groups)])
        self._mixture = Mixture(chances, seed=(Stream.HOMOGENEOUS, seed))
        self._spare: LruCache[int, list[Encoded]] = LruCache(2)
        self._skipped = multiprocessing.get_context("spawn").Value("q", 0)
        self._hold(BatchSplit(1), ahead=1)

    def of_rank(self, split: BatchSplit, *, ahead: int) -> "CroppedSamples":
        """The same samples for one rank, which holds only its own images and has `ahead` samples under way."""
        other = copy(self)
        other._hold(split, ahead=ahead)
        return other

    def _hold(self, split: BatchSplit, *, ahead: int) -> None:
        self._split = split
        self._orders = [order.in_batches(split.batch_size) for order in self._orders]
        self._images: list[LruCache[tuple[int, int], dict[int, Encoded]]] = [
            LruCache(order.groups_a_window * (2 + ahead // order.window_size)) for order in self._orders
        ]

    @property
    def skipped(self) -> int:
        """Number of samples whose image was damaged and replaced so far, in this process and its workers."""
        return self._skipped.value

    def __getitem__(self, sample: int) -> Crops:
        """The crops of sample number `sample`, (V, 3, S, S) each.

        Raises:
            SourceError: the shard cannot be read, or the row holds no image that decodes.
        """
        sides = self._sides.at(sample // self._split.batch_size)
        position, image = self._image(sample, needed_side(self._settings, sides))
        rng = np.random.default_rng([Stream.AUGMENTATION, self._seed, sample])
        crops = make_crops(image, self._settings, rng=rng, sides=sides)
        number = int(self._first_rows[position.group]) + position.row
        return crops._replace(images=torch.tensor([number]))

    def _image(self, sample: int, min_side: int) -> tuple[Position, Tensor]:
        """The image of a sample, and where it lies: elsewhere where it is damaged and another takes its place."""
        batch, offset = divmod(sample, self._split.batch_size)
        stream, earlier = self._mixture.locate(batch)
        order, number = self._orders[stream], earlier * self._split.batch_size + offset
        window = order.window(number)
        position = window.position(number)
        try:
            return position, self._decode(position, self._take(stream, window, position.group, number), min_side)
        except DamagedData as error:
            if self._feed.on_damaged == "error":
                raise
            logger.warning("%s: another image takes its place", error)
            with self._skipped.get_lock():
                self._skipped.value += 1
            return self._replacement(order, position, min_side)

    def _take(self, stream: int, window: Window, group: int, number: int) -> Encoded:
        """The encoded image of sample `number` of a stream, which is then no longer held."""
        held, key = self._images[stream], (window.start, group)
        images = held.get(key, lambda _: self._read_shown(window, group))
        if number not in images:  # used before, or another rank's
            row = window.position(number).row
            checked = drawn(np.array([number]), self._feed.verify, seed=self._seed)[0]
            return self._read(group, [row], verified=[row] if checked else ())[0]
        encoded = images.pop(number)
        if not images:
            held.drop(key)
        return encoded

    def _read_shown(self, window: Window, group: int) -> dict[int, Encoded]:
        """The encoded images of a row group that the rank shows in a window, by sample number."""
        numbers = window.start + np.flatnonzero(window.rows[:, 0] == group)
        numbers = numbers[self._split.owns(numbers)]
        rows, found = np.unique(window.rows[numbers - window.start, 1], return_inverse=True)
        checked = rows[found[drawn(numbers, self._feed.verify, seed=self._seed)]]
        images = self._read(group, rows.tolist(), verified=checked.tolist())
        return {number: images[i] for number, i in zip(numbers.tolist(), found, strict=True)}

    def _read(self, group: int, rows: Sequence[int], *, verified: Collection[int] = ()) -> list[Encoded]:
        """The encoded images of some rows; None for all where damage is skipped and the row group cannot be read."""
        try:
            return self._index.read_images(self._index.groups[group], rows, verified=verified)
        except DamagedData:
            if self._feed.on_damaged == "error":
                raise
            return [None] * len(rows)

    def _read_spare(self, group: int) -> list[Encoded]:
        """All images of a row group, from which those are taken that replace damaged ones."""
        rows = range(self._index.groups[group].num_rows)
        return self._read(group, rows, verified=rows if self._feed.verify == 1 else ())

    def _decode(self, position: Position, encoded: Encoded, min_side: int) -> Tensor:
        if isinstance(encoded, DamagedData):
            raise encoded
        group = self._index.groups[position.group]
        try:
            bits, bounds = self._feed.significant_bits, self._feed.bounds
            return decode_tensor(encoded or b"", min_side=min_side, bounds=bounds, significant_bits=bits)
        except RejectedImage as error:
            otherwise = f", raise feed.{error.limit}," if error.limit else ","
            raise DamagedData(
                f"shard {group.shard}, row group {group.number}, row {position.row}: the image does not decode "
                f"({error}); write the shards again without it{otherwise} or set feed.on_damaged=skip"
            ) from error

    def _replacement(self, order: SampleOrder, position: Position, min_side: int) -> tuple[Position, Tensor]:
        """The next image of the stream, in order of the shards, that is whole: of the same row group if it has one."""
        groups = self._index.groups
        for step in range(len(groups) + 1):  # back at last to the rows before it
            group = (position.group + step) % len(groups)
            rows = np.flatnonzero(order.row_weights(group))
            images = self._spare.get(group, self._read_spare)
            for row in rows[rows > position.row] if step == 0 else rows:
                with suppress(DamagedData):
                    found = Position(group, int(row))
                    return found, self._decode(found, images[row], min_side)
        raise SourceError("feed.on_damaged=skip: no image is left that decodes; write the shards again")
