"""Floating-point operations of a model's forward pass, counted on its graph, without its weights."""

import math
from functools import lru_cache

import torch
import torchvision
from torch import nn

from curate.errors import ConfigError
from curate.models.backbones import dinov2, sscd
from curate.models.backbones.load import describe, load_backbone
from curate.models.nets.config import ViTConfig, vit_config
from curate.models.nets.throughput import count_flops

SWIGLU = 3
"""Products of a SwiGLU layer; an MLP has two."""


@lru_cache(maxsize=16)
def forward_flops(model: str) -> float:
    """flop of one image through `model`, a multiply-add counted as two.

    Raises:
        ConfigError: neither the architecture is known without the weights, nor are they here.
    """
    info = describe(model)
    if info.model in dinov2.MODELS:
        return vit_flops(vit_config(dinov2.preset(info.model)), info.preprocess.size)
    if not info.has_weights:
        return 0.0
    if info.model in sscd.MODELS:  # a ResNet-50 with a linear head
        return picture_flops(torchvision.models.resnet50(num_classes=info.dim), info.preprocess.size)
    if info.weights_present:
        return picture_flops(load_backbone(model, device="cpu", precision="fp32").module, info.preprocess.size)
    raise ConfigError(
        f"{model}: its weights are not here, and its size is not known without them; {info.how_to_get}, or plan with "
        "a DINOv2 model of the same size"
    )


def picture_flops(module: nn.Module, side: int) -> float:
    """flop of one picture of `side` x `side` pixels, by running the module."""
    with torch.inference_mode():
        return float(count_flops(lambda: module.eval()(torch.zeros(1, 3, side, side))))


def vit_flops(config: ViTConfig, side: int) -> float:
    """flop of one picture of `side` x `side` pixels: products of linears and attention, as the counter finds them."""
    patches = (side // config.patch_size) ** 2
    tokens, dim = 1 + config.num_registers + patches, config.dim
    if config.ffn == "swiglu":
        hidden = SWIGLU * 8 * math.ceil(8 * dim / 3 / 8)
    else:
        hidden = 2 * 4 * dim
    block = tokens * (4 * dim * dim + hidden * dim) + 2 * tokens * tokens * dim
    return 2.0 * (config.depth * block + patches * dim * config.in_channels * config.patch_size**2)
