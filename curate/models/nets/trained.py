"""Networks that can be trained and exported: our ViT, or a timm model in a tower."""

from typing import Any

from torch import nn

from curate.errors import ConfigError
from curate.models.nets.config import Architecture, ViTConfig
from curate.models.nets.tower import TimmTower
from curate.models.nets.vit import VisionTransformer

Trained = VisionTransformer | TimmTower


def build_trained(config: Architecture) -> Trained:
    """A network of this architecture with fresh weights."""
    return VisionTransformer(config) if isinstance(config, ViTConfig) else TimmTower(config)


def check_same_tokens(student: Trained, teacher: Trained) -> None:
    """Refuse to distill where a token of one network stands for another square of the picture than one of the other.

    Raises:
        ConfigError: it does; the message says what to set.
    """
    own, wanted = student.config.patch_size, teacher.config.patch_size
    if own != wanted:
        setting = "model.patch_size" if isinstance(student, VisionTransformer) else "model.token_size"
        raise ConfigError(
            f"a token of the student stands for {own} px, of the teacher for {wanted} px, and one is to learn from the "
            f"other; set {setting}={wanted}"
        )


def inner(module: nn.Module) -> Any:
    """The network that has the blocks: of a tower timm's model inside it, else the module itself."""
    return module.net if isinstance(module, TimmTower) else module
