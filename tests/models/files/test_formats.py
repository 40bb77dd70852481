from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
)

from curate.errors import WeightsError
from curate.models.files import formats
from curate.models.files.state_dict import fill, read_state_dict
from curate.models.nets.config import ViTConfig
from curate.models.nets.vit import VisionTransformer

SMALL = ViTConfig(dim=48, depth=2, heads=3, image_size=56)


def randomize(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def huggingface(num_registers: int, ffn: str) -> torch.nn.Module:
    shape = {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 56,
        "patch_size": 14,
        "use_swiglu_ffn": ffn == "swiglu",
    }
    if num_registers:
        return Dinov2WithRegistersModel(Dinov2WithRegistersConfig(num_register_tokens=num_registers, **shape))
    return Dinov2Model(Dinov2Config(**shape))


def variant(num_registers: int, ffn: str) -> ViTConfig:
    changes = {"num_registers": num_registers, "ffn": ffn, "interpolate_offset": 0.0}
    return SMALL.model_copy(update=changes)


VARIANTS = pytest.mark.parametrize(("num_registers", "ffn"), [(0, "mlp"), (4, "mlp"), (0, "swiglu"), (4, "swiglu")])


@VARIANTS
def test_a_hugging_face_folder_gives_equal_outputs(num_registers: int, ffn: str, tmp_path: Path) -> None:
    theirs = randomize(huggingface(num_registers, ffn))
    theirs.save_pretrained(tmp_path)
    ours = VisionTransformer(variant(num_registers, ffn)).eval()
    fill(ours, formats.to_hub(read_state_dict(tmp_path)), where="test")
    for size in (56, 84):  # the stored grid and a resampled one
        x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(size))
        with torch.no_grad():
            found, expected = ours.forward_features(x), theirs(x).last_hidden_state
        tokens = torch.cat([found.cls[:, None], found.registers, found.patches], dim=1)
        torch.testing.assert_close(tokens, expected, rtol=1e-5, atol=1e-5)


@VARIANTS
def test_hugging_face_loads_our_weights(num_registers: int, ffn: str, tmp_path: Path) -> None:
    ours = randomize(VisionTransformer(variant(num_registers, ffn)))
    template = huggingface(num_registers, ffn)
    template.save_pretrained(tmp_path)
    save_file(formats.to_huggingface(ours.state_dict()), tmp_path / "model.safetensors", metadata={"format": "pt"})
    theirs = type(template).from_pretrained(tmp_path).eval()
    x = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(theirs(x).pooler_output, ours(x), rtol=1e-5, atol=1e-5)


@VARIANTS
def test_each_format_round_trips(num_registers: int, ffn: str) -> None:
    hub = dict(randomize(VisionTransformer(variant(num_registers, ffn))).state_dict())
    through = formats.to_hub(formats.to_huggingface(hub))
    assert through.keys() == hub.keys()
    assert all(torch.equal(through[key], value) for key, value in hub.items())
    timm_names = formats.to_timm(hub)
    again = formats.to_timm(formats.to_hub(timm_names))  # timm has neither mask_token nor cls position
    assert again.keys() == timm_names.keys()
    assert all(torch.equal(again[key], value) for key, value in timm_names.items())


@VARIANTS
def test_timm_weights_give_equal_outputs(num_registers: int, ffn: str) -> None:
    size, registers = ("giant" if ffn == "swiglu" else "small"), ("_reg4" if num_registers else "")
    theirs = timm.create_model(
        f"vit_{size}_patch14{registers}_dinov2", embed_dim=48, depth=2, num_heads=3, img_size=56, num_classes=0
    )
    randomize(theirs)
    ours = VisionTransformer(variant(num_registers, ffn)).eval()
    fill(ours, formats.to_hub(theirs.state_dict()), where="test")
    x = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


@VARIANTS
def test_format_is_told_from_the_names(num_registers: int, ffn: str) -> None:
    hub = VisionTransformer(variant(num_registers, ffn)).state_dict()
    assert formats.detect_format(hub) == "hub"
    assert formats.detect_format(formats.to_timm(hub)) == "timm"
    assert formats.detect_format(formats.to_huggingface(hub)) == "huggingface"
    classified = {f"dinov2.{key}": value for key, value in formats.to_huggingface(hub).items()}
    assert formats.to_hub(classified | {"classifier.weight": torch.zeros(1)}).keys() == hub.keys()


def test_names_of_another_model_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"resnet.pt: not the weights of a DINOv2 or DINOv3 ViT; .* conv1.weight"):
        formats.detect_format({"conv1.weight": torch.zeros(1)}, where="resnet.pt")


def test_half_an_attention_is_refused() -> None:
    state = formats.to_huggingface(VisionTransformer(SMALL).state_dict())
    del state["encoder.layer.1.attention.attention.value.bias"]
    with pytest.raises(WeightsError, match=r"layer.1.attention.attention.value.bias missing beside"):
        formats.to_hub(state)
