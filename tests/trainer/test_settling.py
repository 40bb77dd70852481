"""`curate train auto` on files: what is found out, what is written, and that a run goes on by it."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from curate.api import plan_auto, train
from curate.cli import app
from curate.config import parse, read_yaml
from curate.errors import ConfigError, SourceError, WorkdirError
from curate.feed.shards import read_index
from curate.models.nets.config import vit_config
from curate.trainer.config import TrainConfig
from curate.trainer.given_backbone import COMPUTED, model_fields
from curate.trainer.settling import find_circumstances, settle, short_side
from tests.feed.shards import row, write_shard, write_shards
from tests.trainer.ranks import free_ports

SMALL = {
    "model": {"preset": "tiny", "depth": 2, "dim": 32, "heads": 2},
    "objective": {"head_hidden": 16, "head_bottleneck": 8, "prototypes": 4},
    "crops": {"num_local": 1},
    "iterations": 4,
    "checkpoint_every": 2,
    "precision": "fp32",
    "device": "cpu",
    "workers": 0,
}


@pytest.fixture
def places(tmp_path):
    write_shards(tmp_path / "shards")
    return {"shards": str(tmp_path / "shards"), "output": str(tmp_path / "run")}


def test_the_side_is_the_median_of_the_shorter_ones(tmp_path):
    rows = [row(i) | {"width": 100 + i, "height": 90 if i % 2 else 300} for i in range(9)]
    write_shard(tmp_path / "a.parquet", rows, group=2)
    index = read_index(str(tmp_path))
    sizes = np.concatenate([index.read_sizes(group) for group in index.groups])
    assert sizes.tolist() == [[one["width"], one["height"]] for one in rows]
    assert short_side(index) == np.median([min(one["width"], one["height"]) for one in rows])


def test_shards_that_do_not_say_sizes_need_the_side_of_the_crops(tmp_path, places):
    file = tmp_path / "shards/part-00000.parquet"
    pq.write_table(pq.read_table(file).drop(["width"]), file)
    with pytest.raises(SourceError, match=r"no column width, which say how large .* or set crops.global_size=PIXELS"):
        settle(places)
    assert find_circumstances(places | {"crops": {"global_size": 24}}).short_side == 24
    with pytest.raises(ConfigError, match="shards are not at hand, so crops.global_size must say"):
        settle({}, images=1000)
    with pytest.raises(ConfigError, match="auto: output is required, but not given; set --output or output=FOLDER"):
        settle({"shards": places["shards"]})


def test_a_run_is_repeated_by_the_file_it_leaves_without_auto(tmp_path, places, caplog):
    caplog.set_level(logging.INFO, "curate")
    done = train("auto", **places, **SMALL)
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("auto: ")]
    assert "auto: objective.kind: dinov2  # a CPU, whose few iterations LeJEPA learns nothing in" in told
    assert "auto: iterations: 4  # given" in told
    config = tmp_path / "run/config.yaml"
    text = config.read_text()
    assert all(f"# {line.removeprefix('auto: ')}\n" in text for line in told)
    again = train(config, output=str(tmp_path / "again"))
    assert again.export.read_bytes() == done.export.read_bytes()


def test_the_same_command_goes_on_whatever_the_machine_has_by_then(tmp_path, places, monkeypatch):
    whole = train("auto", **places | {"output": str(tmp_path / "whole")}, **SMALL)
    train("auto", **places, **SMALL | {"objective": {**SMALL["objective"]}})
    begun = (tmp_path / "run/config.yaml").read_bytes()
    for newer in sorted((tmp_path / "run/checkpoints").iterdir())[1:]:
        for file in sorted(newer.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        newer.rmdir()
    (tmp_path / "run/backbone.safetensors").unlink()
    monkeypatch.setattr("curate.trainer.settling.machine_memory", lambda: 1)
    done = train("auto", **places, **SMALL)
    assert (tmp_path / "run/config.yaml").read_bytes() == begun
    assert done.export.read_bytes() == whole.export.read_bytes()
    with pytest.raises(WorkdirError, match=r"belongs to another run: .*seed was 0, now 1"):
        train("auto", **places, **SMALL, seed=1)
    with pytest.raises(ConfigError, match="do not fit into 0.0 GiB"):
        train("auto", **places | {"output": str(tmp_path / "new")}, **SMALL)


def test_the_first_process_picks_for_all(tmp_path, places):
    (port,) = free_ports(1)
    given = [f"{section}.{key}={value}" for section in ("model", "objective") for key, value in SMALL[section].items()]
    given += [f"{key}={value}" for key, value in SMALL.items() if not isinstance(value, dict)]
    told = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "curate", "train", "auto", "--shards", places["shards"], "--output"]
    ranks = [
        subprocess.Popen(
            [*command, places["output"], *given],
            env=os.environ | told | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [rank.communicate(timeout=300)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(errors)
    assert ["auto: objective.kind: dinov2" in text for text in errors] == [True, False]
    assert (tmp_path / "run/backbone.safetensors").exists()


def test_a_folder_of_another_training_is_left_alone(tmp_path, places):
    train("auto", **places, **SMALL)
    (tmp_path / "run/config.yaml").unlink()
    with pytest.raises(WorkdirError, match="a training that did not begin by auto; go on with its own config"):
        train("auto", **places, **SMALL)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("notes")
    with pytest.raises(WorkdirError, match="not empty, and no training of curate"):
        train("auto", **places | {"output": str(tmp_path / "mine")}, **SMALL)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_the_plan_tells_the_picks_and_writes_nothing(places):
    lines = plan_auto({**places, **SMALL})
    assert any(line.startswith("batch_size: 16  # ") for line in lines)
    assert any(line.startswith("4 iterations of 16 images on 1 processes") for line in lines)
    assert not Path(places["output"]).exists()
    told = CliRunner().invoke(
        app, ["train", "auto", "crops.global_size=96", "device=cpu", "--plan", "--images", "5000"]
    )
    assert told.exit_code == 0, told.output
    assert "objective.kind: dinov2" in told.output
    assert "5000 images" in told.output


def test_few_images_from_scratch_on_a_cpu_bring_advice():
    def advised(images, **given):
        lines = plan_auto({"crops": {"global_size": 96}, "device": "cpu", **given}, images=images)
        return sum("--init NAME goes on" in line for line in lines)

    assert [advised(145), advised(499), advised(500)] == [1, 1, 0]
    assert advised(145, init_from="lite0") == 0


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("vit_small", {}),
        ("vit_small_reg4", {"patch_size": 16, "image_size": 224}),
        ("vit_base", {"depth": 5, "ffn": "swiglu", "image_size": 56}),
        ("vit_giant", {}),
        ("dinov3_small_plus", {}),
        ("dinov3_7b", {}),
        ("vit_base", {"norm_eps": 1e-12, "interpolate_offset": 0.0, "interpolate_antialias": False}),
        ("dinov3_tiny", {"depth": 2, "dim": 64, "heads": 2, "num_registers": 0}),
    ],
)
def test_settings_are_found_that_build_a_backbone_again(name, changes):
    config = vit_config(name, **changes)
    fields = model_fields(config)
    side = 2 * config.patch_size
    values = {"shards": "a", "output": "b", "model": fields, "crops": {"global_size": side, "local_size": side}}
    with torch.device("meta"):
        found = parse(TrainConfig, values, where="test").model.vit(side)
    for shared in (*COMPUTED, "num_registers", "grid"):
        if shared != "grid" or config.positions == "learned":
            assert getattr(found, shared) == getattr(config, shared)


def test_an_export_is_gone_on_from(tmp_path, places):
    first = train("auto", **places, **SMALL)
    given = ["output=" + str(tmp_path / "more"), *("iterations=12", "workers=0", "device=cpu", "precision=fp32")]
    small = ["objective.head_hidden=16", "objective.head_bottleneck=8", "crops.num_local=1"]
    command = ["train", "auto", "--shards", places["shards"], "--init", str(first.export), *given, *small]
    told = CliRunner().invoke(app, command)
    assert told.exit_code == 0, told.output
    picks = read_yaml(tmp_path / "more/config.yaml")
    assert picks["init_from"] == str(first.export)
    assert (picks["heads"], picks["lora"], picks["model"]["dim"]) == ("warm-up", {"rank": 8}, 32)
    assert picks["objective"]["kind"] == "dinov2"
