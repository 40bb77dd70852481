"""ViTs on planted weights and images, told in a few numbers each: equality with others without their code.

`golden.json` holds what timm 1.0.31 (DINOv2 and DINOv3) and transformers 5.24 (DINOv3 with masks) compute in float64 on
equal weights: `python -m tests.models.nets.golden` makes it again from these libraries, and never from our networks.
Weights and images are uniform draws, each by a seed of its own name, which are the same on every machine.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curate.models.nets.config import ViTConfig, vit_config
from curate.models.nets.features import Features

FILE = Path(__file__).with_name("golden.json")
SIZES = ((64, 64), (48, 112))
"""Height and width of the images, pixels; at the first, learned positions are not resampled."""
SHAPE: dict[str, Any] = {"dim": 48, "depth": 2, "heads": 3, "patch_size": 16, "image_size": 64}
RESAMPLED = {"interpolate_offset": 0.0, "interpolate_antialias": True}  # as timm does
CASES = {
    "dinov2": vit_config("vit_small", **SHAPE, **RESAMPLED),
    "dinov2, registers and swiglu": vit_config("vit_giant_reg4", **SHAPE, **RESAMPLED),
    "dinov3": vit_config("dinov3_small", **SHAPE),
    "dinov3, swiglu": vit_config("dinov3_small_plus", **(SHAPE | {"ffn_hidden": 100})),
    "dinov3, 7b": vit_config("dinov3_7b", **(SHAPE | {"ffn_hidden": 96, "heads": 2})),
}
TOLD = 6
"""Values of cls that are told as they are."""


def planted(name: str, *shape: int) -> Tensor:
    """Uniform in -1..1, float32, by the name alone."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return 2 * torch.rand(shape, generator=generator) - 1


def planted_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights by their names in our networks; biases of DINOv3's keys are 0, and what only a training reads is so."""
    state = {}
    for name, shape in shapes.items():
        value = planted(name, *shape) * (1.5 / shape[-1] ** 0.5 if len(shape) == 2 else 0.4)
        state[name] = value + 1 if name.endswith(("norm1.weight", "norm2.weight", "norm.weight")) else value
    return state


def hold_keys(state: dict[str, Tensor], config: ViTConfig) -> dict[str, Tensor]:
    """The same with the biases of keys at 0 where the architecture holds them there."""
    if config.qkv_bias == "masked":
        for name, value in state.items():
            if name.endswith("attn.qkv.bias"):
                value.chunk(3)[1].zero_()
    return state


def told(features: Features, size: tuple[int, int]) -> dict[str, Any]:
    """Some values of the first image's cls, and of all tokens the norm and the product with a planted direction."""
    tokens = torch.cat([features.cls[:, None], features.registers, features.patches], dim=1).double()
    direction = planted(f"direction {size}", *tokens.shape).double()
    return {
        "cls": [round(float(value), 9) for value in tokens[0, 0, :TOLD]],
        "norm": round(float(tokens.norm()), 9),
        "product": round(float((tokens * direction).sum()), 9),
    }


def images(size: tuple[int, int]) -> Tensor:
    """(2, 3, H, W), planted."""
    return planted(f"images {size}", 2, 3, *size)


def mask(size: tuple[int, int]) -> Tensor:
    """(2, N) bool, planted: half of the patches."""
    return planted(f"mask {size}", 2, size[0] * size[1] // 256) > 0


def read() -> dict[str, dict[str, Any]]:
    """The numbers, by case and size."""
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text())
    return found


def _theirs(config: ViTConfig, state: dict[str, Tensor], size: tuple[int, int], *, masked: bool) -> Features:
    import timm

    from curate.models.files import dinov3_names, formats
    from curate.models.files.header import timm_equivalent
    from tests.models.nets.dinov3_models import huggingface_model

    first = 1 + config.num_registers
    x = images(size).double()
    if masked:
        theirs = huggingface_model(config).double()
        names = dinov3_names.to_huggingface(state)
        theirs.load_state_dict({key.replace("layer.", "model.layer."): value for key, value in names.items()})
        tokens = theirs(x, bool_masked_pos=mask(size)).last_hidden_state
    else:
        name, kwargs = timm_equivalent(config)
        other = timm.create_model(name, **kwargs).double().eval()
        other.load_state_dict((dinov3_names if config.positions == "rotary" else formats).to_timm(state))
        tokens = other.forward_features(x)
    return Features(tokens[:, 0], tokens[:, 1:first], tokens[:, first:])


def main() -> None:
    """Write the file again, from timm and transformers."""
    from curate.models.nets.vit import VisionTransformer

    made: dict[str, dict[str, Any]] = {}
    for name, config in CASES.items():
        shapes = {key: tuple(value.shape) for key, value in VisionTransformer(config).state_dict().items()}
        state = hold_keys(planted_state(shapes), config)
        masks = (False, True) if config.positions == "rotary" else (False,)
        with torch.no_grad():
            made[name] = {
                f"{height} x {width}{', masked' if masked else ''}": told(
                    _theirs(config, state, (height, width), masked=masked), (height, width)
                )
                for height, width in SIZES
                for masked in masks
            }
    FILE.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
