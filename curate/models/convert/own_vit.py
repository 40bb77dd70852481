"""ViTs of timm as ours, where ours computes the same: it has a mask token, and packs all crops into one pass.

timm builds many transformers of one class, which differ in a dozen ways. What ours has no place for shows in the names
and shapes of tensors, or in the tokens of a picture, which are compared; such a ViT stays timm's. What ours has and
timm's has not starts at what changes nothing: factors of LayerScale at 1, a position of cls at 0.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from curate.errors import ConfigError, WeightsError
from curate.models.backbones import dinov3
from curate.models.files import formats
from curate.models.files.export import load_trained
from curate.models.files.state_dict import StateDict
from curate.models.nets.config import ViTConfig
from curate.models.nets.features import Features
from curate.models.nets.tower import timm_features
from curate.models.nets.vit import VisionTransformer

TOLERANCE = 1e-4
"""Largest accepted difference of two networks' features, as a share of the largest value."""
TIMM_RESAMPLING = {"interpolate_offset": 0.0, "interpolate_antialias": True}
"""How timm resamples positions."""


def as_own_vit(net: Any, *, size: int, where: str) -> VisionTransformer | None:
    """Our ViT with the weights of a timm model, in evaluation mode; None: ours does not compute the same.

    Args:
        net: timm's model without classifier, in evaluation mode.
        size: side of the pictures for which outputs are compared, pixels.
        where: name of the model, for messages.
    """
    kind = type(net).__name__
    if kind not in ("VisionTransformer", "Eva") or not _has_plain_parts(net):
        return None
    try:
        config, state = (_timm_vit if kind == "VisionTransformer" else _timm_dinov3)(net, where)
        own = load_trained(config, state, where=where)
    except (ConfigError, WeightsError):  # tensors that ours has no place for
        return None
    assert isinstance(own, VisionTransformer)
    own.eval()
    return own if same_features(own, lambda images: timm_features(net, images, where=where), size=size) else None


def _has_plain_parts(net: Any) -> bool:
    """Whether a ViT has what neither tensors nor outputs of fresh weights tell apart: GELU as such, and a row of blocks
    with cls before patches whose vector is cls."""
    activations = [part for part in net.modules() if isinstance(part, nn.GELU)]
    return (
        isinstance(getattr(net, "norm", None), nn.LayerNorm)
        and getattr(net, "cls_token", None) is not None
        and getattr(net, "global_pool", None) == "token"
        and all(part.approximate == "none" for part in activations)
        and bool(activations or any(isinstance(part, nn.SiLU) for part in net.modules()))
    )


def _timm_vit(net: Any, where: str) -> tuple[ViTConfig, StateDict]:
    """Architecture and weights in torch.hub's names of timm's `VisionTransformer`."""
    state: StateDict = dict(net.state_dict())
    count = net.num_prefix_tokens - 1
    if "pos_embed" not in state or (count and "reg_token" not in state):
        raise WeightsError(f"{where}: no learned positions, or other tokens before the patches than registers")
    positions = state["pos_embed"]
    if net.no_embed_class:
        positions = torch.cat([torch.zeros_like(state["cls_token"]), positions], dim=1)
    elif count:
        state["reg_token"] = state["reg_token"] + positions[:, 1 : 1 + count]
        positions = torch.cat([positions[:, :1], positions[:, 1 + count :]], dim=1)
    registers = state.pop("reg_token", None)
    swiglu = formats.is_packed_swiglu(state)
    hub = {formats.swap_ffn(name, to_timm=False) if swiglu else name: value for name, value in state.items()}
    hub |= {"pos_embed": positions, "mask_token": torch.zeros_like(state["cls_token"][0])}
    if registers is not None:
        hub["register_tokens"] = registers
    dim, _, patch, _ = net.patch_embed.proj.weight.shape
    for number in range(len(net.blocks)):
        for name in (f"blocks.{number}.ls1.gamma", f"blocks.{number}.ls2.gamma"):
            hub.setdefault(name, torch.ones(dim))
    config = ViTConfig(
        dim=dim,
        depth=len(net.blocks),
        heads=net.blocks[0].attn.num_heads,
        ffn="swiglu" if swiglu else "mlp",
        ffn_hidden=net.blocks[0].mlp.fc2.weight.shape[1],
        qkv_bias="full" if net.blocks[0].attn.qkv.bias is not None else "none",
        norm_eps=net.norm.eps,
        num_registers=count,
        patch_size=patch,
        image_size=patch * math.isqrt(positions.shape[1] - 1),
        **TIMM_RESAMPLING,
    )
    return config, hub


def _timm_dinov3(net: Any, where: str) -> tuple[ViTConfig, StateDict]:
    """The same of timm's `Eva`, where it is a DINOv3."""
    state = formats.to_hub(net.state_dict(), where=where)
    return dinov3.config_from_weights(state, heads=net.blocks[0].attn.num_heads, where=where), state


def same_features(own: Any, other: Any, *, size: int) -> bool:
    """Whether two networks give a picture of `size` pixels the same vector and, where `other` tells them, tokens.

    Args:
        own: with `forward_features`.
        other: from images to `Features`, or to vectors (B, D) alone.
    """
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, wanted = own.forward_features(images), other(images)
    pairs = [(found.cls, wanted)] if isinstance(wanted, Tensor) else _pairs(found, wanted)
    return all(_near(one, given) for one, given in pairs)


def _pairs(found: Features, wanted: Features) -> list[tuple[Tensor, Tensor]]:
    return [(found.cls, wanted.cls), (found.patches, wanted.patches)]


def _near(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= TOLERANCE * wanted.abs().max())
