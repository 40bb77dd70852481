"""AdamW with DINOv2's parameter groups, and clipping per network.

Source: arXiv:2304.07193.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from curate.trainer.config import OptimizerSettings
from curate.trainer.layers import distances
from curate.trainer.objective import MEMBER
from curate.trainer.sharding import full_tensor

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps of a parameter."""
TIMM = "net."
"""Prefix of the names of the parameters of a timm model in its backbone."""


def make_optimizer(
    networks: nn.ModuleDict, settings: OptimizerSettings, rates: Mapping[str, float] | None = None
) -> torch.optim.AdamW:
    """AdamW over the student: `networks` holds `backbone` and the heads.

    Parameters that share their factors share a group, so that the update is a few large calls.

    Args:
        rates: factors on the learning rates of networks, by their names; 1 for others.
    """
    groups: dict[tuple[float, float, bool, bool], list[nn.Parameter]] = {}
    far = _distances(networks) if settings.layer_decay < 1 else {}
    for name, parameter in networks.named_parameters():
        network = name.partition(".")[0]
        rate = 1.0 if rates is None else rates.get(network, 1.0)
        factors = rate * lr_factor(name, settings, distance=far.get(name, 0)), decay_factor(name, parameter)
        key = (*factors, is_last_layer(name), is_backbone(network))
        groups.setdefault(key, []).append(parameter)
    described: list[dict[str, Any]] = [
        {"params": parameters, "lr_factor": lr, "decay_factor": decay, "last_layer": last, "backbone": backbone}
        for (lr, decay, last, backbone), parameters in groups.items()
    ]
    optimizer = torch.optim.AdamW(described, lr=0.0, betas=settings.betas, fused=True)
    for parameter in networks.parameters():  # from the start, so that a checkpoint always holds the same tensors
        moments = {name: torch.zeros_like(parameter, requires_grad=False) for name in MOMENTS}
        optimizer.state[parameter] = {"step": torch.zeros((), device=parameter.device), **moments}
    return optimizer


def _distances(networks: nn.ModuleDict) -> dict[str, int]:
    """Layers between each parameter of a backbone and its output, by the parameter's name."""
    backbones = {name: network for name, network in networks.items() if is_backbone(name)}
    return {f"{name}.{inner}": far for name, network in backbones.items() for inner, far in distances(network).items()}


def optimizer_state(optimizer: torch.optim.AdamW, networks: nn.ModuleDict) -> dict[str, Tensor]:
    """Moments and steps by the parameters' names; the tensors are the optimizer's own, so that loading fills them."""
    return {
        f"{name}.{kind}": value
        for name, parameter in networks.named_parameters()
        for kind, value in optimizer.state[parameter].items()
    }


def lr_factor(name: str, settings: OptimizerSettings, *, distance: int) -> float:
    """Factor on the learning rate: heads and the last norm 1, each block before it `layer_decay` times less.

    Args:
        distance: layers between the parameter and the output of a backbone, see `layers.py`.
    """
    network, _, inner = name.partition(".")
    if not is_backbone(network):
        return 1.0
    is_patch_embed = inner.removeprefix(TIMM).startswith("patch_embed.")
    return settings.layer_decay**distance * (settings.patch_embed_lr if is_patch_embed else 1.0)


def decay_factor(name: str, parameter: Tensor) -> float:
    """0 for vectors (biases, norms, LayerScale gammas) and Swin's relative positions, else 1: cls, position and mask
    tokens are decayed."""
    return 0.0 if parameter.ndim <= 1 or name.endswith(".relative_position_bias_table") else 1.0


def is_backbone(network: str) -> bool:
    """Whether the network of this name is a backbone, of the first student or of another."""
    return network.rpartition(MEMBER)[2] == "backbone"


def is_last_layer(name: str) -> bool:
    """Whether the parameter belongs to the prototypes."""
    return ".last_layer." in name


def set_rates(
    optimizer: torch.optim.Optimizer, *, lr: float, weight_decay: float, backbone: float = 1.0, last_layer: float = 1.0
) -> None:
    """Set learning rate and weight decay in every group.

    Args:
        backbone: factor on the learning rate of the backbone.
        last_layer: factor on the learning rate of the prototypes.
    """
    for group in optimizer.param_groups:
        factor = group["lr_factor"] * (backbone if group["backbone"] else 1.0)
        group["lr"] = lr * factor * (last_layer if group["last_layer"] else 1.0)
        group["weight_decay"] = weight_decay * group["decay_factor"]


def clip_gradients(networks: nn.ModuleDict, settings: OptimizerSettings) -> dict[str, Tensor]:
    """Scale gradients down to `clip_norm`, for each network or each parameter by itself.

    Returns:
        Norm of each network's gradients before that, over all ranks.
    """
    if settings.clip_by == "network":
        clipped = {
            name: nn.utils.clip_grad_norm_(net.parameters(), settings.clip_norm) for name, net in networks.items()
        }
        return {name: full_tensor(norm) for name, norm in clipped.items()}
    norms = {name: nn.utils.get_total_norm(_gradients(network)) for name, network in networks.items()}
    for parameter in networks.parameters():
        nn.utils.clip_grad_norm_(parameter, settings.clip_norm)
    return {name: full_tensor(norm) for name, norm in norms.items()}


def _gradients(network: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
