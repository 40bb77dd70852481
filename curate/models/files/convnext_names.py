"""Weights of DINOv3's ConvNeXts in Hugging Face's names, in those of their authors, which timm reads.

| | authors | Hugging Face |
|---|---|---|
| first layers of stage S | downsample_layers.S.0, .1 | stages.S.downsample_layers.0, .1 |
| block B of stage S | stages.S.B | stages.S.layers.B |
| its layers | dwconv, norm, pwconv1, pwconv2 | depthwise_conv, layer_norm, pointwise_conv1, pointwise_conv2 |
| last norm | norm (and norms.3, the same) | layer_norm |
"""

import re
from collections.abc import Mapping

from torch import Tensor

from curate.models.files.state_dict import StateDict

LAYERS = (("depthwise_conv", "dwconv"), ("pointwise_conv", "pwconv"), ("layer_norm", "norm"))
BLOCK = re.compile(r"(?:model\.)?stages\.(\d+)\.layers\.(\d+)\.(.+)")
FIRST = re.compile(r"(?:model\.)?stages\.(\d+)\.downsample_layers\.(.+)")


def is_huggingface(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of `DINOv3ConvNextModel`."""
    return any(BLOCK.fullmatch(name) and ".depthwise_conv." in name for name in state)


def from_huggingface(state: Mapping[str, Tensor]) -> StateDict:
    """Weights in Hugging Face's names, in those of the authors; other names stay, and are told of by who loads them."""
    return {_renamed(name): value for name, value in state.items()}


def _renamed(name: str) -> str:
    first, block = FIRST.fullmatch(name), BLOCK.fullmatch(name)
    if first is not None:
        return f"downsample_layers.{first[1]}.{first[2]}"
    rest = name if block is None else block[3]
    for theirs, authors in LAYERS:
        rest = rest.replace(theirs, authors)
    return rest if block is None else f"stages.{block[1]}.{block[2]}.{rest}"
