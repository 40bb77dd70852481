import itertools
import json

import pytest

from curate.config import parse
from curate.errors import ConfigError, WeightsError
from curate.trainer.config import TrainConfig
from curate.trainer.effective import resolve_auto
from curate.trainer.objective import LossWeights
from curate.trainer.phases import GramEvent, Timeline, phase_at
from curate.trainer.start import resolve_start

CONSTANT = {
    "base_lr": 4e-4,
    "lr_batch": 64,
    "schedule": "constant",
    "warmup_iterations": 10,
    "freeze_last_layer_iterations": 5,
}
DINOV3 = {
    "optimizer": {**CONSTANT, "weight_decay": [0.04, 0.04], "freeze_last_layer_iterations": 5},
    "ema": {"end": "constant"},
    "batch_size": 256,
    "objective": {"teacher_momentum": 0.994, "teacher_temperature_iterations": 10},
    "phases": [
        {"until": 100},
        {
            "iterations": 60,
            "base_lr": 2e-4,
            "weights": {"dino": {"value": 0.5, "ramp": 10, "shape": "cosine"}},
            "gram": {
                "teacher": "step 20",
                "weight": {"value": 2, "ramp": 10, "shape": "cosine"},
                "refresh": 15,
                "max_refreshes": 2,
            },
        },
        {"iterations": 40, "base_lr": {"end": 0, "cooldown": 30}, "sizes": [{"global_size": 112, "local_size": 56}]},
    ],
}
"""The shape of DINOv3's recipe, shortened."""


def config(**changes):
    return parse(TrainConfig, {"shards": "a", "output": "b", **changes}, where="test")


def timeline(**changes):
    found = config(**changes)
    return Timeline(found, resolve_auto(found, num_images=1000, num_samples=1000))


def test_the_learning_rate_follows_the_square_root_rule_in_every_phase():
    """4 sqrt(B / 1024) at B = 256 is 2."""
    found = timeline(**DINOV3)
    assert [found.at("base_lr", step) for step in (0, 5, 10, 99)] == pytest.approx([0, 4e-4, 8e-4, 8e-4])
    assert [found.at("base_lr", step) for step in (100, 159, 160, 169)] == pytest.approx([4e-4] * 4)
    assert found.at("base_lr", 185) == pytest.approx(2e-4)
    assert found.at("base_lr", 200) == 0


def test_what_no_phase_names_stays_as_the_run_has_it():
    found = timeline(**DINOV3)
    assert {found.at("weight_decay", step) for step in range(200)} == {0.04}
    assert {found.at("teacher_momentum", step) for step in range(200)} == {0.994}
    assert [found.at("teacher_temperature", step) for step in (0, 10, 199)] == pytest.approx([0.04, 0.07, 0.07])


def test_weights_of_the_losses_go_by_half_a_cosine_and_stay():
    found = timeline(**DINOV3)
    assert found.weights(99) == LossWeights()
    assert found.weights(100) == LossWeights(dino=1.0, gram=0.0)
    assert found.weights(105) == pytest.approx(LossWeights(dino=0.75, gram=1.0))
    assert found.weights(110) == LossWeights(dino=0.5, gram=2.0)
    assert found.weights(160) == LossWeights(dino=0.5, gram=0.0), "the Gram loss ends with its phase"


def test_the_gram_teacher_is_kept_from_its_iteration_on_and_replaced_at_most_as_often_as_asked():
    found = timeline(**DINOV3)
    assert found.gram_events == (
        GramEvent(20, "run"),
        GramEvent(115, "run"),
        GramEvent(130, "run"),
        GramEvent(160, "none"),
    )
    assert [found.has_gram_teacher(step) for step in (0, 20, 21, 100, 160, 161)] == [0, 0, 1, 1, 1, 0]
    assert [found.gram_event(step) is None for step in (19, 20, 145)] == [True, False, True]


def test_a_file_becomes_the_gram_teacher_as_its_phase_begins_and_the_next_phase_may_keep_it():
    phases = [{"until": 5}, {"until": 10, "gram": {"teacher": "a.safetensors"}}, {"gram": {"weight": 1.5}}]
    found = timeline(iterations=20, phases=phases)
    assert found.gram_events == (GramEvent(5, "file", "a.safetensors"),)
    assert [found.weights(step).gram for step in (4, 5, 10)] == [0, 2, 1.5]


