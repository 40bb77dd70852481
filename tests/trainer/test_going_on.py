"""Runs that go on from models of the registry: what they start from, train, export and resume."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from curate.api import train as train_by_name
from curate.config import parse, read_yaml
from curate.errors import ConfigError, WeightsError
from curate.models.backbones.load import load_backbone
from curate.models.convert.source import load_source
from curate.models.nets.statistics import batch_norms
from curate.models.nets.tower import TimmTower
from curate.trainer.config import TrainConfig
from curate.trainer.given_backbone import model_fields
from curate.trainer.train import train
from tests.feed.shards import write_shards
from tests.models.convert.registered import add_clip, clip_file, timm_file
from tests.trainer.ranks import train_on_ranks

SMALL = {"prototypes": 32, "head_hidden": 32, "head_bottleneck": 16}
LEJEPA = {"kind": "lejepa", "projector_hidden": 16, "projector_out": 8, "directions": 16}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "dinov2": {"kind": "dinov2", **SMALL},
    "dino": {"kind": "dino", **SMALL},
    "lejepa": LEJEPA,
    "distill_features": {"kind": "distill_features", "teachers": ["pixels16"], "patch_weight": 0.0},
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder)
    return str(folder)


def settings(
    shards: str, output: Path, init: str, weights: str | None, objective: str, **changes: Any
) -> dict[str, Any]:
    """Of a run from a model of the registry, as a user would write them."""
    found = load_source(init, weights=weights)
    side = found.info.image_size
    local = 0 if objective == "distill_features" else 1
    crops = {"global_size": side, "local_size": side // 2, "num_local": local}
    return {
        "shards": shards,
        "output": str(output),
        "init_from": init,
        "init_weights": weights,
        "model": {**model_fields(found.network.config), "drop_path": 0.0},
        "crops": crops | {"mean": found.info.mean, "std": found.info.std},
        "objective": OBJECTIVES[objective],
        "optimizer": {"base_lr": 4e-3, "warmup_iterations": 0},
        "batch_size": 2,
        "iterations": 2,
        "checkpoint_every": 1,
        "log_every": 1,
        "precision": "fp32",
        "device": "cpu",
        "workers": 0,
        **changes,
    }


def run(values: dict[str, Any]) -> Any:
    return train(parse(TrainConfig, values, where="test"))


def assert_same_model(export: Path, model: str, weights: str | None) -> None:
    """The export embeds as the registry's model does: the same pictures, to the same vectors."""
    known = load_backbone(model, weights=weights, device="cpu", precision="fp32")
    found = load_backbone(str(export), device="cpu", precision="fp32")
    assert found.preprocess == known.preprocess
    assert found.license == known.license
    pixels = torch.randint(0, 256, (2, 3, *[known.preprocess.size] * 2), dtype=torch.uint8)
    torch.testing.assert_close(found.embed(pixels), known.embed(pixels), rtol=1e-5, atol=1e-5)


def resume_after_one(values: dict[str, Any], folder: Path) -> Any:
    """As a run that was killed after its first iteration goes on."""
    shutil.copytree(values["output"], folder)
    shutil.rmtree(folder / "checkpoints/step-00000002")
    (folder / "backbone.safetensors").unlink()
    return run(values | {"output": str(folder)})


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("test_vit", "dinov2"),
        ("test_vit3", "lejepa"),
        ("test_vit2", "distill_features"),
        ("test_efficientnet", "dino"),
    ],
)
def test_models_of_timm_are_gone_on_from(shards: str, tmp_path: Path, name: str, objective: str) -> None:
    weights = timm_file(tmp_path, name)
    values = settings(shards, tmp_path / "run", f"timm/{name}", weights, objective)
    result = run(values)
    assert_same_model(result.initial, f"timm/{name}", weights)
    moved, before = load_file(result.export), load_file(result.initial)
    assert any(not torch.equal(moved[name], before[name]) for name in before)
    assert load_backbone(str(result.export), device="cpu").dim == load_backbone(str(result.initial), device="cpu").dim
    again = resume_after_one(values, tmp_path / "again")
    assert again.export.read_bytes() == result.export.read_bytes()
    assert again.log[-1]["loss"] == result.log[-1]["loss"]


