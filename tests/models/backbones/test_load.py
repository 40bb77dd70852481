import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from torch import nn
from torch.nn.functional import normalize
from transformers import Dinov2Config, Dinov2Model

from curate import registry
from curate.errors import ConfigError, WeightsError
from curate.models.backbones import clip, dinov2, timm_models
from curate.models.backbones.backbone import Backbone
from curate.models.backbones.load import describe, known_models, load_backbone
from curate.models.files import formats
from curate.models.files.digest import hash_file
from curate.models.files.export import write_export
from curate.models.files.header import ExportInfo
from curate.models.files.state_dict import read_state_dict
from curate.models.files.weights import find_weight_file
from curate.models.nets.config import PRESETS, vit_config
from curate.models.nets.vit import VisionTransformer
from tests.models.backbones.onnx_models import save_onnx

ROOT = Path(__file__).parents[3]


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small DINOv2 with one block, so that its checkpoints are quick to make."""
    monkeypatch.setitem(PRESETS, "vit_small", PRESETS["vit_small"] | {"depth": 1})


def pixels(size: int, count: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def normalized(batch: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    how = backbone.preprocess
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (how.mean, how.std))
    return (batch / 255 - mean) / std


def save_dinov2(form: str, path: Path) -> tuple[Path, VisionTransformer]:
    vit = VisionTransformer(vit_config("vit_small", image_size=224)).eval()
    state = dict(vit.state_dict())
    if form == "hub":
        torch.save(state, path / "hub.pth")
        return path / "hub.pth", vit
    if form == "timm":
        torch.save(formats.to_timm(state), path / "timm.bin")
        return path / "timm.bin", vit
    theirs = Dinov2Model(Dinov2Config(hidden_size=384, num_hidden_layers=1, num_attention_heads=6, image_size=224))
    theirs.save_pretrained(path)
    vit.load_state_dict(formats.to_hub(read_state_dict(path)))
    return path, vit


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("form", ["hub", "timm", "huggingface"])
@pytest.mark.parametrize("name", ["dinov2_vits14", "vit_small_patch14_dinov2.lvd142m"])
def test_dinov2_loads_from_each_format(form: str, name: str, tmp_path: Path) -> None:
    weights, vit = save_dinov2(form, tmp_path)
    backbone = load_backbone(name, weights=str(weights), device="cpu", precision="fp32")
    batch = pixels(224)
    with torch.no_grad():
        expected = normalize(vit(normalized(batch, backbone)), dim=1)
    torch.testing.assert_close(backbone.embed(batch), expected, rtol=1e-4, atol=1e-5)
    assert (backbone.model, backbone.dim, backbone.license) == ("dinov2_vits14", 384, "Apache-2.0")
    assert backbone.weights_hash == hash_file(find_weight_file(weights))


@pytest.mark.usefixtures("shallow")
def test_dinov2_refuses_weights_of_another_size(tmp_path: Path) -> None:
    vit = VisionTransformer(vit_config("vit_tiny", depth=1, image_size=224))
    torch.save(vit.state_dict(), tmp_path / "tiny.pth")
    with pytest.raises(WeightsError, match=r"dinov2_vits14: .*tiny.pth: does not fit the model: .* \(1, 1, 192\)"):
        load_backbone("dinov2_vits14", weights=str(tmp_path / "tiny.pth"), device="cpu")
    state = vit.state_dict() | {"pos_embed": torch.zeros(1, 13, 192)}
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match="position embeddings for 12 patches, a square grid is needed"):
        load_backbone("dinov2_vits14", weights=str(tmp_path / "odd.pth"), device="cpu")


@pytest.mark.parametrize("model", dinov2.MODELS)
def test_dinov2_ids_have_the_dims_of_their_timm_twins(model: str) -> None:
    name = dinov2.timm_name(model)
    with torch.device("meta"):
        twin = timm.create_model(name, num_classes=0)
    assert describe(f"{name}.lvd142m").model == describe(name).model == model
    assert describe(model).dim == twin.num_features
    assert f"timm/{name}.lvd142m" in describe(model).how_to_get


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_timm_models_give_their_pooled_features(name: str, tmp_path: Path) -> None:
    model = timm.create_model(name).eval()
    torch.save(model.state_dict(), tmp_path / "model.pth")
    backbone = load_backbone(f"timm/{name}", weights=str(tmp_path / "model.pth"), device="cpu", precision="fp32")
    batch = pixels(backbone.preprocess.size)
    model.reset_classifier(0)
    with torch.no_grad():
        expected = model(normalized(batch, backbone))
    assert backbone.dim == expected.shape[1]
    torch.testing.assert_close(backbone.embed(batch), normalize(expected, dim=1), rtol=1e-4, atol=1e-5)


def test_timm_weights_that_are_incomplete_are_refused(tmp_path: Path) -> None:
    state = timm.create_model("resnet18").state_dict()
    del state["layer1.0.conv1.weight"]
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(WeightsError, match=r"timm/resnet18: .*does not fit the model: .*layer1.0.conv1.weight"):
        load_backbone("timm/resnet18", weights=str(tmp_path / "model.pth"), device="cpu")


def test_open_clip_embeds_pictures_and_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = open_clip.get_model_config("ViT-B-32")
    small["vision_cfg"] |= {"layers": 1, "width": 64, "head_width": 32, "image_size": 64}
    small["text_cfg"] |= {"layers": 1, "width": 64, "heads": 2}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", small)
    reference = open_clip.create_model("ViT-B-32", pretrained=None).eval()
    torch.save(reference.state_dict(), tmp_path / "clip.pt")
    backbone = load_backbone("open_clip/ViT-B-32", weights=str(tmp_path / "clip.pt"), device="cpu", precision="fp32")
    batch, texts = pixels(64), ["a photo of a cat", "a windmill"]
    with torch.no_grad():
        images = normalize(reference.encode_image(normalized(batch, backbone)), dim=1)
        words = normalize(reference.encode_text(open_clip.get_tokenizer("ViT-B-32")(texts)), dim=1)
    assert backbone.dim == 512
    torch.testing.assert_close(backbone.embed(batch), images, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(backbone.embed_text(texts), words, rtol=1e-4, atol=1e-5)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"open_clip/ViT-B-32: .*other.pt: does not fit the model"):
        load_backbone("open_clip/ViT-B-32", weights=str(tmp_path / "other.pt"), device="cpu")


def test_open_clip_ids_are_checked() -> None:
    info = describe("open_clip/ViT-B-32:openai")
    assert (info.dim, info.license, info.preprocess.size) == (512, "MIT", 224)
    assert "add a released tag" in describe("open_clip/ViT-B-32").how_to_get
    with pytest.raises(ConfigError, match="no such architecture; did you mean open_clip/ViT-B-32"):
        describe("open_clip/ViT-B-33")
    with pytest.raises(ConfigError, match=r"no released weights 'laion'; known are: .*openai"):
        describe("open_clip/ViT-B-32:laion")


class Descriptor(nn.Module):
    """Stands in for SSCD: pictures to `dim` channels, of any length."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, 32, 32)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.proj(images).mean((2, 3))