def test_without_phases_every_schedule_is_dinov2s():
    found = timeline(iterations=100, optimizer={"base_lr": 1e-3, "warmup_iterations": 10}, batch_size=1024)
    assert [found.at("base_lr", step) for step in (0, 10, 55, 100)] == pytest.approx([0, 1e-3, 5.005e-4, 1e-6])
    assert found.at("weight_decay", 100) == 0.2
    assert found.at("teacher_momentum", 100) == 1
    assert {found.weights(step) for step in range(101)} == {LossWeights()}
    assert not any(found.has_gram_teacher(step) for step in range(101))


def test_the_average_may_end_at_any_momentum():
    found = timeline(iterations=100, ema={"end": 0.999}, objective={"teacher_momentum": 0.99})
    assert found.at("teacher_momentum", 100) == 0.999
    assert found.at("teacher_momentum", 50) == pytest.approx(0.9945)


def test_a_backbone_that_stood_still_warms_up():
    optimizer = {"freeze_backbone_iterations": 10, "backbone_warmup_iterations": 4}
    found = timeline(iterations=100, optimizer=optimizer)
    assert [found.at("backbone", step) for step in (0, 9, 10, 12, 14, 99)] == [0, 0, 0, 0.5, 1, 1]
    assert {timeline(iterations=9).at("backbone", step) for step in range(9)} == {1.0}


def test_sizes_are_drawn_by_their_probabilities_and_by_nothing_but_the_iteration():
    sizes = [
        {"global_size": 112, "local_size": 28, "probability": 3},
        {"global_size": 224, "local_size": 56, "probability": 1},
    ]
    plan = timeline(iterations=4000, phases=[{"until": 10}, {"sizes": sizes, "gram": {"teacher": 5}}]).sizes
    drawn = [plan.at(batch) for batch in range(4000)]
    assert drawn == [plan.at(batch) for batch in reversed(range(4000))][::-1]
    assert {(one.global_size, one.local_size, one.gram_size) for one in drawn[:10]} == {(224, 98, None)}
    assert {(one.global_size, one.local_size, one.gram_size) for one in drawn[10:]} == {(112, 28, 224), (224, 56, 448)}
    share = sum(one.global_size == 112 for one in drawn[10:]) / 3990
    assert share == pytest.approx(0.75, abs=0.03)  # 4 standard deviations


def test_the_past_is_blind_to_what_is_still_to_come_and_to_nothing_else():
    """Over every iteration: equal pasts mean equal values until then."""
    one = timeline(**DINOV3)
    others = [
        timeline(**DINOV3 | {"phases": DINOV3["phases"][:2]}),
        timeline(**DINOV3 | {"phases": [DINOV3["phases"][0], {**DINOV3["phases"][1], "iterations": 30}]}),
        timeline(**DINOV3 | {"phases": [{"until": 50}, {"until": 100}, *DINOV3["phases"][1:]]}),
        timeline(**DINOV3 | {"phases": [{"until": 90}, {"until": 100, "weight_decay": 0.1}, *DINOV3["phases"][1:]]}),
    ]
    for other, step in itertools.product(others, range(0, 130)):
        names = one.schedules
        same = all(one.at(name, s) == other.at(name, s) for name in names for s in range(step))
        same &= all(
            one.sizes.at(s) == other.sizes.at(s) and one.gram_event(s) == other.gram_event(s) for s in range(step)
        )
        assert (one.past(step) == other.past(step)) == same, step
    json.dumps(one.past(150))


def test_a_cosine_over_all_iterations_binds_the_first_ones_to_the_last():
    short, long = timeline(iterations=100), timeline(iterations=200)
    assert short.past(20) != long.past(20)
    assert short.past(0) == long.past(0)


def test_phases_number_the_iterations():
    phases = timeline(**DINOV3).phases
    assert [(phase.start, phase.end) for phase in phases] == [(0, 100), (100, 160), (160, 200)]
    assert [phase_at(phases, step) for step in (0, 99, 100, 199, 500)] == [0, 0, 1, 2, 2]
    assert config(**DINOV3).iterations == 200


