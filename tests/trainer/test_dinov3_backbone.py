"""A DINOv3 ViT through a training: resumed, on several ranks, exported, converted, continued and distilled."""

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from curate.config import parse
from curate.errors import ConfigError, WeightsError
from curate.models.backbones.load import describe, load_backbone
from curate.models.convert.convert import convert
from curate.models.convert.source import load_source
from curate.models.files import dinov3_names
from curate.models.files.header import timm_equivalent
from curate.models.nets.config import vit_config
from curate.models.nets.vit import VisionTransformer
from curate.trainer.config import ModelSettings, TrainConfig
from curate.trainer.given_backbone import load_weights
from curate.trainer.train import train
from tests.feed.shards import write_shards
from tests.trainer.ranks import train_on_ranks

MODEL = {"preset": "dinov3_tiny", "dim": 64, "heads": 4, "patch_size": 8, "depth": 2, "drop_path": 0.2}
TINY = {
    "model": {**MODEL, "local_norm": True},
    "crops": {"global_size": 32, "local_size": 16, "num_local": 2},
    "objective": {"prototypes": 32, "head_hidden": 32, "head_bottleneck": 16},
    "optimizer": {"base_lr": 4e-3, "warmup_iterations": 1},
    "batch_size": 4,
    "iterations": 4,
    "checkpoint_every": 2,
    "log_every": 1,
    "precision": "fp32",
    "device": "cpu",
    "workers": 0,
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return str(write_shards(tmp_path_factory.mktemp("data") / "shards"))


def run(shards, output, **changes):
    return train(parse(TrainConfig, {**TINY, "shards": shards, "output": str(output), **changes}, where="test"))


@pytest.fixture(scope="module")
def first(shards, tmp_path_factory):
    """A folder with a finished training."""
    folder = tmp_path_factory.mktemp("first") / "run"
    run(shards, folder)
    return folder


def test_a_training_changes_every_tensor_but_the_biases_of_keys(first):
    before, after = (load_file(first / f"backbone{end}.safetensors") for end in ("-init", ""))
    assert before.keys() == after.keys()
    still = {name for name, value in after.items() if torch.equal(value, before[name])}
    assert still == {dinov3_names.PERIODS, *(name for name in after if name.endswith("bias_mask"))}
    for name, value in after.items():
        if name.endswith("attn.qkv.bias"):
            assert not value.chunk(3)[1].any(), name
    assert "local_cls_norm.weight" in after


def test_a_killed_run_draws_the_same_rotations_again(shards, first, tmp_path):
    run(shards, tmp_path / "run", iterations=4)
    again = tmp_path / "run"
    for export in ("backbone.safetensors", "heads.safetensors"):
        (again / export).unlink()
    for file in sorted((again / "checkpoints" / "step-00000004").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    (again / "checkpoints" / "step-00000004").rmdir()
    run(shards, again, iterations=4)
    assert (again / "backbone.safetensors").read_bytes() == (first / "backbone.safetensors").read_bytes()


def test_the_export_is_a_backbone_and_converts(first, tmp_path):
    pixels = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    backbone = load_backbone(str(first), device="cpu", precision="fp32")
    assert (describe(str(first)).dim, describe(str(first)).preprocess.size) == (64, 32)
    vectors = backbone.embed(pixels)
    for to, name in (("timm", "timm.safetensors"), ("huggingface", "folder")):
        made = convert(str(first), to, output=tmp_path / name)
        again = load_backbone("curate", weights=str(made.path), device="cpu", precision="fp32")
        torch.testing.assert_close(again.embed(pixels), vectors, rtol=1e-5, atol=1e-5)
    hub = load_source(str(convert(str(first), "hub", output=tmp_path / "hub.pth").path)).network
    x = torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(hub(x), backbone.module(x))


def test_timm_reads_the_export_by_itself(first):
    described = load_source(str(first)).network
    name, kwargs = timm_equivalent(described.config)
    path = str(first / "backbone.safetensors")
    theirs = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": path}, **kwargs).eval()
    x = torch.randn(2, 3, 48, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(theirs(x), described(x), rtol=1e-5, atol=1e-5)


def test_two_ranks_train_as_one_process_does(shards, tmp_path):
    model = {**TINY["model"], "drop_path": 0.0, "rope_rescale": 1.0, "layer_scale": 1.0}  # no draws of ranks
    still = {"model": model, "iterations": 2}
    one = load_file(run(shards, tmp_path / "one", **still).export)
    both = [
        {**TINY, **still, "shards": shards, "output": str(tmp_path / way), "parallel": way} for way in ("ddp", "fsdp")
    ]
    train_on_ranks(both)
    for way in ("ddp", "fsdp"):
        two = load_file(tmp_path / way / "backbone.safetensors")
        assert two.keys() == one.keys()
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, atol=3e-3, rtol=1e-2, msg=f"{way}: {name}")


def test_weights_go_on_at_another_size_without_resampling(shards, first, tmp_path):
    crops = {**TINY["crops"], "global_size": 48}
    result = run(shards, tmp_path / "run", init_from=str(first), crops=crops, iterations=2)
    start, given = load_file(result.initial), load_file(first / "backbone.safetensors")
    assert all(torch.equal(start[name], value) for name, value in given.items())


def test_released_weights_start_a_run_that_has_more_than_they(tmp_path):
    shape = {"dim": 64, "heads": 1, "depth": 2, "image_size": 32}
    released = VisionTransformer(vit_config("dinov3_small", **shape, qkv_bias="none"))
    save_file(dinov3_names.to_timm(released.state_dict()), tmp_path / "released.safetensors")
    ours = VisionTransformer(vit_config("dinov3_small", **shape, local_norm=True))
    load_weights(ours, str(tmp_path / "released.safetensors"))
    assert not ours.blocks[1].attn.qkv.bias.any()
    assert ours.local_cls_norm is not None
    assert torch.equal(ours.local_cls_norm.weight, ours.norm.weight)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), released.eval()(x))
    biased = VisionTransformer(vit_config("dinov3_small", **shape))
    save_file(dinov3_names.to_timm(biased.state_dict()), tmp_path / "biased.safetensors")
    with pytest.raises(WeightsError, match=r"biased.safetensors: .*unknown blocks.0.attn.qkv.bias"):
        load_weights(released, str(tmp_path / "biased.safetensors"))


