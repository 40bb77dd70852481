"""Weight files of small models of the registry, of random numbers, in the formats of their authors."""

from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from safetensors.torch import save_file
from torch import nn

VISION = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
TEXT = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}


def randomized(network: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter and statistic is random, so that none can be lost unseen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        statistics = [(name, value) for name, value in network.named_buffers() if "running_" in name]
        for name, value in (*network.named_parameters(), *statistics):
            drawn = torch.randn(value.shape, generator=generator) * 0.1
            value.copy_(drawn.abs() + 1 if name.endswith("running_var") else drawn)
    return network


def timm_file(folder: Path, name: str, **options: Any) -> str:
    """Path of the weights of a timm model without classifier."""
    net = randomized(timm.create_model(name, num_classes=0, **options))
    save_file(net.state_dict(), folder / f"{name}.safetensors")
    return str(folder / f"{name}.safetensors")


def add_clip(name: str, monkeypatch: Any, *, dim: int = 24, quick: bool = False, **vision: Any) -> None:
    """Let open_clip know a small architecture of `dim` dims."""
    image_side = vision if "timm_model_name" in vision else VISION | vision
    config = {"embed_dim": dim, "vision_cfg": image_side, "text_cfg": TEXT, "quick_gelu": quick}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)


def clip_file(folder: Path, name: str) -> str:
    """Path of the weights of an open_clip model."""
    clip = randomized(open_clip.create_model(name, pretrained=None))
    save_file({key: value.contiguous() for key, value in clip.state_dict().items()}, folder / f"{name}.safetensors")
    return str(folder / f"{name}.safetensors")
