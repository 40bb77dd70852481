from types import SimpleNamespace

import pytest
import timm
import torch

from curate.config import parse, read_yaml
from curate.errors import ConfigError
from curate.feed.sizes import Sides
from curate.models.files import state_dict
from curate.trainer import feature_teachers
from curate.trainer.config import TrainConfig
from curate.trainer.effective import resolve_auto
from curate.trainer.iteration import Trainer
from curate.trainer.memory import estimate_memory
from curate.trainer.parallel import World
from curate.trainer.plan import describe_plan, plan_training
from curate.trainer.start import resolve_start, start_objective
from curate.trainer.train import train
from tests.feed.shards import write_shards
from tests.trainer.test_phases import DINOV3
from tests.trainer.test_waiting import TINY, batches, trainer_of


def planned(name="", **changes):
    given = read_yaml(name) if name else {"device": "cpu", "precision": "fp32"}
    config = parse(TrainConfig, {"shards": "", "output": "/nonexistent", **given, **changes}, where="test")
    return "\n".join(plan_training(config, images=changes.pop("images", 1000)))


def test_a_plan_says_phases_schedules_crops_and_memory():
    told = planned(**DINOV3, model={"depth": 1}, crops={"num_local": 2})
    assert told.startswith("200 iterations of 256 images on 1 processes: 51200 images seen, 51.2 epochs of 1000 images")
    assert "phase 1: iterations 100 to 159, with Gram anchoring" in told
    assert "Gram teacher before iteration 20: the run's own teacher of that moment" in told
    assert "learning rate: from 0: 0 to 0.0008 (linear) until 10, from 10: 0.0008, from 100: 0.0004" in told
    assert "weights.gram: from 0: 0, from 100: 0 to 2 (cosine) until 110, from 110: 2, from 160: 0" in told
    assert "from 100: global 224, local 98, Gram teacher 448" in told
    assert "from 160: global 112, local 56" in told


def test_published_recipes_have_their_published_learning_rates():
    told = {name: planned(f"train/{name}") for name in ("dinov3_gram", "dinov3_highres")}
    assert "until 100000, from 100000: 0.0004, from 1000000: 0.00024" in told["dinov3_gram"]
    assert "from 0: 0 to 7.071e-05 (cosine) until 10000" in told["dinov3_highres"]
    assert "from 0: global 768, local 112, Gram teacher 1152, 30% of the batches" in told["dinov3_highres"]


def test_the_memory_of_states_is_that_of_the_trainers_tensors():
    trainer = trainer_of("cpu")
    held = sum(value.nbytes for name, value in trainer.state().items() if not name.endswith((".step", "_center")))
    gradients = sum(p.numel() * 4 for p in trainer.objective.student.parameters())
    effective = resolve_auto(trainer.config, num_images=100, num_samples=100)
    found = estimate_memory(trainer.config, effective, sides=Sides(32, 16), precision="fp32")
    assert found.states == held + gradients
    assert found.parameters * 4 == gradients


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """The folder of a training whose backbone and heads can be distilled."""
    folder = tmp_path_factory.mktemp("taught")
    write_shards(folder / "shards")
    values = {**DISTILLED, "shards": str(folder / "shards"), "output": str(folder / "run"), "iterations": 1}
    values["optimizer"] = {"warmup_iterations": 0}
    values["objective"] = {**TINY["objective"], "ibot_head": {"prototypes": 48, "bottleneck": 24}}
    train(parse(TrainConfig, values | {"model": {**TINY["model"], "dim": 96}}, where="test"))
    return str(folder / "run")


DISTILLED = {**TINY, "device": "cpu", "precision": "fp32"}


