"""How far each weight of a backbone is from its output, in layers, by which layer decay slows it.

Source: BEiT, arXiv:2106.08254.
"""

from types import SimpleNamespace
from typing import Any

from torch import nn

from curate.errors import ConfigError
from curate.models.nets.tower import TimmTower

FIRST = ("reg_token", "norm_pre.", "dist_token")
"""Beginnings of names that timm counts to the end of a ViT, though they come before its first block."""
LAST = "norm."
"""Beginning of the names of the last norm of a ViT, which timm counts to the last block."""
BEYOND = "~"
"""A name of no parameter, which timm therefore counts to what follows the blocks."""


def distances(backbone: nn.Module) -> dict[str, int]:
    """Of each parameter by its name, the layers between it and the output: 0 of the last norm and of what follows it, 1
    of the last block, and one more than there are blocks of what comes before the first.

    Raises:
        ConfigError: a timm model that does not tell in which order its layers are.
    """
    if isinstance(backbone, TimmTower):
        return {f"net.{name}": far for name, far in _of_timm(backbone.net, backbone.config.name).items()}
    depth = len(getattr(backbone, "blocks", ()))
    return {name: depth + 1 - _layer(name, depth) for name, _ in backbone.named_parameters()}


def _layer(name: str, depth: int) -> int:
    if name.startswith("blocks."):
        return int(name.split(".")[1]) + 1
    return depth + 1 if name.startswith(("norm.", "local_cls_norm.")) else 0


def _of_timm(net: Any, name: str) -> dict[str, int]:
    """By timm's own groups of layers, which it makes for this very purpose."""
    from timm.models import group_parameters

    if not hasattr(net, "group_matcher"):
        raise ConfigError(f"{name}: timm does not tell the order of its layers; set optimizer.layer_decay=1")
    named = SimpleNamespace(named_parameters=lambda: [*net.named_parameters(), (BEYOND, None)])
    layers: dict[str, int] = group_parameters(named, net.group_matcher(coarse=False), reverse=True)
    end = layers.pop(BEYOND)
    layers |= {parameter: 0 for parameter in layers if parameter.startswith(FIRST)}
    layers |= {parameter: end for parameter in layers if parameter.startswith(LAST)}
    return {parameter: end - layer for parameter, layer in layers.items()}
