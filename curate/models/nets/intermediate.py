"""Tokens of a ViT's last blocks, whoever wrote the ViT."""

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
"""Normalised images and a number of blocks -> tokens after each of the last blocks, the final block's last."""


def block_outputs(module: nn.Module) -> BlockOutputs | None:
    """How to read the last blocks of `module`; None: it is no ViT whose answer is the cls token of its last block.

    Models that pool their patches, or add a layer after pooling, have no cls token that would mean the same.
    """
    module = inner(module)
    if isinstance(module, VisionTransformer):
        return lambda images, last: module.forward_intermediate(images, min(last, len(module.blocks)))
    if _is_timm_vit(module) and _answers_with_cls(module):
        return lambda images, last: _timm_blocks(module, images, last)
    return None


def _is_timm_vit(module: nn.Module) -> "TypeGuard[TimmViT]":
    """Whether it is timm's own ViT, not a subclass, whose forward pass may be another; timm is not imported for it."""
    timm_vit = sys.modules.get("timm.models.vision_transformer")
    return timm_vit is not None and type(module) is timm_vit.VisionTransformer


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
