import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model

from curate.errors import ConfigError, WeightsError
from curate.models.backbones.dinov2 import config_from_weights
from curate.models.convert.source import load_source, need_vit, resized
from curate.models.files import formats
from curate.models.nets.config import PRESETS, vit_config
from curate.models.nets.vit import VisionTransformer
from tests.models.convert.backbones import INFO, VARIANTS, add_heads, convnext, export, pictures, vit


@pytest.mark.parametrize(("num_registers", "ffn"), VARIANTS)
@pytest.mark.parametrize("form", ["hub", "timm", "huggingface"])
@torch.no_grad()
def test_the_architecture_is_told_from_foreign_weights(form: str, num_registers: int, ffn: str, tmp_path: Path) -> None:
    network = vit(num_registers, ffn)
    state = dict(network.state_dict())
    named = {"hub": state, "timm": formats.to_timm(state), "huggingface": formats.to_huggingface(state)}[form]
    save_file(named, tmp_path / "vit.safetensors")
    found = load_source(str(tmp_path / "vit.safetensors"))
    assert found.network.config == network.config
    torch.testing.assert_close(found.network(pictures()), network(pictures()), rtol=0, atol=1e-6)
    assert (found.info.image_size, found.info.short_edge) == (224, 256)  # of DINOv2's own evaluation
    assert found.info.provenance["converted_from"] == "vit.safetensors"


@torch.no_grad()
def test_a_hugging_face_folder_tells_its_attention_heads(tmp_path: Path) -> None:
    shape = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 3, "image_size": 56}
    theirs = Dinov2Model(Dinov2Config(**shape)).eval()
    theirs.save_pretrained(tmp_path)
    found = load_source(str(tmp_path)).network
    torch.testing.assert_close(found(pictures()), theirs(pictures()).pooler_output, rtol=1e-5, atol=1e-5)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"config.json: tells no num_attention_heads"):
        load_source(str(tmp_path))
    (tmp_path / "config.json").unlink()
    with pytest.raises(WeightsError, match="48 dims are no multiple of 64, so the number of attention heads is not"):
        load_source(str(tmp_path))


@torch.no_grad()
def test_a_training_checkpoint_gives_its_backbone(tmp_path: Path) -> None:
    network = vit(4, "swiglu")
    chunked = re.compile(r"^blocks\.")  # both blocks in chunk 0: blocks.0.0.*, blocks.0.1.*
    teacher = {"backbone." + chunked.sub("blocks.0.", key): value for key, value in network.state_dict().items()}
    assert "backbone.blocks.0.1.attn.qkv.weight" in teacher
    torch.save({"teacher": teacher | {"dino_head.mlp.0.bias": torch.zeros(1)}}, tmp_path / "teacher_checkpoint.pth")
    found = load_source(str(tmp_path / "teacher_checkpoint.pth")).network
    assert torch.equal(found(pictures()), network(pictures()))


def test_a_folder_of_the_trainer_is_a_source(tmp_path: Path) -> None:
    export(tmp_path, vit())
    add_heads(tmp_path, "dino_head", "ibot_head")
    found = load_source(str(tmp_path), heads=True)
    assert found.info == INFO
    assert found.heads is not None
    assert found.heads[0].names == ("dino_head", "ibot_head")
    assert not found.network.training


def test_a_model_id_is_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "vit_small", PRESETS["vit_small"] | {"depth": 1})
    small = VisionTransformer(vit_config("vit_small", image_size=28))
    torch.save(small.state_dict(), tmp_path / "small.pth")
    monkeypatch.setattr("curate.models.backbones.dinov2.locate", lambda *_, **__: tmp_path / "small.pth")
    found = load_source("vit_small_patch14_dinov2.lvd142m")
    assert found.network.config == small.config
    assert found.info.license == "Apache-2.0"


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="vitt: no such file or folder, nor a model that can be trained on; "):
        load_source("vitt")
    path = export(tmp_path, vit())
    with pytest.raises(WeightsError, match=r"heads.safetensors is not there; leave --heads out"):
        load_source(path, heads=True)
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="other.pth: not the weights of a DINOv2 or DINOv3 ViT"):
        load_source(str(tmp_path / "other.pth"))
    state = dict(vit().state_dict()) | {"pos_embed": torch.zeros(1, 4, 64)}
    with pytest.raises(WeightsError, match="x: position embeddings for 3 patches, a square grid is needed"):
        config_from_weights(state, where="x")