ATTO = {"timm": "convnext_atto", "timm_kwargs": {"dims": [8, 8, 16, 64], "depths": [1, 1, 1, 1]}, "drop_path": 0.0}


def test_a_convnext_learns_from_a_vit_with_as_many_tokens(shards, first, tmp_path):
    given = {**TINY["objective"], "prototypes": "auto", "distill_from": str(first)}
    given = {"objective": given, "crops": {**TINY["crops"], "global_size": 64, "local_size": 32}, "iterations": 2}
    result = run(shards, tmp_path / "run", model={**ATTO, "token_size": 8}, **given)
    assert all(row["loss_ibot"] > 0 for row in result.log)
    network = load_source(str(result.export)).network
    found = network.forward_features(torch.zeros(1, 3, 64, 48))
    assert found.patches.shape == (1, 8 * 6, 64)
    made = convert(str(result.export), "timm", output=tmp_path / "timm.safetensors")
    assert load_source(str(made.path)).network.config == network.config
    with pytest.raises(ConfigError, match=r"stands for 32 px, of the teacher for 8 px.* set model.token_size=8"):
        run(shards, tmp_path / "other", model=ATTO, **given)


def test_settings_that_do_not_go_together_are_refused(shards, tmp_path):
    for change, told in (
        ({"model": {"preset": "convnext_tiny"}}, "model.preset=convnext_tiny has no mask token; .* or distill it"),
        ({"crops": {**TINY["crops"], "num_local": 0}}, "model.local_norm is the norm of local crops, and"),
        ({"model": {"preset": "dinov3_base"}, "crops": {"global_size": 100}}, "100 is not a multiple of patch_size 16"),
    ):
        with pytest.raises(ConfigError, match=told):
            run(shards, tmp_path / "run", **change)


def test_presets_are_the_published_sizes():
    assert ModelSettings(preset="dinov3_large").vit(256) == vit_config(
        "dinov3_large", image_size=256, drop_path_rate=0.3
    )
    seven = ModelSettings(preset="dinov3_7b", drop_path=0.4).vit(256)
    assert (seven.qkv_bias, seven.local_norm, seven.hidden, seven.rope_rescale) == ("none", True, 8192, 2.0)
    changed = ModelSettings(preset="dinov3_base", rope_dtype="bf16", rope_jitter=1.5, positions="learned").vit(224)
    assert (changed.rope_dtype, changed.rope_jitter, changed.positions, changed.grid) == ("bf16", 1.5, "learned", 14)
