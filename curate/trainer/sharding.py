"""One model on several processes: a replica on each (DDP) or its weights spread over them (FSDP2).

The difficulty with FSDP2 is that a student and a teacher share no weights, but the teacher's must follow the student's
after every step, and that the networks are called by other methods than `forward`. Four seams hold it together:

1. Each block is wrapped by itself, then each network: weights are gathered for a block while it runs, in bfloat16
   where the products are, and freed after it. Student and teacher are wrapped alike, so that equal weights lie in
   equal shards: the moving average of the teacher is computed shard by shard, without communication.
2. FSDP2's hooks gather weights when `forward` is called. `forward_crops` and `forward_needed` of backbones and
   `project` of heads are named to `register_fsdp_forward_method`; a submodule called from elsewhere would find its
   shards alone.
3. Weights are resharded after every forward pass, also where FSDP2 would keep them gathered for the backward pass: the
   average moves the shards, and gathered copies would be those of the step before.
4. Whole tensors are needed for exports, evaluations and reported norms alone: `full_tensor` gathers them, and all
   ranks must call it together. Checkpoints store shards.

DDP needs one care: every parameter must get a gradient, so that `Objective` freezes a mask token nobody uses.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from curate.models.device import Precision
from curate.trainer.objective import Objective
from curate.trainer.parallel import World

FORWARD_METHODS = ("forward_crops", "forward_needed", "project")
"""Methods beside `forward` by which objectives call networks."""


def replicate(model: nn.Module, world: World) -> nn.Module:
    """The objective, or what holds it, such that its gradients are the mean over ranks (DDP); itself where there is one
    rank."""
    return model if world.size == 1 else DistributedDataParallel(model)


def shard(networks: Sequence[nn.Module], world: World, *, device: torch.device, precision: Precision) -> None:
    """Spread the networks' weights, gradients and moments over the ranks (FSDP2), block by block; gradients are means
    as with DDP.

    A process that was not started by torchrun has no group of ranks, and keeps its whole model.
    """
    if not dist.is_initialized():
        return
    # Features are views of the norm's output; nothing changes them in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (world.size,))
    low = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)  # tokens stay float32
    # The layer norm of a CPU takes no bfloat16 weights beside float32 tokens: there autocast alone lowers the products.
    policy = low if precision == "bf16" and device.type == "cuda" else MixedPrecisionPolicy()
    for network in networks:
        for block in getattr(network, "blocks", ()):
            fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        fully_shard(network, mesh=mesh, reshard_after_forward=True)
        for method in FORWARD_METHODS:
            if hasattr(network, method):
                register_fsdp_forward_method(network, method)


def networks_of(objective: Objective) -> list[nn.Module]:
    """Every network of an objective: backbones and heads of student, teacher and frozen teacher."""
    found = filter(None, (objective.student, objective.teacher, objective.frozen_teacher))
    return [network for networks in found for network in networks.values()]


@contextmanager
def gradient_sync(model: nn.Module, objective: Objective, enabled: bool) -> Iterator[None]:
    """Combine gradients over ranks in the backward pass inside only if `enabled`: in the last of accumulated passes."""
    if isinstance(model, DistributedDataParallel) and not enabled:
        with model.no_sync():
            yield
        return
    for network in objective.student.values():
        if isinstance(network, FSDPModule):
            network.set_requires_gradient_sync(enabled)
    yield


def local_tensor(tensor: Tensor) -> Tensor:
    """This rank's shard of a tensor; of a tensor that is not sharded, itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor, gathered from its shards; all ranks must ask for it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
