"""Samples and batches of tiny shards, which the tests of the feed share."""

from contextlib import closing
from itertools import islice

import torch

from curate.feed.batches import load_batches
from curate.feed.samples import CroppedSamples
from curate.feed.settings import CropSettings
from curate.feed.shards import read_index
from curate.feed.split import BatchSplit
from curate.trainer.config import TrainConfig

CROPS = CropSettings(global_size=16, local_size=8, num_local=2)
PLAIN = CROPS.model_copy(
    update={"jitter_probability": 0, "gray_probability": 0, "solarize_probability": 0, "blur": "none"}
)


def feed(folder, settings=CROPS, **changes):
    """The samples of a folder of shards and a configuration that reads them."""
    options = {"shards": str(folder), "output": "", "workers": 0, "batch_size": 8} | changes
    config = TrainConfig(**options)
    index = read_index(str(folder), config.feed)
    return CroppedSamples(index, settings, seed=0, window=8, feed=config.feed), config


def batches_of(samples, config, *, start, rank=0, size=1):
    split = BatchSplit(config.batch_size, config.accumulate, rank, size)
    return load_batches(samples, split, start=start, workers=config.workers, kind=config.worker_kind)


def images_of(batches, views):
    """(N, ...) crops of successive batches, one row an image."""
    return torch.cat([batch.unflatten(0, (views, -1)).transpose(0, 1) for batch in batches])


def taken(samples, config, number, **how):
    """Global and local crops of `number` micro-batches."""
    batches = batches_of(samples, config, **how)
    with closing(batches):
        found = list(islice(batches, number))
    return images_of([b.global_crops for b in found], 2), images_of([b.local_crops for b in found], 2)
