from pathlib import Path

import pytest
import torch

from curate.config import parse, read_yaml
from curate.errors import ConfigError
from curate.trainer.config import ModelSettings, OptimizerSettings, TrainConfig
from curate.trainer.effective import auto_learning_rate, auto_momentum, auto_prototypes, resolve_auto

TRAININGS = sorted(path.stem for path in (Path(__file__).parents[2] / "configs" / "train").glob("*.yaml"))


def config(**changes):
    return parse(TrainConfig, {"shards": "a", "output": "b", **changes}, where="test")


def test_auto_prototypes_reproduce_the_short_and_long_recipes():
    assert auto_prototypes(1_281_167) == 65_536
    assert auto_prototypes(142_109_386) == 131_072


def test_auto_prototypes_are_powers_of_two_that_grow_with_the_images():
    found = [auto_prototypes(n) for n in (1, 100, 600, 5_000, 100_000, 10**9)]
    assert found == sorted(found)
    assert all(k & (k - 1) == 0 and 256 <= k <= 131_072 for k in found)


def test_auto_momentum_is_the_papers_in_long_runs_and_lower_in_short_ones():
    assert auto_momentum(125_000, 2048) == 0.992
    assert auto_momentum(400, 2048) == pytest.approx(0.95)
    assert auto_momentum(5, 2048) == 0.9


def test_auto_momentum_averages_over_as_many_images_at_any_batch():
    per_image = [auto_momentum(10**7, batch) ** (1 / batch) for batch in (64, 512, 2048, 4096)]
    assert per_image == pytest.approx([0.992 ** (1 / 2048)] * 4)


def test_auto_learning_rate_goes_through_both_recipes():
    assert auto_learning_rate(5_000) == auto_learning_rate(1_280_000) == 4e-3
    assert auto_learning_rate(142_000_000) == pytest.approx(2e-4)
    assert auto_learning_rate(14_000_000) == pytest.approx((4e-3 * 2e-4) ** 0.5, rel=0.1)  # halfway between, in logs


def test_linear_scaling_is_dinos():
    dino = config(batch_size=1024, optimizer={"base_lr": 5e-4, "lr_batch": 256, "lr_scaling": "linear"})
    assert resolve_auto(dino, num_images=10, num_samples=10).learning_rate == pytest.approx(2e-3)


def test_prototypes_come_from_given_heads_and_may_not_contradict_them():
    assert resolve_auto(config(), num_images=10, num_samples=10, prototypes=48).prototypes == 48
    with pytest.raises(ConfigError, match="objective.prototypes is 64, the given heads have 48; set it to that or to"):
        resolve_auto(config(objective={"prototypes": 64}), num_images=10, num_samples=10, prototypes=48)


def test_an_objective_is_named_or_a_block_and_dinov2_without_a_kind():
    kinds = [config(objective=value).objective.kind for value in ("dinov2", {"kind": "dinov2"}, {"prototypes": 8})]
    assert kinds == ["dinov2"] * 3
    with pytest.raises(ConfigError, match="objective"):
        config(objective="dinov9")


def test_effective_numbers_of_the_short_recipe():
    short = config(batch_size=2048, iterations=125_000, optimizer={"base_lr": 4e-3})
    effective = resolve_auto(short, num_images=1_281_167, num_samples=1_281_167)
    assert effective.learning_rate == pytest.approx(4e-3 * 2**0.5)
    assert effective.warmup_iterations == 12_500
    assert effective.teacher_temperature_iterations == 37_500
    assert effective.freeze_last_layer_iterations == 1_250
    assert effective.images_seen == 256_000_000
    assert effective.epochs == pytest.approx(199.8, abs=0.1)


def test_given_numbers_win_over_auto():
    given = config(objective={"prototypes": 77, "teacher_momentum": 0.5}, optimizer={"warmup_iterations": 3})
    effective = resolve_auto(given, num_images=10, num_samples=30)
    assert (effective.prototypes, effective.teacher_momentum, effective.warmup_iterations) == (77, 0.5, 3)


def test_warmup_as_long_as_the_run_is_an_error():
    with pytest.raises(ConfigError, match="warmup_iterations is 20 of 20 iterations"):
        resolve_auto(config(iterations=20, optimizer={"warmup_iterations": 20}), num_images=1, num_samples=1)


def test_crops_that_patches_do_not_divide_are_an_error():
    with pytest.raises(ConfigError, match="crops.local_size 96 is not a multiple of patch_size 14"):
        config(crops={"local_size": 96})
    assert config(crops={"local_size": 96, "num_local": 0}).crops.local_size == 96  # of which there are none


def test_batch_of_one_needs_koleo_off():
    for changes in ({"batch_size": 1}, {"batch_size": 4, "accumulate": 4}):
        with pytest.raises(ConfigError, match="a pass of 1 image has no nearest neighbor for KoLeo"):
            config(**changes)
    assert config(batch_size=1, objective={"koleo_weight": 0}).batch_size == 1


