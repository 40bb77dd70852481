"""The format of DINOv2 or DINOv3 in torch.hub: a plain state_dict in the official names; with heads, a training
checkpoint.

A training checkpoint is {"teacher": {"backbone.*", "dino_head.mlp.*", "dino_head.last_layer.weight_g", ...}}.
"""

from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from curate.errors import WeightsError
from curate.models.backbones import dinov2, dinov3
from curate.models.convert.source import LoadedBackbone, named_convnext, need_vit
from curate.models.convert.target import Forward, Options, Target, Tokens
from curate.models.files import convnext_names, dinov3_names, formats
from curate.models.files.export import weights_of
from curate.models.files.header import timm_equivalent
from curate.models.files.heads import HeadShape, HeadsInfo, score, to_hub_heads
from curate.models.files.state_dict import StateDict
from curate.models.nets.config import ViTConfig, vit_config
from curate.models.nets.tower import timm_features

NAME = "torch.hub's DINOv2 or DINOv3"
TOLERANCE = 1e-4
"""Largest accepted difference between scores of prototypes, which are cosines times a scale."""
SHAPE = ("dim", "depth", "heads", "ffn", "hidden", "num_registers", "patch_size", "positions")
"""Fields of the architecture in which a model must agree with a released one to be loaded as such."""


RELEASED = {model: family.preset(model) for family in (dinov2, dinov3) for model in family.MODELS}
"""Our presets, by the ids of torch.hub."""


def write_hub(source: LoadedBackbone, path: Path, options: Options) -> None:
    """Write tensors and nothing else, so that `torch.load(weights_only=True)` reads them."""
    del options
    if named_convnext(source) is not None:
        named = convnext_names.to_authors(weights_of(source.network))
    else:
        named = weights_of(need_vit(source, NAME))
    state = {key: value.detach().cpu() for key, value in named.items()}
    if source.heads is None:
        torch.save(state, path)
        return
    teacher = {f"backbone.{key}": value for key, value in state.items()} | to_hub_heads(source.heads[1])
    torch.save({"teacher": teacher}, path)


def read_hub(source: LoadedBackbone, path: Path) -> Forward:
    """Load with timm, which converts the official names itself; heads are compared with torch's weight norm."""
    state: dict[str, Any] = torch.load(path, weights_only=True)
    if source.heads is not None:
        teacher = state["teacher"]
        check_heads(teacher, source.heads, where=path.name)
        state = {key.removeprefix("backbone."): value for key, value in teacher.items() if key.startswith("backbone.")}
    config = source.network.config
    if isinstance(config, ViTConfig) and config.positions == "rotary" and not config.num_registers:
        state = dinov3_names.to_timm(formats.to_hub(state))  # timm knows DINOv3's names by its registers
    name, kwargs = timm_equivalent(config)
    net = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": state}, **kwargs).eval()

    def embed(images: torch.Tensor) -> Tokens:
        found = timm_features(net, images, where=name)
        return Tokens(found.cls, found.patches)

    return embed


def check_heads(teacher: StateDict, heads: tuple[HeadsInfo, StateDict], *, where: str) -> None:
    """Refuse heads whose scores change when torch's own weight norm loads them.

    Raises:
        WeightsError: a score changes by more than `TOLERANCE`.
    """
    info, ours = heads
    x = torch.randn(4, info.dim, generator=torch.Generator().manual_seed(0))
    for name in info.names:
        theirs = _official_head(info.dim, info.heads[name])
        theirs.load_state_dict(
            {key.removeprefix(f"{name}."): value for key, value in teacher.items() if key.startswith(f"{name}.")}
        )
        with torch.no_grad():
            found = theirs["last_layer"](F.normalize(theirs["mlp"](x), dim=-1))
            difference = float((found - score(ours, name, x)).abs().max())
        if not difference <= TOLERANCE:
            raise WeightsError(
                f"{where}: under torch's weight norm scores of {name} differ by {difference:.3g}, at most "
                f"{TOLERANCE:g} is accepted; nothing was written: are its weights finite?"
            )


def _official_head(dim: int, shape: HeadShape) -> nn.ModuleDict:
    layers = [nn.Linear(dim, shape.hidden), nn.GELU(), nn.Linear(shape.hidden, shape.hidden), nn.GELU()]
    last: nn.Module = nn.Linear(shape.bottleneck, shape.prototypes, bias=False)
    if shape.last_layer == "weight_norm":
        last = parametrizations.weight_norm(last)
    mlp = nn.Sequential(*layers, nn.Linear(shape.hidden, shape.bottleneck))
    return nn.ModuleDict({"mlp": mlp, "last_layer": last})


def hub_howto(source: LoadedBackbone, path: Path) -> str:
    """The call with which the official code loads the file."""
    if source.heads is not None:
        return f'torch.load("{path}", weights_only=True)["teacher"]  # the layout of teacher_checkpoint.pth'
    load = f'load_state_dict(torch.load("{path}", weights_only=True))'
    convnext = named_convnext(source)
    if convnext is not None:
        return f'torch.hub.load("facebookresearch/dinov3", "{convnext_names.SIZES[convnext]}", pretrained=False).{load}'
    config = need_vit(source, NAME).config
    model = released_as(config)
    if model is None:
        return f"DinoVisionTransformer(...).{load}  # no released size: give it {', '.join(SHAPE)} of the export"
    repository, _, _ = model.partition("_")
    sized = f", img_size={config.image_size}" if config.positions == "learned" else ""
    return f'torch.hub.load("facebookresearch/{repository}", "{model}", pretrained=False{sized}).{load}'


def released_as(config: ViTConfig) -> str | None:
    """The id in torch.hub of the released model with this architecture; None: there is none."""
    for model, preset in RELEASED.items():
        released = vit_config(preset)
        if all(getattr(config, field) == getattr(released, field) for field in SHAPE):
            return model
    return None


HUB = Target(suffix=".pth", write=write_hub, read=read_hub, howto=hub_howto, takes_heads=True, takes_token_size=False)
