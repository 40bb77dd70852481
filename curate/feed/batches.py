"""Micro-batches of crops, made ahead of their use by threads or processes.

The whole state of the loader is one integer, the samples consumed: a run resumes exactly, with any number of
processes and workers.
"""

import multiprocessing
from collections.abc import Generator, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from curate.errors import ConfigError
from curate.feed.crops import Crops
from curate.feed.prefetch import prefetch_map
from curate.feed.samples import CroppedSamples
from curate.feed.split import BatchSplit

WorkerKind = Literal["thread", "process"]


def check_workers(workers: int, kind: WorkerKind) -> None:
    """Check whether `load_batches` can start its workers here.

    Raises:
        ConfigError: they are processes, and this process may not have any.
    """
    if workers and kind == "process" and multiprocessing.current_process().daemon:
        raise ConfigError(
            "worker_kind=process: the training itself runs in a worker process, which may start no others; set "
            "worker_kind=thread or executor.kind=inprocess"
        )


def load_batches(
    samples: CroppedSamples,
    split: BatchSplit,
    *,
    start: int,
    workers: int = 0,
    kind: WorkerKind = "thread",
    pin: bool = False,
) -> Generator[Crops, None, None]:
    """Micro-batches of one process from sample number `start` on, without end.

    Args:
        workers: threads or processes that make them ahead of their use; 0: each is made when it is asked for.
        pin: put them into memory from which a GPU copies while the training goes on.
    """

    def make(batch: list[int]) -> Crops:
        crops = collate(samples[i] for i in batch)
        return crops.map(Tensor.pin_memory) if pin else crops

    samples = samples.of_rank(split, ahead=(workers + 1) * split.batch_size // split.accumulate)
    if workers == 0 or kind == "thread":
        yield from prefetch_map(make, split.micro_batches(start), num_threads=workers)
    else:
        from curate.feed.worker_processes import WorkerContext

        yield from DataLoader(
            samples,
            batch_sampler=split.micro_batches(start),  # type: ignore[arg-type]  # an endless sampler has no length
            num_workers=workers,
            collate_fn=collate,
            multiprocessing_context=WorkerContext(),
            persistent_workers=False,
            pin_memory=pin,
        )


def collate(samples: Iterable[Crops]) -> Crops:
    """Stack the crops of B samples, views before images: (B, V, 3, S, S) becomes (V * B, 3, S, S)."""
    large, small, gram, images = zip(*samples, strict=True)
    return Crops(
        _stacked(large),
        _stacked(small),
        None if gram[0] is None else _stacked(gram),
        None if images[0] is None else torch.cat(images),
    )


def _stacked(crops: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(crops), dim=1).flatten(0, 1)
