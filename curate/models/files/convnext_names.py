"""Weights of DINOv3's ConvNeXts in the names of their authors, of timm (which are those of our exports) and of Hugging
Face.

| | authors | timm | Hugging Face |
|---|---|---|---|
| first layers of stage S | downsample_layers.S.K | stem.K, stages.S.downsample.K | stages.S.downsample_layers.K |
| block B of stage S | stages.S.B | stages.S.blocks.B | stages.S.layers.B |
| its layers | dwconv, norm, pwconvK | conv_dw, norm, mlp.fcK | depthwise_conv, layer_norm, pointwise_convK |
| last norm | norm, and norms.3, the same | head.norm | layer_norm |
"""

import re
from collections.abc import Mapping

from torch import Tensor

from curate.models.files.state_dict import StateDict

SIZES = {
    "convnext_tiny": "dinov3_convnext_tiny",
    "convnext_small": "dinov3_convnext_small",
    "convnext_base": "dinov3_convnext_base",
    "convnext_large": "dinov3_convnext_large",
}
"""Ids of torch.hub by timm's architectures."""
LAYERS = (("depthwise_conv", "dwconv"), ("pointwise_conv", "pwconv"), ("layer_norm", "norm"))
BLOCK = re.compile(r"(?:model\.)?stages\.(\d+)\.layers\.(\d+)\.(.+)")
FIRST = re.compile(r"(?:model\.)?stages\.(\d+)\.downsample_layers\.(.+)")


def is_huggingface(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of `DINOv3ConvNextModel`."""
    return any(BLOCK.fullmatch(name) and ".depthwise_conv." in name for name in state)


def from_huggingface(state: Mapping[str, Tensor]) -> StateDict:
    """Weights in Hugging Face's names, in those of the authors; other names stay, and are told of by who loads them."""
    return {_renamed(name): value for name, value in state.items()}


def to_authors(state: Mapping[str, Tensor]) -> StateDict:
    """Weights in timm's names, in those of the authors."""
    theirs: StateDict = {}
    for key, value in state.items():
        name = key.replace("stem.", "downsample_layers.0.").replace(".blocks.", ".").replace("head.norm.", "norm.")
        name = re.sub(r"stages\.(\d+)\.downsample\.", r"downsample_layers.\1.", name)
        name = name.replace(".conv_dw.", ".dwconv.").replace(".mlp.fc", ".pwconv")
        theirs[name] = value.flatten(1) if ".pwconv" in name and value.ndim == 4 else value
    return theirs | {f"norms.3.{end}": theirs[f"norm.{end}"] for end in ("weight", "bias")}


def to_timm(state: Mapping[str, Tensor]) -> StateDict:
    """Weights of an export in timm's names: as they are, unless they are in Hugging Face's."""
    if not is_huggingface(state):
        return dict(state)
    ours: StateDict = {}
    for key, value in from_huggingface(state).items():
        name = re.sub(r"^downsample_layers\.0\.", "stem.", key)
        name = re.sub(r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample.", name)
        name = re.sub(r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2.", name)
        name = name.replace(".dwconv.", ".conv_dw.").replace(".pwconv", ".mlp.fc")
        ours[re.sub(r"^norm\.", "head.norm.", name)] = value
    return ours


def to_huggingface(state: Mapping[str, Tensor]) -> StateDict:
    """Weights in timm's names, in those of `DINOv3ConvNextModel`."""
    theirs: StateDict = {}
    for key, value in to_authors(state).items():
        if key.startswith("norms."):
            continue
        name = re.sub(r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample_layers.", key)
        name = re.sub(r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.layers.\2.", name)
        if ".downsample_layers." not in name:
            name = name.replace("dwconv", "depthwise_conv").replace("pwconv", "pointwise_conv")
            name = re.sub(r"(^|\.)norm\.", r"\1layer_norm.", name)
        theirs[name] = value
    return theirs


def _renamed(name: str) -> str:
    first, block = FIRST.fullmatch(name), BLOCK.fullmatch(name)
    if first is not None:
        return f"downsample_layers.{first[1]}.{first[2]}"
    rest = name if block is None else block[3]
    for theirs, authors in LAYERS:
        rest = rest.replace(theirs, authors)
    return rest if block is None else f"stages.{block[1]}.{block[2]}.{rest}"
