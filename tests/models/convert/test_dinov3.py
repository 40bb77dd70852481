"""DINOv3 ViTs from one format to the next."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModel

from curate.errors import WeightsError
from curate.models.backbones.load import load_backbone
from curate.models.convert import to_hub
from curate.models.convert.convert import convert
from curate.models.convert.source import load_source, resized
from curate.models.files import dinov3_names
from curate.models.files.export import weights_of, write_export
from curate.models.files.header import ExportInfo
from curate.models.nets.config import vit_config
from curate.models.nets.tower import TimmTower, tower_config
from curate.models.nets.vit import VisionTransformer
from curate.trainer.given_backbone import load_weights
from tests.models.convert.backbones import export, pictures
from tests.models.nets.dinov3_models import huggingface_model, randomize, timm_model

SHAPE: dict[str, Any] = {"dim": 64, "depth": 2, "heads": 1, "image_size": 64}
VARIANTS = {
    "mlp": vit_config("dinov3_small", **SHAPE),
    "no registers": vit_config("dinov3_small", num_registers=0, **SHAPE),
    "swiglu": vit_config("dinov3_small_plus", **(SHAPE | {"ffn_hidden": 72})),
    "7b": vit_config("dinov3_7b", **(SHAPE | {"ffn_hidden": 96})),
}
VARIANT = pytest.mark.parametrize("variant", VARIANTS)


def vit(variant: str) -> VisionTransformer:
    network = randomize(VisionTransformer(VARIANTS[variant]).eval())
    assert isinstance(network, VisionTransformer)
    return network


@VARIANT
@torch.no_grad()
def test_a_tour_through_all_formats_changes_no_output(variant: str, tmp_path: Path) -> None:
    network = vit(variant)
    path = export(tmp_path, network, image_size=64)
    for to in ("hub", "timm", "huggingface", "safetensors"):
        made = convert(path, to, output=tmp_path / to if to == "huggingface" else None)
        assert all(check.accepted for check in made.checks)
        assert made.resampled is not None
        assert made.resampled.accepted  # at another size too: nothing is resampled
        found = load_source(str(made.path)).network
        for size in (64, 96):
            torch.testing.assert_close(found(pictures(size)), network(pictures(size)), rtol=1e-5, atol=1e-5)
        path = str(made.path)


def test_onnx_computes_the_same(tmp_path: Path) -> None:
    made = convert(export(tmp_path, vit("swiglu"), image_size=64), "onnx")
    assert all(check.accepted for check in made.checks)


@VARIANT
def test_the_pipeline_embeds_with_an_export_and_with_converted_files(variant: str, tmp_path: Path) -> None:
    path = export(tmp_path, vit(variant), image_size=64)
    pixels = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()
    wanted = load_backbone("curate", weights=path, device="cpu", precision="fp32").embed(pixels)
    for to in ("timm", "huggingface"):
        found = load_backbone("curate", weights=str(convert(path, to).path), device="cpu", precision="fp32")
        torch.testing.assert_close(found.embed(pixels), wanted, rtol=1e-5, atol=1e-5)


@VARIANT
@torch.no_grad()
def test_weights_of_others_tell_their_architecture(variant: str, tmp_path: Path) -> None:
    config = VARIANTS[variant]
    for form, theirs in (("timm", timm_model(config)), ("transformers", huggingface_model(config))):
        randomize(theirs)
        if form == "timm":
            save_file(theirs.state_dict(), tmp_path / "vit.safetensors")
            path, expected = tmp_path / "vit.safetensors", theirs(pictures(64))
        else:
            theirs.save_pretrained(tmp_path / form)
            path, expected = tmp_path / form, theirs(pictures(64)).pooler_output
        found = load_source(str(path))
        torch.testing.assert_close(found.network(pictures(64)), expected, rtol=1e-5, atol=1e-5)
        assert found.network.config.ffn_hidden == config.hidden  # type: ignore[union-attr]
        assert (found.info.image_size, found.info.short_edge) == (256, 256)  # of DINOv3, not of DINOv2


@torch.no_grad()
def test_a_convnext_goes_through_all_formats(tmp_path: Path) -> None:
    config = tower_config("convnext_tiny", token_size=16, dims=(8, 8, 16, 64), depths=(1, 2, 1, 1), ls_init_value=0.5)
    network = randomize(TimmTower(config).eval())
    assert isinstance(network, TimmTower)
    path = export(tmp_path, network, image_size=64)
    for to in ("timm", "huggingface", "hub"):
        made = convert(path, to, output=tmp_path / f"out{'.pth' if to == 'hub' else '.safetensors' * (to == 'timm')}")
        assert all(check.accepted for check in made.checks)
        if to != "hub":
            found = load_source(str(made.path)).network
            torch.testing.assert_close(found(pictures(64)), network(pictures(64)), rtol=1e-5, atol=1e-5)
    assert 'torch.hub.load("facebookresearch/dinov3", "dinov3_convnext_tiny"' in made.howto
    assert "downsample_layers.0.0.weight" in torch.load(made.path, weights_only=True)


@torch.no_grad()
def test_a_file_of_the_authors_tells_its_attention_heads(tmp_path: Path) -> None:
    network = VisionTransformer(vit_config("dinov3_small", dim=48, heads=3, depth=1, image_size=64)).eval()
    state = weights_of(network)
    torch.save(state, tmp_path / "dinov3_vits16_pretrain.pth")
    found = load_source(str(tmp_path / "dinov3_vits16_pretrain.pth")).network
    torch.testing.assert_close(found(pictures(64)), network(pictures(64)))
    torch.save(dinov3_names.to_timm(network.state_dict()), tmp_path / "timm.pth")
    with pytest.raises(WeightsError, match="48 dims are no multiple of 64, so the number of attention heads is not"):
        load_source(str(tmp_path / "timm.pth"))


@torch.no_grad()
def test_transformers_reads_the_folder_by_itself(tmp_path: Path) -> None:
    network = vit("swiglu")
    made = convert(export(tmp_path, network, image_size=64), "huggingface")
    theirs = AutoModel.from_pretrained(made.path).eval()
    assert type(theirs).__name__ == "DINOv3ViTModel"
    torch.testing.assert_close(theirs(pictures(80)).pooler_output, network(pictures(80)), rtol=1e-5, atol=1e-5)
    assert "DINOv3 ViT, 64 dims" in (made.path / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "value"), [("rope_theta", 10_000.0), ("layer_norm_eps", 1e-6), ("hidden_act", "relu")]
)
def test_a_folder_of_another_computation_is_refused(name: str, value: object, tmp_path: Path) -> None:
    huggingface_model(VARIANTS["mlp"]).save_pretrained(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(told | {name: value}))
    with pytest.raises(WeightsError, match=f"config.json: {name} is '{value}', .* is what such a ViT is computed with"):
        load_source(str(tmp_path))


@torch.no_grad()
def test_another_size_needs_no_resampling(tmp_path: Path) -> None:
    source = load_source(export(tmp_path, vit("mlp"), image_size=64))
    other = resized(source, 96)
    assert other.image_size == 96
    torch.testing.assert_close(other.network(pictures(96)), source.network(pictures(96)))


def test_a_released_size_is_named_as_torch_hub_does() -> None:
    assert to_hub.released_as(vit_config("dinov3_huge_plus")) == "dinov3_vith16plus"
    assert to_hub.released_as(vit_config("dinov3_7b")) == "dinov3_vit7b16"
    assert to_hub.released_as(vit_config("dinov3_tiny")) is None


@torch.no_grad()
def test_a_bias_that_keys_have_learned_is_kept_or_refused(tmp_path: Path) -> None:
    """It is no constant of the softmax here: rotations turn it with the place of a patch."""
    config = vit_config("dinov3_tiny", dim=32, heads=2, depth=1, image_size=32, qkv_bias="full")
    trained = VisionTransformer(config, generator=torch.Generator().manual_seed(0)).eval()
    trained.get_parameter("blocks.0.attn.qkv.bias").normal_(generator=torch.Generator().manual_seed(1))
    write_export(tmp_path / "own.safetensors", trained, ExportInfo(image_size=32, short_edge=32))
    save_file(weights_of(trained), tmp_path / "meta.safetensors")
    bias = trained.state_dict()["blocks.0.attn.qkv.bias"]
    for file in ("own.safetensors", "meta.safetensors"):
        read = load_source(str(tmp_path / file)).network
        assert isinstance(read, VisionTransformer)
        assert read.config.qkv_bias == "full"
        assert torch.equal(read.state_dict()["blocks.0.attn.qkv.bias"], bias)
    for to, output in (("timm", "timm.safetensors"), ("huggingface", "folder")):
        with pytest.raises(WeightsError, match="bias of the keys that is not 0.*qkv_bias=full"):
            convert(str(tmp_path / "own.safetensors"), to=to, output=tmp_path / output)
    masked = VisionTransformer(config.model_copy(update={"qkv_bias": "masked"}))
    with pytest.raises(WeightsError, match="model.qkv_bias=masked leaves out; set it to full"):
        load_weights(masked, str(tmp_path / "own.safetensors"))