@pytest.mark.parametrize("kind", ["dinov2", "distill_features"])
def test_frozen_teachers_are_counted_from_the_headers_of_their_files(taught, monkeypatch, kind):
    """DINOv2's comes with heads, which others are trained like; features are given by any two backbones."""
    second = {"model": "luma24", "size": 48}
    objective = {
        "dinov2": {**TINY["objective"], "distill_from": taught},
        "distill_features": {"kind": kind, "teachers": [taught, {"model": "timm/vit_tiny_patch16_224"}, second]},
    }[kind]
    crops = {**TINY["crops"], **({} if kind == "dinov2" else {"num_local": 0})}
    values = {**DISTILLED, "shards": "", "output": "", "objective": objective, "crops": crops}
    config = parse(TrainConfig, values, where="test")
    effective = resolve_start(config, num_images=100, num_samples=100)
    wanted = {"spread": 0, "whole": 0}
    with monkeypatch.context() as patch:
        patch.setattr(feature_teachers, "load_backbone", with_fresh_timm(feature_teachers.load_backbone))
        objective = start_objective(config, effective, World())
    for key, networks in (("spread", objective.frozen_teacher), ("whole", objective.feature_teachers)):
        wanted[key] = sum(p.nbytes for p in networks.parameters()) if networks is not None else 0
    monkeypatch.setattr(state_dict, "load_file", lambda *_: pytest.fail("weights were read"))
    given = {"sides": Sides(32, 16), "precision": "fp32"}
    found = estimate_memory(config, effective, **given)
    assert found.frozen == sum(wanted.values()) > 0
    assert found.parameters == sum(p.numel() for p in objective.student.parameters())
    assert found.total == found.states + found.frozen + found.activations + found.scores
    fsdp = config.model_copy(update={"parallel": "fsdp"})
    shared = estimate_memory(fsdp, effective, processes=2, **given)
    assert shared.frozen == wanted["spread"] // 2 + wanted["whole"]
    assert f"  frozen teachers: {found.frozen / 2**30:.2f} GiB" in describe_plan(config, effective, {})


def with_fresh_timm(plain):
    """`load_backbone` where the weights of a timm model are not at hand: the network as timm makes it."""

    def load(model, **more):
        if not model.startswith("timm/"):
            return plain(model, **more)
        return SimpleNamespace(module=timm.create_model(model.removeprefix("timm/"), num_classes=0))

    return load


def test_tokens_are_those_that_the_student_sees():
    trainer = trainer_of("cpu")
    effective = resolve_auto(trainer.config, num_images=100, num_samples=100)
    found = estimate_memory(trainer.config, effective, sides=Sides(32, 16), precision="fp32")
    assert found.tokens == 4 * (2 * (16 + 1 + 1) + 2 * (4 + 1 + 1))  # patches, cls and one register


def test_what_the_backward_pass_needs_is_about_what_autograd_keeps():
    changes = {"model": {**TINY["model"], "depth": 6, "dim": 192, "drop_path": 0.0}}
    trainer = trainer_of("cpu", **changes)
    own = {value.untyped_storage().data_ptr() for value in trainer.state().values()}
    kept = {}

    def keep(value):
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # held, so that no address is used twice
        return value

    trainer.objective.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        trainer._forward(0, next(batches(trainer)), 0)
    effective = resolve_auto(trainer.config, num_images=100, num_samples=100)
    found = estimate_memory(trainer.config, effective, sides=Sides(32, 16), precision="fp32")
    assert found.activations == pytest.approx(sum(one.nbytes() for one in kept.values()), rel=0.35)


def test_a_plan_for_processes_that_cannot_share_the_batch_is_an_error():
    config = parse(TrainConfig, {"shards": "", "output": "", "batch_size": 6}, where="test")
    with pytest.raises(ConfigError, match="batch_size 6 cannot be dealt evenly to .* 4 processes"):
        plan_training(config, processes=4, images=10)


def test_a_plan_makes_no_weights(monkeypatch):
    monkeypatch.setattr(Trainer, "__init__", lambda *_: pytest.fail("a trainer was made"))
    assert World().is_first
    assert "student: 7028.0 million weights" in planned("train/dinov3_gram")
