from pathlib import Path

import pytest
import torch

from curate.config import parse, read_yaml
from curate.errors import ConfigError
from curate.trainer.config import ModelSettings, OptimizerSettings, TrainConfig
from curate.trainer.effective import resolve_auto

TRAININGS = sorted(path.stem for path in (Path(__file__).parents[2] / "configs" / "train").glob("*.yaml"))


def config(**changes):
    return parse(TrainConfig, {"shards": "a", "output": "b", **changes}, where="test")


def test_an_objective_is_named_or_a_block_and_dinov2_without_a_kind():
    kinds = [config(objective=value).objective.kind for value in ("dinov2", {"kind": "dinov2"}, {"prototypes": 8})]
    assert kinds == ["dinov2"] * 3
    with pytest.raises(ConfigError, match="objective"):
        config(objective="dinov9")


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
