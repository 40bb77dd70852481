import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from curate.config import parse
from curate.errors import ConfigError, WeightsError, WorkdirError
from curate.models.nets.config import vit_config
from curate.models.nets.vit import VisionTransformer
from curate.trainer.config import TrainConfig
from curate.trainer.given_backbone import load_weights
from curate.trainer.train import train
from tests.feed.shards import write_shards

MODEL = {"preset": "tiny", "patch_size": 8, "depth": 2, "drop_path": 0.0}
NO_LOCAL = {"global_size": 32, "local_size": 16, "num_local": 0}
TINY = {
    "model": MODEL,
    "crops": {"global_size": 32, "local_size": 16, "num_local": 1},
    "objective": {"prototypes": 32, "head_hidden": 32, "head_bottleneck": 16},
    "optimizer": {"base_lr": 4e-3, "warmup_iterations": 0},
    "batch_size": 4,
    "iterations": 2,
    "precision": "fp32",
    "device": "cpu",
    "workers": 0,
}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A finished training: its folder, and what the tests vary."""
    root = tmp_path_factory.mktemp("first")
    write_shards(root / "shards")
    train(parse(TrainConfig, {**TINY, "shards": str(root / "shards"), "output": str(root / "run")}, where="test"))
    return root / "run"


def go_on(first, output, **changes):
    values = {**TINY, "shards": str(first.parent / "shards"), "output": str(output), **changes}
    return train(parse(TrainConfig, values, where="test"))


def start_of(result):
    return load_file(result.initial)


def test_a_run_starts_from_the_weights_of_another_and_its_heads(first, tmp_path):
    backbone, heads = str(first / "backbone.safetensors"), str(first / "heads.safetensors")
    result = go_on(first, tmp_path / "run", init_from=backbone, init_heads=heads, iterations=1)
    for name, value in load_file(backbone).items():
        assert torch.equal(start_of(result)[name], value), name
    moved, before = load_file(result.export.with_name("heads.safetensors")), load_file(heads)
    gap = max((moved[name] - before[name]).abs().max() for name in before)
    assert 0 < gap < 1e-3  # one iteration of the teacher's average away


def test_fresh_heads_warm_up_while_the_backbone_stands_still(first, tmp_path):
    optimizer = {**TINY["optimizer"], "freeze_backbone_iterations": 2}
    backbone = str(first / "backbone.safetensors")
    result = go_on(first, tmp_path / "run", init_from=backbone, optimizer=optimizer)
    for name, value in load_file(backbone).items():
        assert torch.equal(load_file(result.export)[name], value), name
    assert result.log[-1]["gradient_norm_backbone"] == 0 < result.log[-1]["gradient_norm_dino_head"]


def test_positions_follow_a_larger_crop(first, tmp_path):
    """The high-resolution phase: the same weights at twice the side."""
    crops = {**TINY["crops"], "global_size": 64}
    backbone = str(first / "backbone.safetensors")
    result = go_on(first, tmp_path / "run", init_from=backbone, crops=crops, iterations=1)
    assert start_of(result)["pos_embed"].shape == (1, 1 + 64, 192)


@pytest.mark.parametrize("registers", [0, 4])
def test_released_weights_in_timms_names_start_a_run(tmp_path, registers):
    reg = "_reg4" if registers else ""
    peer = timm.create_model(
        f"vit_small_patch14{reg}_dinov2", img_size=56, embed_dim=128, depth=2, num_heads=2, num_classes=0
    )
    save_file(peer.state_dict(), tmp_path / "released.safetensors")
    shape = {"dim": 128, "heads": 2, "depth": 2, "num_registers": registers}
    ours = VisionTransformer(vit_config("vit_small", **shape, image_size=56))
    load_weights(ours, str(tmp_path / "released.safetensors"))
    pictures = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(pictures), peer.eval()(pictures), atol=1e-5, rtol=1e-5)


def test_weights_of_another_model_are_refused(first, tmp_path):
    with pytest.raises(WeightsError, match=r"backbone.safetensors: does not fit the model"):
        go_on(first, tmp_path, init_from=str(first / "backbone.safetensors"), model={**MODEL, "depth": 3})
    more = {**TINY["objective"], "prototypes": 48}
    with pytest.raises(ConfigError, match="objective.prototypes is 48, the given heads have 32"):
        go_on(first, tmp_path, init_heads=str(first / "heads.safetensors"), objective=more)


def test_heads_for_an_objective_without_are_refused(first, tmp_path):
    with pytest.raises(ConfigError, match="init_heads=.*this objective has no prototype heads; leave it out"):
        go_on(first, tmp_path, init_heads=str(first / "heads.safetensors"), objective="sit", crops=NO_LOCAL)


def test_a_model_id_that_is_not_known_is_an_error(first, tmp_path):
    with pytest.raises(WeightsError, match="dinov2_vitz14: no such file or folder, nor a model that can be trained on"):
        go_on(first, tmp_path, init_from="dinov2_vitz14")


def test_other_weights_to_start_from_are_another_run(first, tmp_path):
    copy = tmp_path / "start.safetensors"
    copy.write_bytes((first / "backbone.safetensors").read_bytes())
    go_on(first, tmp_path / "run", init_from=str(copy), iterations=1)
    copy.write_bytes((first / "backbone-init.safetensors").read_bytes())
    with pytest.raises(WorkdirError, match="belongs to another run: origins.init_from was"):
        go_on(first, tmp_path / "run", init_from=str(copy), iterations=1)


def test_a_smaller_student_distills_a_frozen_teacher(first, tmp_path):
    given = {**TINY["objective"], "prototypes": "auto", "distill_from": str(first)}
    small = {**MODEL, "depth": 1}
    result = go_on(first, tmp_path / "run", model=small, objective=given, iterations=3)
    assert result.effective.prototypes == 32  # those of the teacher's heads
    assert all(row["loss_ibot"] > 0 for row in result.log)
    names = load_file(result.export)
    assert "blocks.0.norm1.weight" in names
    assert "blocks.1.norm1.weight" not in names  # the product is the student's average, not the teacher
    again = go_on(first, tmp_path / "run", model=small, objective=given, iterations=3)
    assert again.log == result.log


def test_distillation_without_heads_says_what_is_missing(first, tmp_path):
    lone = tmp_path / "backbone.safetensors"
    lone.write_bytes((first / "backbone.safetensors").read_bytes())
    with pytest.raises(WeightsError, match=r"objective.distill_from=.*there is no .*heads.safetensors"):
        go_on(first, tmp_path / "run", objective={**TINY["objective"], "distill_from": str(lone)})


UNEQUAL = {"prototypes": 24, "head_hidden": 20, "head_bottleneck": 12, "ibot_head": {"prototypes": 40, "hidden": 28}}


def test_heads_of_unequal_shapes_are_continued_and_distilled(first, tmp_path):
    source = go_on(first, tmp_path / "unequal", objective=UNEQUAL, iterations=1).export.parent
    heads = str(source / "heads.safetensors")
    shapes = {name: tuple(value.shape) for name, value in load_file(heads).items()}
    assert shapes["dino_head.last_layer.direction"] == (24, 12)
    assert shapes["ibot_head.last_layer.direction"] == (40, 12)
    assert shapes["ibot_head.mlp.2.weight"] == (28, 28)
    go_on(first, tmp_path / "on", objective=UNEQUAL, init_heads=heads, iterations=1)
    widths = {"prototypes": "auto", "head_hidden": 20, "head_bottleneck": 12}
    counted = {**widths, "ibot_head": {"hidden": 28}}  # both numbers of prototypes are those of the given heads
    result = go_on(first, tmp_path / "auto", objective=counted, init_heads=heads, iterations=1)
    assert {name: tuple(v.shape) for name, v in load_file(result.export.with_name("heads.safetensors")).items()} == (
        shapes
    )
    result = go_on(first, tmp_path / "small", objective={**widths, "distill_from": str(source)}, iterations=1)
    assert load_file(result.export.with_name("heads.safetensors"))["ibot_head.last_layer.scale"].shape == (40, 1)
    with pytest.raises(WeightsError, match=r"_head has hidden 2[08], bottleneck 12, .*objective's has hidden 32"):
        go_on(first, tmp_path / "wrong", objective={**TINY["objective"], "prototypes": "auto"}, init_heads=heads)