def test_sizes_that_cannot_be_are_refused(tmp_path: Path) -> None:
    source = load_source(export(tmp_path, vit()))
    with pytest.raises(ConfigError, match="--size 60 is no multiple of its patches of 14 px"):
        resized(source, 60)
    tower = load_source(export(tmp_path / "tower", convnext()))
    assert resized(tower, 96).image_size == 96
    with pytest.raises(ConfigError, match="--size 2: name='convnext_atto'.* does not take it"):
        resized(tower, 2)
    with pytest.raises(ConfigError, match="convnext_atto.* has no counterpart in transformers; choose timm, onnx or"):
        need_vit(tower, "transformers")


def changed(state: dict[str, torch.Tensor], **tensors: torch.Tensor | None) -> dict[str, torch.Tensor]:
    made = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in (state | made).items() if tensor is not None}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"pos_embed": None}, "pos_embed is missing, 3 axes are needed"),
        ({"pos_embed": torch.zeros(5)}, r"pos_embed has shape \(5,\), 3 axes are needed"),
        ({"pos_embed": torch.zeros(1, 1, 64)}, "position embeddings for 0 patches, a square grid is needed"),
        ({"patch_embed__proj__weight": torch.zeros(64)}, r"patch_embed.proj.weight has shape \(64,\), 4 axes"),
        ({"patch_embed__proj__weight": torch.zeros(64, 3, 0, 0)}, "patch_size"),
        ({"register_tokens": torch.zeros(1)}, "register_tokens has shape"),
        ({f"blocks__{i}__x": torch.zeros(1) for i in range(600)}, "depth: Input should be less than or equal to 512"),
        ({f"blocks__{i}__x": torch.zeros(1) for i in range(300)}, "does not fit the model"),
        ({"blocks__0__mlp__w12__weight": torch.zeros(1)}, "does not fit the model"),
    ],
)
def test_foreign_weights_that_do_not_go_together_are_refused(
    change: dict[str, torch.Tensor | None], told: str, tmp_path: Path
) -> None:
    network = VisionTransformer(vit_config("vit_tiny", dim=64, heads=1, depth=1, image_size=28))
    save_file(changed(dict(network.state_dict()), **change), tmp_path / "vit.safetensors")
    with pytest.raises(WeightsError, match=rf"(?s)vit.safetensors: .*{told}"):
        load_source(str(tmp_path / "vit.safetensors"))


@pytest.mark.parametrize(
    ("form", "missing"),
    [
        *(("timm", name) for name in ("pos_embed", "blocks.0.mlp", "cls_token")),
        *(("huggingface", name) for name in ("cls_token", "query", "position", "key.bias")),
    ],
)
def test_formats_with_missing_tensors_are_refused(form: str, missing: str, tmp_path: Path) -> None:
    network = VisionTransformer(vit_config("vit_tiny", dim=64, heads=1, depth=1, image_size=28, num_registers=1))
    convert = {"timm": formats.to_timm, "huggingface": formats.to_huggingface}[form]
    named = convert(dict(network.state_dict()))
    left = {name: tensor for name, tensor in named.items() if missing not in name}
    assert len(left) < len(named)
    save_file(left, tmp_path / "vit.safetensors")
    with pytest.raises(WeightsError, match=r"vit.safetensors: "):
        load_source(str(tmp_path / "vit.safetensors"))


@pytest.mark.parametrize("heads", [0, -3, 2**40, "3", None, 3.0, True, [3]])
def test_attention_heads_of_a_folder_are_a_number_in_range(heads: object, tmp_path: Path) -> None:
    network = VisionTransformer(vit_config("vit_tiny", dim=48, heads=3, depth=1, image_size=28))
    save_file(formats.to_huggingface(dict(network.state_dict())), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": heads}))
    with pytest.raises(WeightsError, match=r"config.json: tells no num_attention_heads of 1 to 1024"):
        load_source(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 5}))
    with pytest.raises(WeightsError, match=r"(?s)no DINOv2 or DINOv3 ViT: .*dim 48 is not a multiple of heads 5"):
        load_source(str(tmp_path))


def test_code_that_a_folder_names_is_not_loaded(tmp_path: Path) -> None:
    network = VisionTransformer(vit_config("vit_tiny", dim=48, heads=3, depth=1, image_size=28))
    save_file(formats.to_huggingface(dict(network.state_dict())), tmp_path / "model.safetensors")
    (tmp_path / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    asked = {"auto_map": {"AutoModel": "modeling.Evil"}, "trust_remote_code": True, "_name_or_path": "owner/name"}
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 3, **asked}))
    assert load_source(str(tmp_path)).network.config == network.config
    assert not (tmp_path / "ran").exists()
