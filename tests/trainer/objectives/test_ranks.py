import pyarrow as pa
import pytest
from safetensors.torch import load_file

from curate.trainer.journal import read_log
from curate.trainer.train import train
from tests.feed.shards import row, write_shard
from tests.trainer.objectives.tiny import HEAD, SWIN, SWIN_KWARGS, config
from tests.trainer.ranks import train_on_ranks

STILL = {"preset": "tiny", "patch_size": 8, "depth": 2, "drop_path": 0.0, "layer_scale": 1.0}
"""No stochastic depth, which each rank draws for itself."""
RUNS = {
    "esvit": {"model": STILL, "objective": {"kind": "esvit", "koleo_weight": 0.1, **HEAD}},
    "swin": {
        "model": {"timm": SWIN, "timm_kwargs": SWIN_KWARGS, "drop_path": 0.0},
        "objective": {"kind": "esvit", **HEAD},
    },
    "sit": {  # nothing is hidden, since each rank draws for itself what is
        "model": STILL,
        "crops": {"global_size": 32, "num_local": 0},
        "objective": {
            "kind": "sit",
            "head_hidden": 32,
            "head_out": 16,
            "hidden_share": [0.0, 0.0],
            "koleo_weight": 0.1,
        },
    },
}
RUNS |= {
    name: {"model": STILL, "crops": {"global_size": 32, "num_local": 0}, "objective": {"kind": name, **settings}}
    for name, settings in {
        "lejepa": {"projector_hidden": 32, "projector_out": 16, "directions": 16},
        "diet": {},
        "distill_features": {"teachers": [{"model": "luma24", "size": 48}]},
    }.items()
}
RUNS["dinov3"] = {
    "model": STILL | {"preset": "dinov3_tiny", "local_norm": True, "rope_rescale": 1.0},
    "objective": {"kind": "dinov3", "koleo_group": 2, "ibot_head": {"prototypes": 24}, **HEAD},
}
PAIRS = [("esvit", "fsdp"), ("swin", "ddp"), ("sit", "fsdp"), ("lejepa", "fsdp"), ("diet", "ddp")]
PAIRS += [("distill_features", "fsdp"), ("dinov3", "fsdp"), ("students", "fsdp"), ("guides", "ddp"), ("guides", "fsdp")]
GUIDES = [{"column": "organ"}, {"column": "scanner", "adversarial": True, "hidden": 8}]
"""Of the images of a batch, some have an organ: on the one rank more than on the other."""


def students_of(teacher):
    """Two students of the DINOv3 teacher, the second on every other image."""
    objective = {"kind": "dinov3", "koleo_group": 2, "distill_from": teacher, **HEAD, "prototypes": "auto"}
    small = {**RUNS["dinov3"]["model"], "depth": 1}
    return {"model": small, "objective": objective, "students": {"more": {"model": small | {"dim": 96}, "every": 2}}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Each objective by one process, and by two that share the model."""
    root = tmp_path_factory.mktemp("runs")

    def settings(name, way, **changes):
        fixed = {"optimizer": {"base_lr": 4e-3, "warmup_iterations": 1}, "iterations": 2, "workers": 0}
        return config(root, output=str(root / way / name), **fixed, **RUNS[name], **changes)

    rows = [row(i) | {"organ": [None, "b", "a"][i % 3], "scanner": i % 4 < 3} for i in range(20)]
    shards = write_shard(root / "labelled" / "a.parquet", rows, own={"organ": pa.string(), "scanner": pa.bool_()})
    dino = {"kind": "dino", "guides": GUIDES, **HEAD}
    RUNS["guides"] = {"model": STILL, "objective": dino, "shards": str(shards), "batch_size": 8, "accumulate": 2}
    for name in RUNS:
        train(settings(name, "one"))
    RUNS["students"] = students_of(str(root / "one" / "dinov3"))
    train(settings("students", "one"))
    train_on_ranks([settings(name, way, parallel=way).model_dump(mode="json") for name, way in PAIRS])
    return root


@pytest.mark.parametrize(("name", "way"), PAIRS)
def test_two_ranks_learn_as_one_process_does(runs, name, way):
    one, two = (read_log(runs / who / name / "log.jsonl") for who in ("one", way))
    for first, second in zip(one, two, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=2e-3)
        for key in (key for key in first if key.startswith(("loss_", "guide_", "gradient_norm_guide_"))):
            assert second[key] == pytest.approx(first[key], rel=5e-3), key
    one, two = (load_file(runs / who / name / "backbone.safetensors") for who in ("one", way))
    assert {key: value.shape for key, value in two.items()} == {key: value.shape for key, value in one.items()}
