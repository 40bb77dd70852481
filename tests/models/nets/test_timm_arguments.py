"""What a timm architecture may be given, by a config or by a file of anybody."""

from typing import Any

import pytest
import timm

from curate.models.nets.timm_arguments import ARGUMENTS, check_arguments, check_name


def test_every_architecture_of_timm_has_a_plain_name() -> None:
    for name in timm.list_models():
        assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["hf-hub:owner/name", "hf_hub:owner/name", "local-dir:/etc", "timm/resnet18", "resnet18.tv_in1k", "../x", "", "A",
     "a" * 101, "resnet18\n"],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="the plain name of a timm architecture is needed"):
        check_name(name)


@pytest.mark.parametrize(
    "name",
    ["checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "features_only",
     "scriptable", "exportable", "num_classes", "auto_map", "trust_remote_code", "block_fn", "mlp_layer", "device",
     "dtype", "file", ""],
)  # fmt: skip
def test_arguments_that_load_something_or_are_code_are_not_on_the_list(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name!r} is no argument that a backbone may be given"):
        check_arguments({name: "x"})


@pytest.mark.parametrize(
    ("name", "value"),
    [("img_size", 10**9), ("img_size", -1), ("img_size", "224"), ("depths", [2, 200]), ("depth", 2.0), ("depth", True),
     ("embed_dim", 2**40), ("mlp_ratio", 1e9), ("mlp_ratio", float("nan")), ("mlp_ratio", float("inf")),
     ("drop_path_rate", 2), ("class_token", 1), ("act_layer", "torch.nn.GELU"), ("norm_layer", {"a": 1}),
     ("global_pool", "x" * 41), ("num_heads", [[[4]]]), ("window_size", [7] * 17), ("dims", ["64"])],
)  # fmt: skip
def test_values_out_of_range_or_of_another_type_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: .* may be given, found"):
        check_arguments({name: value})


def test_the_blocks_of_all_stages_count_together() -> None:
    check_arguments({"depths": [128, 128, 128, 128]})
    with pytest.raises(ValueError, match="more than 512 blocks"):
        check_arguments({"depths": [128, 128, 128, 128], "depth": 1})


def test_null_is_timms_own_value_and_the_list_has_no_name_twice() -> None:
    check_arguments(dict.fromkeys(ARGUMENTS))
    check_arguments({"img_size": [64, 96], "depths": (2, 2), "window_size": 7, "mlp_ratio": 4.0, "act_layer": "gelu"})