@pytest.mark.parametrize(
    ("phases", "told"),
    [
        ([{"until": 5}, {"until": 5}], "phases.1 ends at iteration 5 and begins at 5; let it end later"),
        ([{}, {"until": 5}], "phases.0 names no end, and another follows; give until or iterations"),
        ([{"until": 5}], "the phases end at iteration 5, the run at 30; set iterations=5"),
        ([{"until": 5, "iterations": 5}], "both until 5 and iterations 5 say where it ends"),
        ([{"base_lr": {"cooldown": 3}}], "cooldown 3 leads to no value; set end too"),
        ([{"base_lr": {"ramp": 3}}], "ramp 3 leads to no value; set value too"),
        ([{"base_lr": {"value": 1, "ramp": 31}}], "phases.0.base_lr: ramp and cooldown take 31 iterations, .* has 30"),
        ([{"base_lr": {"value": 1, "ramp": 30, "end": 0}}], "ramp and cooldown take 30 iterations, the phase has 30"),
        ([{"teacher_momentum": 1.5}], "phases.0.teacher_momentum is 1.5; needed: 0 or more, 1 at most"),
        ([{"weights": {"dino": -1}}], "phases.0.weights.dino is -1.0; needed: 0 or more"),
        ([{"gram": {}}], "phases.0.gram names no teacher, and the phase before has none; set gram.teacher"),
        ([{"until": 9}, {"gram": {"teacher": 10}}], "own after 10 iterations; it must be one of 0 to 9"),
        (
            [{"until": 9, "gram": {"teacher": 0}}, {"gram": {"teacher": 5}}],
            "own after 5 iterations; it must be one of 9 to 9",
        ),
        ([{"sizes": [{"global_size": 100, "local_size": 98}]}], "global_size 100 is not a multiple of patch_size 14"),
        (
            [{"sizes": [{"global_size": 112, "local_size": 98, "gram_size": 224}]}],
            "phases.0.sizes names a gram_size, but the phase has no gram",
        ),
        (
            [{"gram": {"teacher": 0}, "sizes": [{"global_size": 112, "local_size": 98, "gram_size": 56}]}],
            "gram_size 56 is below 112",
        ),
        ([{"gram": {"teacher": 0, "upscale": 1.3}}], "the Gram teacher's crops of 291 pixels .* patch_size 14"),
    ],
)
def test_phases_that_do_not_go_together_are_errors(phases, told):
    with pytest.raises(ConfigError, match=told):
        config(iterations=30, phases=phases)


@pytest.mark.parametrize(
    ("objective", "phase", "told"),
    [
        ("lejepa", {"gram": {"teacher": "step 0"}}, "phases.0.gram: objective=lejepa reads no patches"),
        ("dino", {"weights": {"dino": 0.5}}, "phases.0.weights.dino: objective=dino .* may weigh: koleo"),
        ("diet", {"teacher_temperature": 0.05}, "phases.0.teacher_temperature: objective=diet has no prototypes"),
    ],
)
def test_a_phase_asks_for_nothing_that_the_objective_does_not_read(objective, phase, told):
    with pytest.raises(ConfigError, match=told):
        config(objective=objective, phases=[{"until": 4, **phase}], crops={"num_local": 0})


def test_a_later_phases_gram_teacher_must_be_there_when_the_run_begins(tmp_path):
    given = config(phases=[{"until": 4}, {"until": 8, "gram": {"teacher": str(tmp_path / "later.safetensors")}}])
    with pytest.raises(WeightsError, match="phases.1.gram.teacher=.*later.safetensors: no such file"):
        resolve_start(given, num_images=9, num_samples=9)


def test_a_distilled_training_that_is_not_there_is_named(tmp_path):
    given = config(objective={"kind": "dinov3", "distill_from": str(tmp_path / "nothing")})
    with pytest.raises(WeightsError, match="objective.distill_from=.*nothing: there is no .*distill_features"):
        resolve_start(given, num_images=9, num_samples=9)