def save_script(dim: int, path: Path) -> nn.Module:
    model = Descriptor(dim).eval()
    torch.jit.save(torch.jit.script(model), path)
    return model


def test_sscd_runs_a_torchscript_file(tmp_path: Path) -> None:
    model = save_script(512, tmp_path / "sscd.torchscript.pt")
    backbone = load_backbone("sscd", weights=str(tmp_path / "sscd.torchscript.pt"), device="cpu")
    assert (backbone.dim, backbone.precision, backbone.preprocess.size) == (512, "fp32", 320)
    batch = pixels(320)
    with torch.no_grad():
        expected = normalize(model(normalized(batch, backbone)), dim=1)
    torch.testing.assert_close(backbone.embed(batch), expected, rtol=1e-4, atol=1e-5)


def test_sscd_refuses_other_files(tmp_path: Path) -> None:
    save_script(1024, tmp_path / "large.pt")
    large = load_backbone("sscd", weights=str(tmp_path / "large.pt"), device="cpu")
    with pytest.raises(WeightsError, match=r"sscd: these weights give features of shape \(2, 1024\), .* 512\)"):
        large.embed(pixels(320))
    torch.save({"weight": torch.zeros(1)}, tmp_path / "state.pt")
    with pytest.raises(WeightsError, match=r"state.pt: not a TorchScript file .*sscd_disc_mixup"):
        load_backbone("sscd", weights=str(tmp_path / "state.pt"), device="cpu")
    with pytest.raises(WeightsError, match="sscd: its weights are not on this machine; set `weights` to the URL"):
        load_backbone("sscd", device="cpu")


def test_absent_weights_have_no_hash() -> None:
    info = describe("sscd")
    assert not info.weights_present
    with pytest.raises(WeightsError, match="sscd: its weights are not on this machine; set `weights`"):
        _ = info.weights_hash