def test_passes_and_koleo_groups_must_divide_the_batch():
    with pytest.raises(ConfigError, match="batch_size 8 is not a multiple of accumulate 3"):
        config(batch_size=8, accumulate=3)
    with pytest.raises(ConfigError, match="koleo_group 3 does not divide the 4 images of a pass"):
        config(batch_size=8, accumulate=2, objective={"koleo_group": 3})


def test_a_timm_backbone_needs_an_objective_without_masks():
    with pytest.raises(ConfigError, match="model.timm=swin_tiny_patch4_window7_224 has no mask token"):
        config(model={"timm": "swin_tiny_patch4_window7_224"})


def test_a_timm_backbone_is_changed_by_its_own_arguments():
    model = {"timm": "swin_tiny_patch4_window7_224", "timm_kwargs": {"window_size": 2}, "drop_path": 0.2}
    settings = config(model=model, objective="esvit").model
    with torch.device("meta"):
        built = settings.build(64, generator=torch.Generator())
    assert built.config.kwargs.items() >= {"window_size": 2, "drop_path_rate": 0.2, "img_size": 64}.items()


def test_sit_needs_several_images_and_global_crops_alone():
    crops = {"global_size": 28, "num_local": 0}
    assert config(objective="sit", crops=crops).objective.kind == "sit"
    with pytest.raises(ConfigError, match="objective=sit looks at the global crops alone; set crops.num_local=0"):
        config(objective="sit")
    with pytest.raises(ConfigError, match="tells the images of a pass apart, and it has 1; raise batch_size"):
        config(objective="sit", crops=crops, batch_size=2, accumulate=2)


def test_unknown_key_suggests_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'base_lr'"):
        config(optimizer={"base_lrr": 1})


def test_model_changes_reach_the_architecture():
    vit = ModelSettings(preset="large", patch_size=16, num_registers=4, ffn="swiglu", depth=2).vit(224)
    assert (vit.dim, vit.depth, vit.num_registers, vit.ffn, vit.grid) == (1024, 2, 4, "swiglu", 14)
    narrow = ModelSettings(preset="tiny", dim=96, heads=2).vit(224)
    assert (narrow.dim, narrow.heads, narrow.depth) == (96, 2, 12)
    assert ModelSettings(preset="giant").vit(224).ffn == "swiglu"
    assert ModelSettings(position_size=518).vit(224).image_size == 518


def test_settings_have_docstrings():
    for model in (TrainConfig, ModelSettings, OptimizerSettings):
        assert all(field.description for field in model.model_fields.values())


@pytest.mark.parametrize("name", TRAININGS)
def test_bundled_configs_need_only_shards_and_output(name):
    values = read_yaml(f"train/{name}") | {"shards": "a", "output": "b"}
    found = parse(TrainConfig, values, where=name)
    effective = resolve_auto(found, num_images=1_281_167, num_samples=1_281_167)
    assert effective.images_seen == found.batch_size * found.iterations
    with torch.device("meta"):
        backbone = found.model.build(found.crops.global_size, generator=torch.Generator())
    assert backbone.config.dim >= 64


def test_short_and_long_configs_have_the_papers_learning_rates():
    peaks = {}
    for name in ("vitl16_short", "vitl14_long", "vitg14_long"):
        found = parse(TrainConfig, read_yaml(f"train/{name}") | {"shards": "a", "output": "b"}, where=name)
        peaks[name] = resolve_auto(found, num_images=10, num_samples=10).learning_rate
    long = 2e-4 * 3**0.5
    assert peaks == pytest.approx({"vitl16_short": 4e-3 * 2**0.5, "vitl14_long": long, "vitg14_long": long})


def test_distillation_has_the_papers_learning_rate():
    found = parse(TrainConfig, read_yaml("train/vits14_distilled") | {"shards": "a", "output": "b"}, where="distilled")
    assert resolve_auto(found, num_images=10, num_samples=10).learning_rate == pytest.approx(1e-3, rel=1e-4)


def test_clusters_may_be_named_by_number_or_path():
    weights = config(feed={"cluster_weights": {3: 0.5, "3/7": 2}}).feed.cluster_weights
    assert weights == {"3": 0.5, "3/7": 2.0}


@pytest.mark.parametrize(
    "feed",
    [
        {"cluster_weights": {"3/": 1.0}},
        {"cluster_weights": {"dogs": 1.0}},
        {"cluster_weights": {"3": -1.0}},
        {"source_weights": {"a": float("inf")}},
        {"homogeneous_share": 1.1},
    ],
)
def test_a_feed_that_cannot_be_is_refused(feed):
    with pytest.raises(ConfigError, match=rf"feed\.{next(iter(feed))}"):
        config(feed=feed)
