"""The picks of `curate train auto`, without a file or a machine."""

import pytest

from curate.config import parse
from curate.errors import ConfigError
from curate.trainer.automatic import (
    CPU_IMAGES,
    Circumstances,
    StartingPoint,
    few_prototypes,
    fitting_patch,
    pick_settings,
    shown_images,
)
from curate.trainer.config import TrainConfig
from curate.trainer.effective import auto_momentum, resolve_auto

GIB = 2**30
VIT = StartingPoint({"preset": "small", "patch_size": 14}, patch_size=14, image_size=518, depth=12, masks=True)
TOWER = StartingPoint({"timm": "convnext_tiny"}, patch_size=32, image_size=224, depth=0)


def known(num_images=10_000, **changes):
    return Circumstances(**{"num_images": num_images, "short_side": 300, "memory": 80 * GIB, "gpu": True, **changes})


def plain_memory(values):
    """Bytes in proportion to images and to a model's size, by numbers of no network."""
    size = {"tiny": 1, "small": 2, "base": 5, "large": 15, "giant": 60}.get(values.get("model", {}).get("preset"), 2)
    return size * (GIB // 10 + values["batch_size"] * GIB // 50)


def picked(circumstances, *, memory_of=plain_memory, **given):
    return pick_settings(circumstances, given, memory_of=memory_of)


def value(key, circumstances, **given):
    return picked(circumstances, **given).get(key)


@pytest.mark.parametrize("num_images", [1, 50, 1_000, 20_000, 300_000, 1_281_167, 142_000_000])
@pytest.mark.parametrize("side", [8, 28, 64, 333])
@pytest.mark.parametrize("start", [None, VIT, TOWER], ids=["scratch", "vit", "tower"])
@pytest.mark.parametrize(("gpu", "processes"), [(False, 1), (True, 1), (True, 3), (True, 16)])
def test_the_picks_are_a_whole_config_in_which_nothing_is_left_to_find_out(num_images, side, start, gpu, processes):
    found = picked(known(num_images, short_side=side, start=start, gpu=gpu, processes=processes))
    places = {"shards": "a", "output": "b"} | ({} if start is None else {"init_from": "a-backbone"})
    config = parse(TrainConfig, {**places, **found.values}, where="test")
    effective = resolve_auto(config, num_images=num_images, num_samples=num_images)
    assert config.batch_size % processes == 0
    assert effective.warmup_iterations == config.optimizer.warmup_iterations
    assert config.optimizer.base_lr != "auto"
    assert config.objective.teacher_momentum != "auto"
    assert getattr(config.objective, "prototypes", 0) == effective.prototypes
    assert all(reason and found.get(key) == chosen for key, chosen, reason in found.picks)


def test_what_is_given_stays_and_what_follows_from_it_follows():
    given = {"iterations": 5000, "objective": "dinov2", "crops": {"global_size": 112}, "batch_size": 96}
    found = picked(known(), **given)
    assert (found.get("iterations"), found.get("objective.kind"), found.get("batch_size")) == (5000, "dinov2", 96)
    assert found.get("optimizer.warmup_iterations") == 500
    assert found.get("model.patch_size") == fitting_patch(112, 8)
    assert found.get("objective.koleo_group") == 16
    assert {pick.key for pick in found.picks if pick.reason == "given"} == {
        "iterations",
        "objective.kind",
        "crops.global_size",
        "batch_size",
    }
    assert given["objective"] == "dinov2"  # the user's own values are not changed


def test_every_pick_can_be_overridden():
    for circumstances in (known(200_000), known(200_000, start=VIT), known(5000, start=VIT)):
        for pick in picked(circumstances).picks:
            nested = pick.value
            for step in reversed(pick.key.split(".")):
                nested = {step: nested}
            again = picked(circumstances, **nested)
            assert [one.value for one in again.picks if one.key == pick.key] == [pick.value]
            assert [one.reason for one in again.picks if one.key == pick.key] == ["given"]


def test_little_data_gets_another_objective_and_a_smaller_model():
    kinds = [value("objective.kind", known(n)) for n in (1_000, 100_000, 100_001, 10**8)]
    assert kinds == ["lejepa", "lejepa", "dinov2", "dinov2"]
    presets = [value("model.preset", known(n, memory=10**15)) for n in (100, 10_000, 600_000, 1_281_167, 142_000_000)]
    assert presets == ["tiny", "small", "base", "large", "giant"]
    assert value("model.preset", known(10**8, gpu=False)) == "tiny"


def test_fresh_weights_on_a_cpu_get_a_recipe_for_short_runs():
    for num_images in (100, 2_500, 10**6):
        found = picked(known(num_images, gpu=False))
        assert found.get("objective.kind") == "dinov2"
        assert found.get("objective.prototypes") == 64
        assert (found.get("objective.koleo_weight"), found.get("objective.ibot_weight")) == (1.0, 0.0)
        assert (found.get("model.depth"), found.get("model.dim"), found.get("crops.num_local")) == (2, 96, 0)
        assert found.get("crops.gray_probability") == 0.0
    assert [value("model.patch_size", known(short_side=side, gpu=False)) for side in (8, 28, 96)] == [2, 7, 8]
    long, own = picked(known(2_500)), picked(known(2_500, gpu=False), objective="lejepa")
    assert not {"crops.blur", "model.dim", "objective.koleo_weight"} & {pick.key for pick in long.picks}
    assert own.get("crops.num_local") == 2
    assert own.get("crops.blur") == "none"
    assert not own.has("objective.koleo_weight")
    assert not picked(known(2_500, gpu=False, start=VIT)).has("objective.koleo_weight")


def test_a_run_shows_the_images_of_both_recipes():
    assert shown_images(1_280_000) == 256_000_000
    assert shown_images(142_000_000) == pytest.approx(1.92e9, rel=0.01)
    assert shown_images(10_000) == 2_000_000
    slow = known(10**6, gpu=False)
    assert value("iterations", slow) == round(CPU_IMAGES / value("batch_size", slow))
    few = known(100)
    assert value("iterations", known(10**9, memory=40 * GIB)) == 625_000
    assert value("iterations", few) == round(100 * 200 / value("batch_size", few))


def test_the_memory_holds_batch_and_model():
    for memory in (2 * GIB, 8 * GIB, 40 * GIB, 640 * GIB):
        found = picked(known(10**7, memory=memory))
        assert plain_memory(found.values) <= 0.75 * memory
    larger, smaller = (picked(known(10**7, memory=memory * GIB)) for memory in (1000, 8))
    assert larger.get("batch_size") == 2048
    assert larger.get("model.preset") == "large"
    assert smaller.get("model.preset") == "small"
    assert any("large with 64 images needs more memory" in pick.reason for pick in smaller.picks)
    with pytest.raises(ConfigError, match=r"16 images an iteration do not fit into 0.1 GiB; set crops"):
        picked(known(memory=GIB // 10))


def test_an_epoch_has_some_iterations_and_every_process_as_many_images():
    for processes in (1, 3, 8):
        for num_images in (1_000, 10_000, 10**6):
            batch = value("batch_size", known(num_images, processes=processes, memory=10**15))
            each = batch // processes
            assert each & (each - 1) == 0
            assert batch % processes == 0
            assert num_images // batch >= 16 or batch < 32 or each == 2


def test_crops_are_of_whole_patches_and_no_larger_than_the_images():
    for side in (16, 28, 32, 48, 64, 96, 224, 500):
        found = picked(known(short_side=side))
        patch, large, local = (found.get(k) for k in ("model.patch_size", "crops.global_size", "crops.local_size"))
        assert large % patch == 0
        assert local % patch == 0
        assert local < large <= min(side, 224)
        assert found.get("crops.local_scale")[0] ** 0.5 * side >= min(16, side / 2) - 1
    assert [fitting_patch(side, 8) for side in (28, 32, 64, 96, 224)] == [3, 4, 8, 12, 16]


def test_what_is_continued_is_treated_with_care():
    for circumstances in (known(1_000, start=VIT), known(50_000, start=VIT), known(10**7, start=VIT)):
        found, scratch = picked(circumstances), picked(known(circumstances.num_images))
        assert found.get("heads") == "warm-up"
        whole = found.get("lora.rank") is None
        assert found.get("optimizer.base_lr") == (1e-4 if whole else 2e-3)
        assert not whole or scratch.get("optimizer.base_lr") > 1e-4
        assert found.get("optimizer.layer_decay") == 0.75
        assert found.get("iterations") <= 25_000
        ordinary = auto_momentum(found.get("iterations"), found.get("batch_size"))
        assert found.get("objective.teacher_momentum") >= ordinary
    assert value("lora.rank", known(1_000, start=VIT)) == 8
    assert value("lora", known(10_000, start=VIT)) is None
    assert value("lora", known(1_000, start=VIT), last_blocks=2) is None
    assert value("optimizer.base_lr", known(1_000, start=VIT), last_blocks=2) == 1e-4
    assert value("batch_size", known(5_000, start=VIT, gpu=False)) == 16
    assert value("crops.global_size", known(start=VIT)) == 224
    assert value("objective.kind", known(start=TOWER)) == "lejepa"


def test_prototypes_are_shared_by_images():
    assert [few_prototypes(n) for n in (10, 600, 5_000, 1_281_167)] == [64, 64, 512, 65_536]
    assert all(8 * few_prototypes(n) <= max(n, 512) for n in range(100, 300_000, 997))
