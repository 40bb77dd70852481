from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import ViTConfig as TheirConfig
from transformers import ViTModel

from curate.errors import ConfigError, WeightsError
from curate.models.backbones.load import load_backbone
from curate.models.convert.convert import convert
from curate.models.convert.own_vit import as_own_vit
from curate.models.convert.source import LoadedBackbone, load_source, resized
from curate.models.convert.to_huggingface import preprocessor
from curate.models.convert.to_onnx import declare
from curate.models.files.export import write_export
from curate.models.nets.config import ViTConfig
from curate.models.nets.tower import TimmTower
from curate.models.nets.vit import VisionTransformer
from tests.models.convert.registered import add_clip, clip_file, randomized, timm_file

TINY = {"embed_dim": 64, "depth": 2, "num_heads": 2, "img_size": 64}


def images(size: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def assert_same_features(found: LoadedBackbone, model: str, weights: str | None) -> None:
    """Of the network to train and of the registry's, on the pictures that the registry makes."""
    known = load_backbone(model, weights=weights, device="cpu", precision="fp32")
    x = images(known.preprocess.size)
    torch.testing.assert_close(found.network(x), known.module(x), rtol=1e-5, atol=1e-5)
    assert found.network.config.dim == known.dim
    how, info = known.preprocess, found.info
    assert (info.image_size, info.resize, info.short_edge) == (how.size, how.resize, how.short_edge)
    assert (info.mean, info.std, info.interpolation) == (how.mean, how.std, how.interpolation)
    assert info.license == known.license


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("deit_tiny_patch16_224", True),
        ("deit_tiny_distilled_patch16_224", False),  # two tokens are averaged
        ("test_vit", True),
        ("test_vit2", False),
        ("test_vit3", False),
        ("test_vit4", False),
        ("test_efficientnet", False),
        ("test_convnext", False),
        ("test_resnet", False),
    ],
)
def test_models_of_timm_give_what_they_gave(tmp_path: Path, name: str, ours: bool) -> None:
    weights = timm_file(tmp_path, name)
    found = load_source(f"timm/{name}", weights=weights)
    assert isinstance(found.network, VisionTransformer) == ours
    assert_same_features(found, f"timm/{name}", weights)
    tower = load_source(f"timm/{name}", weights=weights, own=False)
    assert isinstance(tower.network, TimmTower)
    assert_same_features(tower, f"timm/{name}", weights)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_base_patch16_224", {}),
        ("vit_base_patch16_224", {"qkv_bias": False, "reg_tokens": 3}),  # positions of registers too
        ("deit3_small_patch16_224", {}),  # LayerScale, and no position of cls
        ("vit_small_patch14_dinov2", {"img_size": 56}),
        ("vit_small_patch14_reg4_dinov2", {"img_size": 56}),
        ("vit_giant_patch14_dinov2", {"img_size": 56, "mlp_ratio": 4}),
        ("vit_small_patch16_dinov3_qkvb", {"global_pool": "token"}),
    ],
)
@torch.no_grad()
def test_vits_that_compute_the_same_become_ours(name: str, options: dict[str, Any]) -> None:
    net = randomized(timm.create_model(name, num_classes=0, dynamic_img_size=True, **TINY | options)).eval()
    size = (TINY | options)["img_size"]
    ours = as_own_vit(net, size=size, where=name)
    assert ours is not None
    for side in (size, size // 2, 2 * size):  # positions are resampled as timm does
        x = images(side)
        torch.testing.assert_close(ours(x), net(x), rtol=1e-5, atol=1e-5)
    trained = ours.train()
    assert trained.mask_token.shape == (1, 64)


@pytest.mark.parametrize(
    "options",
    [
        {"act_layer": "quick_gelu"},
        {"act_layer": "gelu_tanh"},
        {"pre_norm": True},
        {"qk_norm": True},
        {"global_pool": "avg"},
        {"class_token": False, "global_pool": "avg"},
        {"final_norm": False},
    ],
)
def test_vits_that_compute_otherwise_stay_as_they_are(options: dict[str, Any]) -> None:
    net = randomized(timm.create_model("vit_base_patch16_224", num_classes=0, **TINY, **options)).eval()
    assert as_own_vit(net, size=64, where="x") is None


@pytest.mark.parametrize(
    ("name", "vision"),
    [
        ("small", {}),
        ("quick", {"quick": True}),
        ("scaled", {"ls_init_value": 0.5}),
        ("bare", {"no_ln_pre": True}),
        ("siglip", {"dim": 96, "timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": "none"}),
        ("convnext", {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear"}),
    ],
)
def test_towers_of_open_clip_keep_their_projection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, vision: dict[str, Any]
) -> None:
    add_clip(name, monkeypatch, **vision, **({"image_size": 160} if "timm_model_name" in vision else {}))
    weights = clip_file(tmp_path, name)
    found = load_source(f"open_clip/{name}", weights=weights)
    assert isinstance(found.network, TimmTower)
    assert_same_features(found, f"open_clip/{name}", weights)
    with torch.no_grad():
        tokens = found.network.forward_features(images(found.info.image_size))
    assert tokens.patches.shape[-1] == tokens.cls.shape[-1] == found.network.dim
    export = write_export(tmp_path / "own.safetensors", found.network, found.info)
    assert_same_features(load_source(str(export)), f"open_clip/{name}", weights)
    convert(str(export), "timm", output=tmp_path / "timm.safetensors")  # compares what timm makes of it


def test_a_tower_of_open_clip_that_timm_lacks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_clip("pooling", monkeypatch, attentional_pool=True, attn_pooler_heads=2)
    with pytest.raises(ConfigError, match="open_clip/pooling: cannot be trained on"):
        load_source("open_clip/pooling", weights=clip_file(tmp_path, "pooling"))
    add_clip("mean", monkeypatch, pool_type="avg")
    with pytest.raises(ConfigError, match="open_clip/mean: cannot be trained on, since vit_base_patch16_clip_224"):
        load_source("open_clip/mean", weights=clip_file(tmp_path, "mean"))


def test_lite0_is_timms_network_with_every_tensor() -> None:
    found = load_source("lite0")
    assert isinstance(found.network, TimmTower)
    assert_same_features(found, "lite0", None)


@pytest.mark.parametrize("told", [True, False])
@torch.no_grad()
def test_a_vit_of_hugging_face_gives_what_it_gave(tmp_path: Path, told: bool) -> None:
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 96}
    theirs = randomized(ViTModel(TheirConfig(**shape, image_size=48, patch_size=16))).eval()
    theirs.save_pretrained(tmp_path)
    if not told:
        (tmp_path / "config.json").unlink()
    found = load_source(str(tmp_path))
    assert isinstance(found.network.config, ViTConfig)
    assert found.network.config.norm_eps == 1e-12
    x = images(48)
    features = found.network.forward_features(x)
    known = theirs(x).last_hidden_state
    torch.testing.assert_close(features.cls, known[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(features.patches, known[:, 1:], rtol=1e-5, atol=1e-5)
    larger = theirs(images(80), interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(found.network(images(80)), larger[:, 0], rtol=1e-4, atol=1e-4)


def test_a_vit_of_hugging_face_that_is_computed_otherwise_is_refused(tmp_path: Path) -> None:
    shape = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 96}
    theirs = ViTModel(TheirConfig(**shape, image_size=32, patch_size=16, hidden_act="relu"))
    theirs.save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="hidden_act is 'relu', 'gelu' is what such a ViT"):
        load_source(str(tmp_path))
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace("1e-12", '"small"'))
    with pytest.raises(WeightsError, match="layer_norm_eps is 'small', a number above 0"):
        load_source(str(tmp_path))
    state = {name: value for name, value in theirs.state_dict().items() if "cls_token" not in name}
    save_file({"encoder.layer.0.layernorm_before.weight": torch.ones(4), **state}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="embeddings.cls_token is missing; is the file complete"):
        load_source(str(tmp_path))


@pytest.mark.parametrize("model", ["sscd", "pixels16", "luma24", "lite0-copy", "./net.py:NET"])
def test_models_that_embed_alone_are_told_from_those_that_can_be_trained_on(model: str) -> None:
    with pytest.raises(WeightsError, match=r"nor a model that can be trained on; .* lite0, timm/NAME, open_clip/ARCH"):
        load_source(model)


def test_a_model_of_timm_without_one_map_of_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="timm/test_mobilenet.* no such model"):
        load_source("timm/test_mobilenet")
    with pytest.raises(ConfigError, match="mobilenetv3_small_050: cannot be trained on: .*pools to 1024 dims"):
        load_source("timm/mobilenetv3_small_050", weights=timm_file(tmp_path, "mobilenetv3_small_050"))


def test_weights_beside_a_file_are_refused(tmp_path: Path) -> None:
    weights = timm_file(tmp_path, "test_vit")
    with pytest.raises(ConfigError, match="no id of a model, so that it has no weights beside it"):
        load_source(weights, weights=weights)
    with pytest.raises(WeightsError, match=r"give the id of its model, timm/NAME, and this file as init_weights"):
        load_source(weights)


def test_pictures_that_are_squeezed_are_so_in_every_format(tmp_path: Path) -> None:
    shape = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 96}
    ViTModel(TheirConfig(**shape, image_size=32, patch_size=16)).save_pretrained(tmp_path / "theirs")
    found = resized(load_source(str(tmp_path / "theirs")), 32)
    assert (found.info.resize, found.info.short_edge) == ("square", 32)
    how = load_backbone(str(write_export(tmp_path / "own.safetensors", found.network, found.info))).preprocess
    assert (how.resize, how.size) == ("square", 32)
    assert declare(found, data=()).input.preprocess().resize == "square"
    told = preprocessor(found.info)
    assert (told["size"], told["do_center_crop"]) == ({"height": 32, "width": 32}, False)
