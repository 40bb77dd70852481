"""Small ViTs with random weights, and random images."""

import torch

from curate.models.nets.config import ViTConfig
from curate.models.nets.vit import VisionTransformer

TINY = ViTConfig(dim=24, depth=2, heads=3, image_size=56, num_registers=2, layer_scale_init=1.0)


def seeded(config: ViTConfig, seed: int = 0) -> VisionTransformer:
    """A model whose every parameter is random, so that no term of the forward pass hides behind a zero."""
    generator = torch.Generator().manual_seed(seed)
    model = VisionTransformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def images(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
