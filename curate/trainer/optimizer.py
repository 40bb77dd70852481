"""AdamW with DINOv2's parameter groups, and clipping per network.

Source: arXiv:2304.07193; layer-wise decay: BEiT, arXiv:2106.08254.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from curate.trainer.config import Effective, OptimizerSettings
from curate.trainer.schedules import warmup_cosine

BETAS = (0.9, 0.999)


def make_optimizer(networks: nn.ModuleDict, settings: OptimizerSettings, *, depth: int) -> torch.optim.AdamW:
    """AdamW over the student: `networks` holds `backbone` and the heads.

    Parameters that share their factors share a group, so that the update is a few large calls.
    """
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in networks.named_parameters():
        key = (lr_factor(name, settings, depth=depth), decay_factor(name), is_last_layer(name))
        groups.setdefault(key, []).append(parameter)
    described: list[dict[str, Any]] = [
        {"params": parameters, "lr_factor": lr, "decay_factor": decay, "last_layer": last}
        for (lr, decay, last), parameters in groups.items()
    ]
    return torch.optim.AdamW(described, lr=0.0, betas=BETAS)


def lr_factor(name: str, settings: OptimizerSettings, *, depth: int) -> float:
    """Factor on the learning rate: heads and the last norm 1, each block before it `layer_decay` times less."""
    if not name.startswith("backbone."):
        return 1.0
    inner = name.removeprefix("backbone.")
    if inner.startswith("blocks."):
        layer = int(inner.split(".")[1]) + 1
    else:
        layer = depth + 1 if inner.startswith("norm.") else 0
    decay = settings.layer_decay ** (depth + 1 - layer)
    return decay * (settings.patch_embed_lr if inner.startswith("patch_embed.") else 1.0)


def decay_factor(name: str) -> float:
    """0 for biases, norms and LayerScale gammas, else 1: cls, position and mask tokens are decayed."""
    return 0.0 if name.endswith((".bias", ".gamma")) or "norm" in name else 1.0


def is_last_layer(name: str) -> bool:
    """Whether the parameter belongs to the prototypes."""
    return ".last_layer." in name


def set_schedule(
    optimizer: torch.optim.Optimizer, step: int, settings: OptimizerSettings, *, effective: Effective, num_steps: int
) -> float:
    """Put learning rate and weight decay of iteration `step` into every group; returns the learning rate."""
    lr = warmup_cosine(
        step,
        start=effective.learning_rate,
        end=settings.final_lr,
        num_steps=num_steps,
        warmup=effective.warmup_iterations,
    )
    first, last = settings.weight_decay
    decay = warmup_cosine(step, start=first, end=last, num_steps=num_steps)
    for group in optimizer.param_groups:
        frozen = group["last_layer"] and step < effective.freeze_last_layer_iterations
        group["lr"] = 0.0 if frozen else lr * group["lr_factor"]
        group["weight_decay"] = decay * group["decay_factor"]
    return lr


def clip_gradients(networks: nn.ModuleDict, max_norm: float) -> dict[str, Tensor]:
    """Scale each network's gradients down to `max_norm` on their own; returns the norms before that."""
    return {name: _clip(network.parameters(), max_norm) for name, network in networks.items()}


def _clip(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    return nn.utils.clip_grad_norm_(parameters, max_norm)
