"""Going on from a backbone with few of its weights: its last blocks alone, or low-rank changes of its matrices.

A low-rank adapter adds a product of two small matrices, B A, to the weight of a linear layer, which itself stands
still. The second factor starts at zero, so that training begins at the given backbone. Student and teacher hold
factors, and an export holds the sums, so that it is a backbone as any other.

Source: LoRA, Hu et al. 2021, arXiv:2106.09685.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from curate.errors import ConfigError
from curate.models.nets.trained import Trained, inner
from curate.trainer.config import TrainConfig

LINEARS = ("Linear", "KeylessLinear")
"""Layers whose matrices get low-rank changes."""
LAST_LAYERS = ("norm", "fc_norm", "local_cls_norm", "attn_pool", "head", "conv_head", "bn2")
"""Layers after the last block, which learn with it: norms and, in timm's models, pooling, a last layer, and the last
convolution of an EfficientNet, whose rows of blocks count as blocks."""


class LowRank(nn.Module):
    """The sum of a weight (O, I) and of a product of (O, r) and (r, I), for `torch.nn.utils.parametrize`."""

    def __init__(self, weight: Tensor, *, rank: int, scale: float, generator: torch.Generator) -> None:
        """Draw the first factor; the second is zero.

        Args:
            weight: (O, I) the layer's.
            scale: factor on the product.
        """
        super().__init__()
        self.scale = scale
        bound = 1 / math.sqrt(weight.shape[1])
        self.down = nn.Parameter(torch.empty(rank, weight.shape[1]).uniform_(-bound, bound, generator=generator))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, weight: Tensor) -> Tensor:
        """(O, I) the weight that is used."""
        return weight + self.scale * (self.up @ self.down)


def adapt(backbone: Trained, config: TrainConfig, *, generator: torch.Generator) -> Trained:
    """Let only those weights learn, in place, that `last_blocks` and `lora` name; all where they name none.

    Raises:
        ConfigError: the backbone has no row of blocks, or fewer.
    """
    network: nn.Module = inner(backbone)
    if config.last_blocks is None and config.lora is None:
        return backbone
    blocks: Any = getattr(network, "blocks", None)
    count = 0 if blocks is None else len(blocks)
    if config.last_blocks is not None and not 0 < config.last_blocks <= count:
        raise ConfigError(f"last_blocks={config.last_blocks}: the backbone has a row of {count} blocks")
    if blocks is None:
        raise ConfigError("lora: the backbone has no row of blocks, whose matrices it could change")
    chosen = list(blocks)[-(config.last_blocks or count) :]
    network.requires_grad_(False)
    if config.lora is not None:
        layers = [layer for block in chosen for layer in block.modules() if type(layer).__name__ in LINEARS]
        if not layers:
            raise ConfigError("lora: the backbone's blocks have no linear layers; leave it out, or set last_blocks")
        for layer in layers:
            scale = config.lora.alpha / config.lora.rank
            change = LowRank(layer.weight, rank=config.lora.rank, scale=scale, generator=generator)
            parametrize.register_parametrization(layer, "weight", change)
        return backbone
    for learning in (*chosen, *(getattr(network, name, None) for name in LAST_LAYERS)):
        if learning is not None:
            learning.requires_grad_(True)
    return backbone


def merged(backbone: Trained) -> Trained:
    """The backbone with low-rank changes added to its weights, as a plain one; itself where it has none."""
    if not any(parametrize.is_parametrized(layer) for layer in backbone.modules()):
        return backbone
    plain = copy.deepcopy(backbone)
    changed: list[Any] = [layer for layer in plain.modules() if parametrize.is_parametrized(layer)]
    for layer in changed:
        weight = layer.weight.detach()
        # `remove_parametrizations` would take the property from the class, which the copied layers share.
        layer.__class__ = type(layer).__mro__[1]
        del layer.parametrizations
        layer.register_parameter("weight", nn.Parameter(weight, requires_grad=False))
    return plain
