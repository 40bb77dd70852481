"""The image side of an open_clip model as a timm model: architecture, and weights in timm's names.

open_clip has a ViT of its own, and models of timm with a projection behind them. timm computes both; the projection is
its classifier, with a bias of 0.
"""

from typing import Any

import torch
from torch import Tensor, nn

from curate.errors import ConfigError
from curate.models.files.state_dict import StateDict
from curate.models.nets.config import TowerConfig
from curate.models.nets.tower import tower_config

VIT = "vit_base_patch16_clip_224"
"""timm's architecture of which all ViTs of open_clip are changes."""
NAMES = (
    ("conv1.", "patch_embed.proj."),
    ("transformer.resblocks.", "blocks."),
    ("ln_pre.", "norm_pre."),
    ("ln_post.", "norm."),
    (".ln_", ".norm"),
    (".in_proj_", ".qkv."),
    (".out_proj.", ".proj."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
    (".ls_", ".ls"),
)
"""Parts of names, open_clip's and timm's."""


def tower_of(visual: Any, *, size: int, where: str) -> tuple[TowerConfig, StateDict]:
    """Architecture and weights of timm's model; whether it computes the same is for the caller to see.

    Raises:
        ConfigError: timm has no such model.
    """
    if hasattr(visual, "trunk"):
        return _of_trunk(visual, size=size, where=where)
    if hasattr(visual, "conv1") and hasattr(visual, "class_embedding"):
        return _of_vit(visual, size=size)
    raise ConfigError(f"{where}: cannot be trained on: {type(visual).__name__} is no ViT and no model of timm")


def _of_vit(visual: Any, *, size: int) -> tuple[TowerConfig, StateDict]:
    blocks = visual.transformer.resblocks
    width, _, patch, _ = visual.conv1.weight.shape
    config = tower_config(
        VIT,
        outputs=visual.proj.shape[1],
        img_size=size,
        patch_size=patch,
        embed_dim=width,
        depth=len(blocks),
        num_heads=blocks[0].attn.num_heads,
        mlp_ratio=(blocks[0].mlp.c_fc.out_features + 0.5) / width,  # timm takes int(width * ratio)
        act_layer="gelu" if isinstance(blocks[0].mlp.gelu, nn.GELU) else "quick_gelu",
        pre_norm=not isinstance(visual.ln_pre, nn.Identity),
        init_values=1.0 if hasattr(blocks[0].ls_1, "gamma") else None,
    )
    state: StateDict = {_renamed(name): value for name, value in visual.state_dict().items()}
    state["cls_token"] = state.pop("class_embedding").view(1, 1, -1)
    state["pos_embed"] = state.pop("positional_embedding").unsqueeze(0)
    if not config.kwargs["pre_norm"]:  # timm's patches have a bias then, open_clip's never have
        state["patch_embed.proj.bias"] = torch.zeros(width)
    return config, _with_projection(state, "head", state.pop("proj").T)


def _renamed(name: str) -> str:
    for theirs, timm in NAMES:
        name = name.replace(theirs, timm)
    return name


def _of_trunk(visual: Any, *, size: int, where: str) -> tuple[TowerConfig, StateDict]:
    layers = [layer for layer in visual.head.children() if not isinstance(layer, nn.Dropout)]
    if len(layers) > 1 or not all(isinstance(layer, nn.Linear) for layer in layers):
        kinds = ", ".join(type(layer).__name__ for layer in layers)
        raise ConfigError(f"{where}: cannot be trained on: it ends with {kinds}, a linear layer or none can be")
    trunk, state = visual.trunk, dict(visual.trunk.state_dict())
    pooled = getattr(trunk, "global_pool", None)
    kwargs: dict[str, Any] = {"global_pool": pooled} if isinstance(pooled, str) else {}
    name = trunk.pretrained_cfg["architecture"]
    if not layers:
        return tower_config(name, image_size=size, **kwargs), state
    config = tower_config(name, image_size=size, outputs=layers[0].out_features, **kwargs)
    with torch.device("meta"):
        net = config.create()
    last = next(name for name, layer in net.named_modules() if layer is net.get_classifier())
    return config, _with_projection(state, last, layers[0].weight, layers[0].bias)


def _with_projection(state: StateDict, name: str, weight: Tensor, bias: Tensor | None = None) -> StateDict:
    """The weights with those of timm's classifier, which always has a bias."""
    zeros = torch.zeros(weight.shape[0])
    return state | {f"{name}.weight": weight.detach().contiguous(), f"{name}.bias": zeros if bias is None else bias}
