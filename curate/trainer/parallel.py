"""The processes that train together, and what they combine.

torchrun starts them and says so by its environment; without it there is one, and combining over ranks changes nothing.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from curate.models.device import resolve_device

Value = TypeVar("Value")

TIMEOUT = timedelta(hours=1)
"""How long ranks wait for one another: one of them may be evaluating."""


@dataclass(frozen=True)
class World:
    """The processes that train together, and which of them this is."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum of `values` over all ranks, on every rank; no gradient."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def max(self, values: Tensor) -> Tensor:
        """Elementwise maximum of `values` over all ranks, on every rank; no gradient."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def _reduced(self, values: Tensor, how: Any) -> Tensor:
        if self.size == 1:
            return values
        combined = values.detach().clone()
        dist.all_reduce(combined, how)
        return combined

    def gather(self, values: Tensor) -> Tensor:
        """(N, ...) of every rank to (size * N, ...) on every rank, in order of rank; gradients flow to all of them."""
        return values if self.size == 1 else _Gather.apply(values, self)

    def share(self, make: Callable[[], Value]) -> Value:
        """What rank 0 makes, on every rank."""
        if self.size == 1:
            return make()
        box = [make() if self.is_first else None]
        dist.broadcast_object_list(box)
        return box[0]  # type: ignore[return-value]

    def wait(self) -> None:
        """Until every rank is here."""
        if self.size > 1:
            dist.barrier()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, world: World) -> Tensor:
        ctx.world = world
        parts = [torch.empty_like(values) for _ in range(world.size)]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.world.sum(gradient).chunk(ctx.world.size)[ctx.world.rank], None


@contextmanager
def join_world() -> Iterator[World]:
    """The processes that torchrun started, joined until the end of the block; else this one alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def local_device(choice: str) -> torch.device:
    """As `resolve_device`, each of a machine's processes with a GPU of its own."""
    device = resolve_device(choice)
    local = os.environ.get("LOCAL_RANK")
    if device.type == "cuda" and device.index is None and local is not None:
        device = resolve_device(f"cuda:{local}")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device
