"""What an iteration takes beside its products: seconds of waiting for crops, of its own, of gradients on their way
between processes, and the peaks of memory."""

import resource
import sys
import time
from collections.abc import Generator

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from curate.feed.crops import Crops

GIB = 2**30
HOST_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes of the system's unit of a process's largest memory."""


class Usage:
    """The batches of a training, whose waiting times it adds up, and figures of the iterations between two looks."""

    def __init__(self, batches: Generator[Crops, None, None], model: nn.Module, *, done: int, device: torch.device):
        """Start measuring after `done` iterations of `model`."""
        self._batches, self._model, self._device = batches, model, device
        self._done, self._time, self._waited = done, time.perf_counter(), 0.0

    def __iter__(self) -> "Usage":
        return self

    def __next__(self) -> Crops:
        start = time.perf_counter()
        try:
            return next(self._batches)
        finally:
            self._waited += time.perf_counter() - start

    def close(self) -> None:
        """End what makes the batches."""
        self._batches.close()

    def look(self, done: int) -> dict[str, float]:
        """Means over the iterations since the last look, of which `done` are done in all, on this process.

        Returns:
            feed_seconds: an iteration's wait for crops; step_seconds: the rest of its time, logs, evaluations and
            checkpoints of these iterations included. peak_host_gib, peak_device_gib: most memory of the process so
            far, in GiB, the latter with a GPU. communication_seconds: with DDP, gradients on their way in the last
            iteration that torch has timed, most of it hidden behind the backward pass.
        """
        now = time.perf_counter()
        number, seconds, waited = done - self._done, now - self._time, self._waited
        self._done, self._time, self._waited = done, now, 0.0
        figures = {"feed_seconds": waited / number, "step_seconds": (seconds - waited) / number}
        figures["peak_host_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * HOST_UNIT / GIB
        if self._device.type == "cuda":
            figures["peak_device_gib"] = torch.cuda.max_memory_allocated(self._device) / GIB
        return figures | _communication(self._model)


def _communication(model: nn.Module) -> dict[str, float]:
    """Seconds of the gradients' way between processes, as DDP has sampled them; none for other models."""
    if not isinstance(model, DistributedDataParallel):
        return {}
    nanoseconds = model._get_ddp_logging_data().get("backward_comm_time")  # not told before the second iteration
    return {} if nanoseconds is None else {"communication_seconds": float(nanoseconds) / 1e9}
