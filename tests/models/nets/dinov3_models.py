"""Small DINOv3 ViTs in timm and transformers, of the same shape as ours."""

from typing import Any

import timm
import torch
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from curate.models.nets.config import ViTConfig, vit_config

SHAPE: dict[str, Any] = {"dim": 48, "depth": 2, "heads": 3, "image_size": 64, "layer_scale_init": 1.0}
VARIANTS = {
    "mlp": vit_config("dinov3_small", **SHAPE),
    "no registers": vit_config("dinov3_small", num_registers=0, **SHAPE),
    "swiglu": vit_config("dinov3_small_plus", **(SHAPE | {"ffn_hidden": 100})),
    "7b": vit_config("dinov3_7b", **(SHAPE | {"ffn_hidden": 96})),
}
"""Each form of the released models: MLP or SwiGLU, masked qkv bias or none, with a norm of local crops or without."""


def timm_model(config: ViTConfig) -> Any:
    """timm's model of this architecture with weights of its own."""
    gated = config.ffn == "swiglu"
    return timm.create_model(
        "vit_small_patch16_dinov3" + ("" if config.qkv_bias == "none" else "_qkvb"),
        embed_dim=config.dim,
        depth=config.depth,
        num_heads=config.heads,
        num_reg_tokens=config.num_registers,
        mlp_ratio=(config.hidden + 0.5) / config.dim,
        swiglu_mlp=gated,
        swiglu_align_to=int(gated),
        num_classes=0,
        global_pool="token",
    ).eval()


def huggingface_model(config: ViTConfig) -> DINOv3ViTModel:
    """transformers' model of this architecture with weights of its own."""
    bias = config.qkv_bias != "none"
    theirs = DINOv3ViTConfig(
        hidden_size=config.dim,
        intermediate_size=config.hidden,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        num_register_tokens=config.num_registers,
        use_gated_mlp=config.ffn == "swiglu",
        hidden_act="silu" if config.ffn == "swiglu" else "gelu",
        query_bias=bias,
        value_bias=bias,
        image_size=config.image_size,
    )
    return DINOv3ViTModel(theirs).eval()


def randomize(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Every parameter random, so that no term of the forward pass hides behind a zero; biases of keys stay 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
            if name.endswith("attn.qkv.bias"):
                parameter.chunk(3)[1].zero_()
    return module
