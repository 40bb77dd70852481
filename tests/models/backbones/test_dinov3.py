"""DINOv3's released models as embedders: ids, conventions, and files in all three layouts."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models.convnext import checkpoint_filter_fn
from torch.nn.functional import normalize
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from curate.errors import WeightsError
from curate.models.backbones import dinov3, timm_models
from curate.models.backbones.load import describe, known_models, load_backbone
from curate.models.conventions import CONVENTIONS, timm_pooling
from curate.models.files import convnext_names, dinov3_names
from curate.models.files.export import weights_of
from curate.models.files.state_dict import read_state_dict
from curate.models.nets.config import PRESETS, vit_config
from curate.models.nets.vit import VisionTransformer
from tests.models.nets.dinov3_models import randomize


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small model with one block, so that its checkpoints are quick to make."""
    monkeypatch.setitem(PRESETS, "dinov3_small", PRESETS["dinov3_small"] | {"depth": 1})


def small() -> VisionTransformer:
    network = randomize(VisionTransformer(vit_config("dinov3_small")).eval())
    assert isinstance(network, VisionTransformer)
    return network


def pixels(size: int = 256) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def normalized(batch: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (batch / 255 - mean) / std


@pytest.mark.parametrize("model", dinov3.MODELS)
def test_ids_have_the_shapes_of_their_timm_twins(model: str) -> None:
    released = dinov3.RELEASED[model]
    with torch.device("meta"):
        twin = timm.create_model(released.timm.partition(".")[0], num_classes=0)
        ours = VisionTransformer(vit_config(released.preset)).state_dict()
    assert {n: v.shape for n, v in dinov3_names.to_timm(ours).items()} == {
        name: value.shape for name, value in twin.state_dict().items()
    }
    info = describe(model)
    assert info.model == describe(released.timm).model == model
    assert (info.dim, info.preprocess.size, info.pooling) == (twin.num_features, 256, "cls")
    assert info.license == "DINOv3 License"
    assert dinov3.LICENSE_URL in info.how_to_get
    assert f"timm/{released.timm}" in info.how_to_get
    assert released.huggingface in info.how_to_get
    through_timm = describe(f"timm/{released.timm}")
    assert through_timm.preprocess == info.preprocess == CONVENTIONS[released.family].preprocess
    assert through_timm.pooling == "token"  # timm's word for cls
    told = timm.get_pretrained_cfg(released.timm)
    assert (told.mean, told.std, told.input_size) == (info.preprocess.mean, info.preprocess.std, (3, 256, 256))


def test_names_without_a_tag_mean_the_first_weights() -> None:
    assert dinov3.canonical("vit_large_patch16_dinov3") == "dinov3_vitl16"
    assert dinov3.canonical("vit_large_patch16_dinov3.sat493m") == "dinov3_vitl16_sat493m"
    assert dinov3.canonical("vit_small_patch16_dinov3.sat493m") is None
    assert dinov3.canonical("vit_small_patch14_dinov2") is None


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("form", ["authors", "timm", "huggingface"])
def test_each_format_loads(form: str, tmp_path: Path) -> None:
    network = small()
    convert = {"timm": dinov3_names.to_timm, "huggingface": dinov3_names.to_huggingface}.get(form)
    torch.save(weights_of(network) if convert is None else convert(network.state_dict()), tmp_path / "weights.pth")
    backbone = load_backbone("dinov3_vits16", weights=str(tmp_path / "weights.pth"), device="cpu", precision="fp32")
    with torch.no_grad():
        expected = normalize(network(normalized(pixels())), dim=1)
    torch.testing.assert_close(backbone.embed(pixels()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("shallow")
def test_weights_without_biases_are_a_model_without_them(tmp_path: Path) -> None:
    network = VisionTransformer(vit_config("dinov3_small", qkv_bias="none"))
    torch.save(dinov3_names.to_timm(network.state_dict()), tmp_path / "timm.bin")
    module: Any = load_backbone("dinov3_vits16", weights=str(tmp_path / "timm.bin"), device="cpu").module
    assert module.config.qkv_bias == "none"


@pytest.mark.usefixtures("shallow")
def test_other_models_are_refused(tmp_path: Path) -> None:
    torch.save(VisionTransformer(vit_config("vit_small_reg4", depth=1)).state_dict(), tmp_path / "dinov2.pth")
    with pytest.raises(WeightsError, match=r"dinov2.pth: the weights of a DINOv2 ViT, DINOv3's are needed"):
        load_backbone("dinov3_vits16", weights=str(tmp_path / "dinov2.pth"), device="cpu")
    torch.save(weights_of(small()), tmp_path / "dinov3.pth")
    with pytest.raises(WeightsError, match=r"dinov2_vits14: .*pos_embed is missing"):
        load_backbone("dinov2_vits14", weights=str(tmp_path / "dinov3.pth"), device="cpu")
    with pytest.raises(WeightsError, match=r"dinov3_vitb16: .*does not fit the model: missing .*blocks.1"):
        load_backbone("dinov3_vitb16", weights=str(tmp_path / "dinov3.pth"), device="cpu")


@pytest.fixture
def shallow_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's models with one block."""
    create = timm.create_model
    monkeypatch.setattr(timm_models.timm, "create_model", lambda name, **given: create(name, depth=1, **given))


@pytest.mark.usefixtures("shallow", "shallow_timm")
def test_timm_takes_cls_as_the_authors_do(tmp_path: Path) -> None:
    network = small()
    torch.save(weights_of(network), tmp_path / "dinov3.pth")
    name = "timm/vit_small_patch16_dinov3_qkvb.lvd1689m"
    backbone = load_backbone(name, weights=str(tmp_path / "dinov3.pth"), device="cpu", precision="fp32")
    with torch.no_grad():
        expected = normalize(network(normalized(pixels())), dim=1)
    torch.testing.assert_close(backbone.embed(pixels()), expected, rtol=1e-4, atol=1e-5)
    assert (backbone.info.pooling, backbone.info.license) == ("token", "dinov3-license")
    blocks = backbone.embed_blocks(pixels(), last=4)
    torch.testing.assert_close(normalize(blocks[:, 0], dim=1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("shallow", "shallow_timm")
def test_biases_that_timm_drops_are_an_error(tmp_path: Path) -> None:
    torch.save(weights_of(small()), tmp_path / "dinov3.pth")
    with pytest.raises(WeightsError, match=r"no place for 1 tensors of the file: blocks.0.attn.qkv.bias; .*_qkvb has"):
        load_backbone("timm/vit_small_patch16_dinov3", weights=str(tmp_path / "dinov3.pth"), device="cpu")


@pytest.mark.parametrize("form", ["authors", "timm", "huggingface"])
def test_a_convnext_loads_from_each_format(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dims, depths = (8, 8, 16, 16), (1, 2, 1, 1)
    create = timm.create_model
    small: dict[str, Any] = {"dims": dims, "depths": depths}
    monkeypatch.setattr(timm_models.timm, "create_model", lambda name, **given: create(name, **small, **given))
    theirs = DINOv3ConvNextModel(DINOv3ConvNextConfig(hidden_sizes=list(dims), depths=list(depths))).eval()
    randomize(theirs)
    theirs.save_pretrained(tmp_path)
    state = convnext_names.from_huggingface(read_state_dict(tmp_path))
    path = tmp_path / "other.pth"
    if form == "huggingface":
        path = tmp_path
    elif form == "authors":
        torch.save(state | {f"norms.3.{end}": state[f"norm.{end}"] for end in ("weight", "bias")}, path)
    else:
        net = create("convnext_tiny", **small, num_classes=0)
        torch.save(checkpoint_filter_fn(state, net), path)
    name = "timm/convnext_tiny.dinov3_lvd1689m"
    backbone = load_backbone(name, weights=str(path), device="cpu", precision="fp32")
    with torch.no_grad():
        expected = normalize(theirs(normalized(pixels(backbone.preprocess.size))).pooler_output, dim=1)
    torch.testing.assert_close(backbone.embed(pixels(backbone.preprocess.size)), expected, rtol=1e-4, atol=1e-5)
    assert backbone.license == "dinov3-license"
    del state["stages.1.1.gamma"]
    torch.save(state, path := tmp_path / "damaged.pth")
    with pytest.raises(WeightsError, match=r"damaged.pth: does not fit the model: .*stages.1.blocks.1.gamma"):
        load_backbone(name, weights=str(path), device="cpu")


def test_every_known_model_says_how_it_is_pooled() -> None:
    for info in known_models():
        assert info.pooling, info.model
    assert timm_pooling("vit_base_patch16_dinov3_qkvb.lvd1689m") == {"global_pool": "token"}
    assert timm_pooling("convnext_tiny.dinov3_lvd1689m") == timm_pooling("vit_base_patch16_224") == {}


@pytest.mark.parametrize(("family", "model"), [("dinov2", "dinov2_vits14"), ("sscd", "sscd"), ("lite0", "lite0")])
def test_described_models_follow_the_table(family: str, model: str) -> None:
    info, convention = describe(model), CONVENTIONS[family]
    assert (info.pooling, info.preprocess) == convention
