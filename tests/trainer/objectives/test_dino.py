import math

import pytest
import torch
from safetensors.torch import load_file

from curate.errors import WorkdirError
from curate.trainer.config import TrainConfig
from curate.trainer.objectives.settings import DinoSettings
from curate.trainer.train import train
from tests.trainer.objectives.tiny import (
    BATCH,
    HEAD,
    LOCAL,
    PROTOTYPES,
    build,
    config,
    context,
    cross_entropy,
    swin,
    views,
    vit,
    without_gradient,
)

SETTINGS = DinoSettings(head_hidden=32, head_bottleneck=16, center_momentum=0.8)


@torch.no_grad()
def plain_loss(objective, large, small):
    """Crop by crop and pair by pair."""
    student, teacher = (lambda x, n=n: n["dino_head"](n["backbone"](x[None]))[0] for n in objective_networks(objective))
    losses = []
    for image in range(BATCH):
        crops = [large[v * BATCH + image] for v in range(2)] + [small[v * BATCH + image] for v in range(LOCAL)]
        for t in range(2):
            target = torch.softmax((teacher(crops[t]) - objective.center) / 0.05, dim=0)
            losses += [cross_entropy(target, student(crop)) for v, crop in enumerate(crops) if v != t]
    return sum(losses) / len(losses)


def objective_networks(objective):
    return objective.student, objective.teacher


@pytest.mark.parametrize("backbone", [vit, swin])
def test_the_loss_equals_a_plain_one_of_crops_and_pairs(backbone):
    objective = build(SETTINGS, backbone())
    objective.center.copy_(torch.linspace(-0.1, 0.1, PROTOTYPES))
    wanted = plain_loss(objective, *views()[:2])
    output = objective(views(), context())
    assert output.loss.item() == pytest.approx(wanted, rel=1e-5)
    assert output.terms["dino"] == output.loss.detach()


def test_the_center_follows_the_teachers_mean_score():
    objective = build(SETTINGS, vit())
    with torch.no_grad():
        scores = objective.teacher["dino_head"](objective.teacher["backbone"](views().global_crops))
    objective(views(), context())
    torch.testing.assert_close(objective.center, 0.2 * scores.mean(dim=0))


def test_gradients_reach_the_student_but_for_the_length_of_prototypes_and_never_the_teacher():
    lengths = {"dino_head.last_layer.scale"}
    for keep, unreached in ((True, lengths), (False, set())):
        objective = build(SETTINGS.model_copy(update={"norm_last_layer": keep}), vit())
        objective(views(), context()).loss.backward()
        assert without_gradient(objective) - {"backbone.mask_token"} == unreached
        assert all(p.grad is None for p in objective.teacher.parameters())


def test_without_local_crops_two_pairs_remain():
    assert build(SETTINGS, vit())(views(local=0), context()).loss.isfinite()


def test_chance_is_the_loss_of_a_student_that_knows_nothing():
    objective = build(SETTINGS, vit())
    with torch.no_grad():
        objective.student["dino_head"].last_layer.scale.zero_()
    assert objective(views(), context()).loss.item() == pytest.approx(objective.chance["dino"]) == math.log(PROTOTYPES)


def test_a_stopped_run_goes_on_to_bit_equal_weights(tmp_path):
    whole = train(config(tmp_path, objective={"kind": "dino", **HEAD}, output=str(tmp_path / "whole")))

    def stop(_backbone):
        raise InterruptedError

    halved = config(tmp_path, objective={"kind": "dino", **HEAD}, evaluate_every=3)
    with pytest.raises(InterruptedError):
        train(halved, evaluate=stop)
    resumed = train(halved)
    assert [row["loss"] for row in resumed.log] == [row["loss"] for row in whole.log]
    for name in ("backbone.safetensors", "heads.safetensors"):
        first, second = (load_file(result.export.with_name(name)) for result in (whole, resumed))
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    lengths = load_file(whole.export.with_name("heads.safetensors"))["dino_head.last_layer.scale"]
    assert torch.equal(lengths, torch.ones(32, 1))


def test_other_settings_of_the_objective_are_another_run(tmp_path):
    train(config(tmp_path, objective={"kind": "dino", **HEAD}, iterations=2))
    with pytest.raises(WorkdirError, match="objective.norm_last_layer was True, now False"):
        train(config(tmp_path, objective={"kind": "dino", **HEAD, "norm_last_layer": False}, iterations=2))


def test_the_name_alone_gives_the_papers_values():
    settings = TrainConfig(shards="a", output="b", objective="dino").objective
    assert isinstance(settings, DinoSettings)
    assert (settings.student_temperature, settings.center_momentum, settings.norm_last_layer) == (0.1, 0.9, True)
    assert settings.teacher_temperature == (0.04, 0.07)
