from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from curate.errors import ConfigError, WeightsError
from curate.models.convert import to_hub
from curate.models.convert.convert import convert
from curate.models.convert.source import load_source
from curate.models.files.header import timm_equivalent
from curate.models.files.heads import describe_heads, read_heads, to_hub_heads, write_heads
from curate.models.nets.config import vit_config
from curate.models.nets.vit import VisionTransformer
from curate.trainer.heads import PrototypeHead
from tests.models.convert.backbones import VARIANTS, add_heads, convnext, export, pictures, vit


@pytest.mark.parametrize(("num_registers", "ffn"), VARIANTS)
@torch.no_grad()
def test_timm_reads_the_official_names(num_registers: int, ffn: str, tmp_path: Path) -> None:
    network = vit(num_registers, ffn)
    path = convert(export(tmp_path, network), "hub").path
    name, kwargs = timm_equivalent(network.config)
    theirs = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, **kwargs).eval()
    torch.testing.assert_close(theirs(pictures()), network(pictures()), rtol=1e-5, atol=1e-5)


def test_the_file_holds_tensors_alone_under_the_official_names(tmp_path: Path) -> None:
    path = convert(export(tmp_path, vit(4, "swiglu")), "hub").path
    state = torch.load(path, weights_only=True)
    shapes = {key: tuple(value.shape) for key, value in state.items() if not key.startswith("blocks.1.")}
    assert shapes == {
        "cls_token": (1, 1, 64),
        "pos_embed": (1, 17, 64),
        "register_tokens": (1, 4, 64),
        "mask_token": (1, 64),
        "patch_embed.proj.weight": (64, 3, 14, 14),
        "patch_embed.proj.bias": (64,),
        "blocks.0.norm1.weight": (64,),
        "blocks.0.norm1.bias": (64,),
        "blocks.0.attn.qkv.weight": (192, 64),
        "blocks.0.attn.qkv.bias": (192,),
        "blocks.0.attn.proj.weight": (64, 64),
        "blocks.0.attn.proj.bias": (64,),
        "blocks.0.ls1.gamma": (64,),
        "blocks.0.norm2.weight": (64,),
        "blocks.0.norm2.bias": (64,),
        "blocks.0.mlp.w12.weight": (352, 64),
        "blocks.0.mlp.w12.bias": (352,),
        "blocks.0.mlp.w3.weight": (64, 176),
        "blocks.0.mlp.w3.bias": (64,),
        "blocks.0.ls2.gamma": (64,),
        "norm.weight": (64,),
        "norm.bias": (64,),
    }


@torch.no_grad()
def test_heads_make_a_training_checkpoint(tmp_path: Path) -> None:
    heads = add_heads(tmp_path, "dino_head", "ibot_head")
    network = vit()
    path = convert(export(tmp_path, network), "hub", heads=True).path
    teacher = torch.load(path, weights_only=True)["teacher"]
    assert torch.equal(teacher["backbone.pos_embed"], network.pos_embed)
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(2))
    for name, head in heads.items():
        last = nn.utils.parametrizations.weight_norm(nn.Linear(8, 30, bias=False))
        last.load_state_dict({f"weight_{part}": teacher[f"{name}.last_layer.weight_{part}"] for part in "gv"})
        torch.testing.assert_close(last(F.normalize(head.mlp(x), dim=-1)), head(x), rtol=1e-5, atol=1e-5)
    info, state = read_heads(path)
    ours_info, ours = read_heads(tmp_path / "heads.safetensors")
    assert info == ours_info.model_copy(update={"provenance": {}})
    assert state.keys() == ours.keys()
    assert all(torch.equal(state[key], value) for key, value in ours.items())
    again = load_source(str(path), heads=True)
    assert again.heads is not None
    assert torch.equal(again.network(pictures()), network(pictures()))


def test_heads_that_score_otherwise_are_refused(tmp_path: Path) -> None:
    add_heads(tmp_path, "dino_head")
    info, state = read_heads(tmp_path / "heads.safetensors")
    teacher = to_hub_heads(state)
    to_hub.check_heads(teacher, (info, state), where="x")
    teacher["dino_head.last_layer.weight_g"] = teacher["dino_head.last_layer.weight_g"] + 0.1
    with pytest.raises(WeightsError, match="x: under torch's weight norm scores of dino_head differ by"):
        to_hub.check_heads(teacher, (info, state), where="x")


def test_the_released_models_are_told_by_their_shape(tmp_path: Path) -> None:
    assert to_hub.released_as(vit_config("vit_large_reg4", image_size=224)) == "dinov2_vitl14_reg"
    assert to_hub.released_as(vit().config) is None
    small = VisionTransformer(vit_config("vit_small", image_size=28))
    told = to_hub.hub_howto(load_source(export(tmp_path, small)), Path("a.pth"))
    assert told.startswith('torch.hub.load("facebookresearch/dinov2", "dinov2_vits14", pretrained=False, img_size=28)')
    other = to_hub.hub_howto(load_source(export(tmp_path, vit())), Path("a.pth"))
    assert "no released size" in other


def test_a_timm_model_has_no_counterpart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no counterpart in torch.hub's DINOv2 or DINOv3; choose timm, onnx or"):
        convert(export(tmp_path, convnext()), "hub")


@torch.no_grad()
def test_plain_prototypes_make_a_training_checkpoint_too(tmp_path: Path) -> None:
    head = PrototypeHead(64, 30, hidden=20, bottleneck=8, linear=True)
    state = {f"dino_head.{key}": value for key, value in head.state_dict().items()}
    write_heads(tmp_path / "heads.safetensors", state, describe_heads(state, where="test"))
    path = convert(export(tmp_path, vit()), "hub", heads=True).path
    teacher = torch.load(path, weights_only=True)["teacher"]
    assert torch.equal(teacher["dino_head.last_layer.weight"], head.last_layer.weight)
    assert read_heads(path)[0].heads["dino_head"].last_layer == "linear"
