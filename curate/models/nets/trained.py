"""Networks that can be trained and exported: our ViT, or a timm model in a tower."""

from typing import Any

from torch import nn

from curate.models.nets.config import Architecture, ViTConfig
from curate.models.nets.tower import TimmTower
from curate.models.nets.vit import VisionTransformer

Trained = VisionTransformer | TimmTower


def build_trained(config: Architecture) -> Trained:
    """A network of this architecture with fresh weights."""
    return VisionTransformer(config) if isinstance(config, ViTConfig) else TimmTower(config)


def inner(module: nn.Module) -> Any:
    """The network that has the blocks: of a tower timm's model inside it, else the module itself."""
    return module.net if isinstance(module, TimmTower) else module
