"""The processes that train together, and what they combine.

torchrun starts them and says so in their environment; without it there is one, and combining over ranks changes
nothing. An objective computes on its rank's images, but what it says must not depend on how many ranks there are. So
all that looks across images is combined here: sums for Sinkhorn-Knopp and centers, features for KoLeo and contrast.

The weights of the losses then need no care: every rank has as many images, and the gradients' mean over ranks, by DDP
or FSDP2, is the gradient of the mean loss. Gathered tensors carry gradients back to the ranks they came from, summed,
since each rank's loss has used them.
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

from curate.errors import ConfigError, foreign_text
from curate.models.device import resolve_device

Value = TypeVar("Value")

_LAUNCH = "start the training by torchrun, or unset WORLD_SIZE to train with one process"
TIMEOUT = timedelta(hours=1)
"""How long ranks wait for one another: one of them may be evaluating."""


@dataclass(frozen=True)
class World:
    """The processes that train together, and which of them this is."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which alone logs and writes exports."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum of `values` over all ranks, on every rank; no gradient."""
        return self._all_reduced(values, dist.ReduceOp.SUM)

    def max(self, values: Tensor) -> Tensor:
        """Elementwise maximum of `values` over all ranks, on every rank; no gradient."""
        return self._all_reduced(values, dist.ReduceOp.MAX)

    def _all_reduced(self, values: Tensor, how: Any) -> Tensor:
        if self.size == 1:
            return values
        combined = values.detach().clone()
        dist.all_reduce(combined, how)
        return combined

    def all_gather(self, values: Tensor) -> Tensor:
        """(N, ...) of every rank to (size * N, ...) on every rank, in order of rank; gradients flow to all of them."""
        return values if self.size == 1 else _AllGather.apply(values, self)

    def broadcast(self, make: Callable[[], Value]) -> Value:
        """What rank 0 makes, on every rank."""
        if self.size == 1:
            return make()
        box = [make() if self.is_first else None]
        dist.broadcast_object_list(box)
        return box[0]  # type: ignore[return-value]

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier()


class _AllGather(torch.autograd.Function):
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
    """The processes that torchrun started, in one process group until the end of the block; else this one alone. A
    block inside such a block is in the same group.

    Raises:
        ConfigError: the environment says half of what torchrun says, or the processes do not find one another.
    """
    size = _told("WORLD_SIZE", default=1)
    if size == 1:
        yield World()
        return
    if dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size())
        return
    rank = _told("RANK")
    if not 0 <= rank < size:
        raise ConfigError(f"RANK={rank} in the environment: no number of one of WORLD_SIZE={size} processes; {_LAUNCH}")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            raise ConfigError(f"WORLD_SIZE={size} in the environment, but {name} is not set; {_LAUNCH}")
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
    except (ValueError, RuntimeError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ConfigError(
            f"rank {rank} of {size} does not meet the others at {where}: {foreign_text(error)}; {_LAUNCH}"
        ) from error
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def _told(name: str, *, default: int | None = None) -> int:
    """A whole number that torchrun says in the environment."""
    text = os.environ.get(name)
    if text is None and default is not None:
        return default
    if text is None:
        size = os.environ.get("WORLD_SIZE")
        raise ConfigError(f"WORLD_SIZE={size} in the environment, but {name} is not set; {_LAUNCH}")
    if not text.strip().isdecimal():
        raise ConfigError(f"{name}={text!r} in the environment: no whole number; {_LAUNCH}")
    return int(text)


def local_device(choice: str) -> torch.device:
    """The device that `resolve_device` gives; with `cuda`, each of a machine's processes has a GPU of its own."""
    device = resolve_device(choice)
    if device.type == "cuda":
        if device.index is None:  # `set_device` refuses a device without a number
            device = resolve_device(f"cuda:{_told('LOCAL_RANK', default=0)}")
        torch.cuda.set_device(device)
    return device
