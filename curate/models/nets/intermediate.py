"""Tokens of the last blocks of a vision transformer, of our class or of timm's."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeGuard

from torch import Tensor, nn

from curate.models.nets.features import Features
from curate.models.nets.trained import inner
from curate.models.nets.vit import VisionTransformer

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer as TimmViT

BlockOutputs = Callable[[Tensor, int], list[Features]]
"""From normalized images and a number of blocks to the tokens after each of the last blocks, the final block's last."""


def block_outputs(module: nn.Module) -> BlockOutputs | None:
    """The function that reads the last blocks of `module`; None unless it is a ViT whose output is its cls token.

    In models that pool their patches, or have a layer after pooling, the cls token of a block would mean another thing
    than the model's output.
    """
    module = inner(module)
    if isinstance(module, VisionTransformer):
        return lambda images, last: module.forward_intermediate(images, min(last, len(module.blocks)))
    if _is_timm_vit(module) and _answers_with_cls(module):
        return lambda images, last: _timm_blocks(module, images, last)
    return None


def _is_timm_vit(module: nn.Module) -> "TypeGuard[TimmViT]":
    """Whether it is timm's ViT itself, or that of EVA and DINOv3, and no subclass, whose forward pass may differ; does
    not import timm."""
    known = (("timm.models.vision_transformer", "VisionTransformer"), ("timm.models.eva", "Eva"))
    return any(type(module) is getattr(sys.modules.get(name), kind, None) for name, kind in known)


def _answers_with_cls(module: "TimmViT") -> bool:
    after = (module.fc_norm, module.head)
    return module.global_pool == "token" and all(isinstance(layer, nn.Identity) for layer in after)


def _timm_blocks(module: "TimmViT", images: Tensor, last: int) -> list[Features]:
    found = module.forward_intermediates(
        images,
        indices=min(last, len(module.blocks)),
        return_prefix_tokens=True,
        norm=True,
        output_fmt="NLC",
        intermediates_only=True,
    )
    return [Features(prefix[:, 0], prefix[:, 1:], patches) for patches, prefix in found]