def test_a_tower_of_open_clip_is_gone_on_from(shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_clip("small", monkeypatch)
    weights = clip_file(tmp_path, "small")
    values = settings(shards, tmp_path / "run", "open_clip/small", weights, "lejepa")
    assert values["model"]["outputs"] == 24
    result = run(values)
    assert_same_model(result.initial, "open_clip/small", weights)
    again = run(settings(shards, tmp_path / "more", str(result.export), None, "dino"))
    assert load_file(again.initial).keys() == load_file(result.export).keys()
    for name, value in load_file(result.export).items():
        assert torch.equal(load_file(again.initial)[name], value)


def test_a_vit_of_transformers_is_gone_on_from(shards: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    theirs = transformers.ViTModel(transformers.ViTConfig(**shape, image_size=28, patch_size=14)).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    values = settings(shards, tmp_path / "run", str(tmp_path / "theirs"), None, "dinov2")
    result = run(values)
    pixels = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        wanted = theirs(pixels).last_hidden_state[:, 0]
    torch.testing.assert_close(load_source(str(result.initial)).network(pixels), wanted, rtol=1e-5, atol=1e-5)
    assert any(
        not torch.equal(value, load_file(result.initial)[name]) for name, value in load_file(result.export).items()
    )
    again = resume_after_one(values, tmp_path / "again")
    assert again.export.read_bytes() == result.export.read_bytes()


def test_lite0_is_gone_on_from(shards: str, tmp_path: Path) -> None:
    values = settings(shards, tmp_path / "run", "lite0", None, "lejepa", iterations=1)
    assert values["model"]["timm"] == "tf_efficientnet_lite0"
    result = run(values)
    assert_same_model(result.initial, "lite0", None)
    assert load_backbone(str(result.export), device="cpu").dim == 1280
    assert len(load_file(result.export)) == 49 * 6  # kernel, scale, shift, mean, variance and count of every layer


def statistics_of(file: Path) -> dict[str, torch.Tensor]:
    return {name: value for name, value in load_file(file).items() if "running_" in name}


def test_statistics_of_batch_norms_stay_those_of_the_given_weights(shards: str, tmp_path: Path) -> None:
    weights = timm_file(tmp_path, "test_efficientnet")
    given = ("timm/test_efficientnet", weights, "lejepa")
    kept = run(settings(shards, tmp_path / "kept", *given))
    before = statistics_of(kept.initial)
    assert before
    assert all(torch.equal(value, before[name]) for name, value in statistics_of(kept.export).items())
    values = settings(shards, tmp_path / "moved", *given)
    values["model"]["batch_norm"] = "batch"
    moved = statistics_of(run(values).export)
    assert all(not torch.equal(value, before[name]) for name, value in moved.items())
    frozen = values | {"output": str(tmp_path / "still"), "optimizer": {"base_lr": 4e-3, "warmup_iterations": 0}}
    frozen["optimizer"]["freeze_backbone_iterations"] = 2
    assert all(torch.equal(value, before[name]) for name, value in statistics_of(run(frozen).export).items())
    part = statistics_of(run(values | {"output": str(tmp_path / "part"), "last_blocks": 1}).export)
    learned = {name for name, value in part.items() if not torch.equal(value, before[name])}
    assert learned == {name for name in part if name.startswith(("blocks.4.", "bn2."))}


def test_batch_norms_of_a_fresh_model_follow_its_batches(shards: str, tmp_path: Path) -> None:
    weights = timm_file(tmp_path, "test_efficientnet")
    values = settings(shards, tmp_path / "run", "timm/test_efficientnet", weights, "lejepa")
    result = run(values | {"init_from": None, "init_weights": None})
    before = statistics_of(result.initial)
    assert all(not torch.equal(value, before[name]) for name, value in statistics_of(result.export).items())
    tower = load_source(str(result.export)).network
    assert isinstance(tower, TimmTower)
    assert all(not layer.training for layer in batch_norms(tower))
    assert all(layer.training for layer in batch_norms(tower.train()))


def test_two_ranks_learn_what_one_process_does(shards: str, tmp_path: Path) -> None:
    """Frozen statistics make batch norms functions of one image, so that the batch may lie anywhere."""
    weights = timm_file(tmp_path, "test_efficientnet")
    values = settings(shards, tmp_path / "one", "timm/test_efficientnet", weights, "dino", batch_size=4)
    one = run(values)
    moving = values | {"model": {**values["model"], "batch_norm": "batch"}}
    ways = [moving | {"output": str(tmp_path / way), "parallel": way} for way in ("ddp", "fsdp")]
    train_on_ranks([values | {"output": str(tmp_path / "two")}, *ways])
    found, wanted = load_file(tmp_path / "two/backbone.safetensors"), load_file(one.export)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
    whole, divided = (load_file(tmp_path / way / "backbone.safetensors") for way in ("ddp", "fsdp"))
    for name, value in whole.items():
        torch.testing.assert_close(divided[name], value, rtol=1e-4, atol=1e-5)
    assert all(not torch.equal(value, wanted[name]) for name, value in whole.items() if "running_" in name)


def test_low_rank_changes_and_layer_decay_take_the_blocks_of_a_tower(shards: str, tmp_path: Path) -> None:
    weights = timm_file(tmp_path, "test_vit2")
    optimizer = {"base_lr": 4e-3, "warmup_iterations": 0, "layer_decay": 0.5}
    values = settings(shards, tmp_path / "run", "timm/test_vit2", weights, "lejepa", optimizer=optimizer)
    result = run(values | {"lora": {"rank": 2}})
    moved, before = load_file(result.export), load_file(result.initial)
    changed = {name for name in before if not torch.equal(moved[name], before[name])}
    assert changed
    assert all(name.startswith("blocks.") for name in changed)
    weights = timm_file(tmp_path, "test_efficientnet")
    values = settings(shards, tmp_path / "conv", "timm/test_efficientnet", weights, "lejepa")
    with pytest.raises(ConfigError, match="lora: the backbone's blocks have no linear layers"):
        run(values | {"lora": {"rank": 2}})


def test_what_does_not_fit_says_which_settings_do(shards: str, tmp_path: Path) -> None:
    weights = timm_file(tmp_path, "test_vit3")
    values = settings(shards, tmp_path / "run", "timm/test_vit3", weights, "lejepa")
    with pytest.raises(WeightsError, match=r'settings of this backbone are model: {timm: "test_vit3"}, and `curate tr'):
        run(values | {"model": {"preset": "tiny", "patch_size": 16}})
    vit = timm_file(tmp_path, "test_vit")
    values = settings(shards, tmp_path / "run", "timm/test_vit", vit, "lejepa")
    with pytest.raises(WeightsError, match=r"settings of this backbone are model: {preset: .tiny., .*dim: 64"):
        run(values | {"model": {"preset": "tiny", "patch_size": 16, "depth": 3}})
    with pytest.raises(ConfigError, match=r"init_from=timm/test_vit: its pictures are normalized by mean \[0.5, .*set"):
        run(values | {"crops": {**values["crops"], "mean": (0.4, 0.4, 0.4)}})
    with pytest.raises(ConfigError, match="init_weights are those of the model that init_from names; set init_from"):
        parse(TrainConfig, values | {"init_from": None}, where="test")
    with pytest.raises(WeightsError, match="sscd: no such file or folder, nor a model that can be trained on"):
        run(values | {"init_from": "sscd", "init_weights": None})


def test_timms_own_network_is_trained_where_the_settings_name_it(shards: str, tmp_path: Path) -> None:
    weights = timm_file(tmp_path, "test_vit")
    values = settings(shards, tmp_path / "run", "timm/test_vit", weights, "lejepa")
    crops = values["crops"] | {"global_size": 96, "local_size": 48}
    result = run(values | {"model": {"timm": "test_vit"}, "crops": crops, "iterations": 1})
    assert load_file(result.initial)["pos_embed"].shape == (1, 1 + 36, 64)
    timms, ours = (
        load_source(source, weights=given).network.eval()
        for source, given in ((str(result.initial), None), ("timm/test_vit", weights))
    )
    with torch.no_grad():
        x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(timms(x), ours(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "picked"),
    [
        ("test_vit", {"objective.kind": "dinov2", "lora.rank": 8, "optimizer.layer_decay": 0.75}),
        ("test_vit2", {"objective.kind": "lejepa", "lora.rank": 8, "optimizer.layer_decay": 0.75}),
        ("test_efficientnet", {"objective.kind": "lejepa", "lora.rank": None, "optimizer.layer_decay": None}),
    ],
)
def test_auto_picks_by_the_given_backbone(shards: str, tmp_path: Path, name: str, picked: dict[str, Any]) -> None:
    weights = timm_file(tmp_path, name)
    asked = {"init_from": f"timm/{name}", "init_weights": weights, "iterations": 1, "batch_size": 4, "workers": 0}
    small = {"head_hidden": 16, "head_bottleneck": 8} if name == "test_vit" else {"projector_hidden": 16}
    output = tmp_path / "run"
    result = train_by_name("auto", shards=shards, output=str(output), device="cpu", objective=small, **asked)
    values = read_yaml(output / "config.yaml")
    for key, value in picked.items():
        section, _, field = key.partition(".")
        assert values.get(section, {}).get(field) == value, key
    given, known = load_source(f"timm/{name}", weights=weights).info, load_source(str(result.initial)).info
    assert (known.mean, known.std, known.interpolation) == (given.mean, given.std, given.interpolation)
    assert known.short_edge == round(known.image_size * given.short_edge / given.image_size)