def test_pictures_alone_have_no_texts() -> None:
    with pytest.raises(ConfigError, match="lite0: has no text side; use an open_clip model"):
        load_backbone("lite0", device="cpu").embed_text(["a cat"])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("dinov2_vits15", "model: 'dinov2_vits15' is not known; did you mean 'dinov2_vits14'"),
        ("zzz", "model: 'zzz' is not known; known are: lite0, .*timm/NAME, open_clip/NAME"),
        ("timm/resnet19", "timm/resnet19: timm has no such model; did you mean timm/resnet"),
        ("timm/resnet18.nope", "timm/resnet18.nope: .*known are: .*resnet18.a1_in1k"),
    ],
)
def test_unknown_models_name_the_nearest(model: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        describe(model)


def test_known_models_can_be_listed_without_any_weights() -> None:
    known = {info.model: info for info in known_models()}
    assert {"lite0", "sscd", "sscd-int8", *dinov2.MODELS} <= known.keys()
    assert known["lite0"].weights_present
    for info in known.values():
        assert info.dim > 0
        assert info.license
        assert info.how_to_get


def test_models_are_not_built_to_be_described(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("parameters were filled")

    monkeypatch.setattr(torch.nn.init, "trunc_normal_", fail)
    assert describe("dinov2_vitg14").dim == 1536


def test_models_of_other_input_are_refused() -> None:
    data = {"input_size": (1, 128, 1024), "crop_mode": "center", "crop_pct": 1.0, "interpolation": "bicubic"}
    with pytest.raises(ConfigError, match="timm/x: takes 1 x 128 x 1024; square RGB input is needed"):
        timm_models._timm_preprocess("timm/x", data)
    with pytest.raises(ConfigError, match=r"open_clip/x: takes pictures of \[224, 448\]; square input is needed"):
        clip._clip_preprocess("open_clip/x", [224, 448], {})


def test_timm_preprocessing_follows_its_own_config() -> None:
    how = describe("timm/convnext_tiny.fb_in22k").preprocess
    assert (how.size, how.short_edge, how.resize, how.interpolation) == (224, 256, "short_edge_crop", "bicubic")
    assert describe("timm/vit_small_patch14_dinov2.lvd142m").preprocess.size == 518


PLUGIN = """
from curate.models.files.weights import locate
from curate.models.info import ModelInfo
from curate.ops.images.preprocess import Preprocess

HOW = Preprocess(size=8, resize="square", short_edge=8, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1))

class Means:
    def describe(self, model, weights, *, fetch):
        return ModelInfo(model, dim=3, license="CC0", preprocess=HOW, how_to_get="", has_weights=False)

    def build(self, info):
        from torch import nn
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

means = Means()

class Half:
    describe = means.describe

class Wrong(Means):
    def describe(self, model, weights, *, fetch):
        return {"dim": 3}

wrong = Wrong()
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "means.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("model", ["./means.py:means", "means:means"])
def test_a_backbone_of_a_file_or_package_embeds(model: str) -> None:
    backbone = load_backbone(model, device="cpu")
    batch = pixels(8)
    expected = normalize(batch.float().mean((2, 3)), dim=1)
    torch.testing.assert_close(backbone.embed(batch), expected)
    assert (backbone.model, backbone.dim, backbone.license, backbone.weights_hash) == (model, 3, "CC0", "")


@pytest.mark.usefixtures("plugin")
def test_an_installed_package_adds_names(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("channel_means", "means:means", "curate.backbones")
    monkeypatch.setattr(registry, "entry_points", lambda *, group: EntryPoints([point] if group == point.group else []))
    assert describe("channel_means").dim == 3
    assert "channel_means" in {info.model for info in known_models()}


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("means:Half", "model: 'means:Half': no backbone, since it has no build"),
        ("means:HOW", "no backbone, since it has no describe and no build"),
        ("means:wrong", r"model: 'means:wrong': its describe\(\) gave a dict, a ModelInfo is needed"),
        ("means:maens", "model: 'means:maens': has no attribute 'maens'; did you mean 'means'"),
    ],
)
def test_plugins_that_are_no_backbones_are_refused(model: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        describe(model)


def test_facts_are_told_without_torch(tmp_path: Path) -> None:
    vit = VisionTransformer(vit_config("vit_tiny", depth=1, image_size=56))
    path = write_export(tmp_path / "vit.safetensors", vit, ExportInfo(image_size=56, short_edge=64))
    code = """
import sys
from curate.models import device, thresholds
from curate.models.backbones.load import BUILT_IN, describe
by_file = {"curate": sys.argv[1], "onnx": sys.argv[2]}
facts = {m: describe(m, by_file.get(m)) for m in BUILT_IN if not m.endswith("/NAME")}
assert (facts["curate"].dim, facts["onnx"].dim) == (192, 4)
hashes = [info.weights_hash for info in facts.values() if info.weights_present]
assert len(hashes) >= 5
heavy = {"torch", "timm", "open_clip", "dask", "transformers", "onnx", "onnxruntime"}
print(*heavy & sys.modules.keys())
"""
    graph = save_onnx(tmp_path / "graph.onnx")
    done = subprocess.run(
        [sys.executable, "-c", code, path, graph], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    "model",
    ["timm/hf-hub:owner/name", "timm/local-dir:/etc", "timm/resnet18.hf-hub:owner/name", "timm/../resnet18", "timm/",
     "open_clip/hf-hub:owner/name", "open_clip/local-dir:/etc"],
)  # fmt: skip
def test_names_of_backbones_lead_to_no_other_place(model: str) -> None:
    with pytest.raises(ConfigError, match="has no such (model|architecture)|no released weights"):
        describe(model, fetch=True)
