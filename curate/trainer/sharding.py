"""One model on several processes: whole on each (DDP) or spread over them (FSDP2)."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from curate.models.device import Precision
from curate.trainer.objective import Objective
from curate.trainer.parallel import World


def replicate(objective: Objective, world: World) -> nn.Module:
    """The objective such that its gradients are the mean over ranks (DDP); itself where there is one rank."""
    return objective if world.size == 1 else DistributedDataParallel(objective)


def shard(objective: Objective, world: World, *, device: torch.device, precision: Precision) -> None:
    """Spread weights, gradients and moments over the ranks (FSDP2), block by block; gradients are means as with DDP."""
    if world.size == 1:
        return
    # Features are views of the norm's output; nothing changes them in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (world.size,))
    low = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)  # tokens stay float32
    policy = low if precision == "bf16" else MixedPrecisionPolicy()
    for networks in filter(None, (objective.student, objective.teacher, objective.guide)):
        for network in networks.values():
            for block in getattr(network, "blocks", ()):
                # Resharded after every pass: the average moves the shards, not what was gathered for a pass.
                fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
            fully_shard(network, mesh=mesh, reshard_after_forward=True)
            for method in ("forward_crops", "forward_needed", "project"):
                if hasattr(network, method):
                    register_fsdp_forward_method(network, method)


@contextmanager
def synchronised(model: nn.Module, objective: Objective, now: bool) -> Iterator[None]:
    """Combine gradients over ranks in the backward pass inside only if `now`: of accumulated passes, in the last."""
    if isinstance(model, DistributedDataParallel) and not now:
        with model.no_sync():
            yield
        return
    for network in objective.student.values():
        if isinstance(network, FSDPModule):
            network.set_requires_gradient_sync(now)
    yield


def local(tensor: Tensor) -> Tensor:
    """This rank's shard of a tensor; of a whole tensor, itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, gathered from its shards; all ranks must ask for it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
