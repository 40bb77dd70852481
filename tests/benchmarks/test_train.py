import stat
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks import train
from benchmarks.train import (
    Setting,
    bench_train,
    our_command,
    parse_precisions,
    peer_command,
    run_program,
    time_steps,
)
from curate.config import parse, read_yaml
from curate.errors import ConfigError
from curate.models.nets import throughput
from curate.trainer.config import TrainConfig

TINY = Setting(preset="tiny", batch=2, prototypes=32, steps=1, threads=1)


@pytest.fixture(autouse=True)
def small_products(monkeypatch):
    monkeypatch.setattr(throughput, "SHAPES", {"cpu": ((64, 64, 64),)})


def fake_peer(folder: Path, *lines: str) -> Path:
    program = folder / "lightly-train"
    program.write_text("\n".join(["#!/bin/sh", *lines]))
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    return folder / "python"


def test_steps_cost_time_and_run_all_crops_through_student_and_teacher():
    steps = time_steps(TINY, "fp32")
    block = 12 * 192 * 192
    tokens = 4 * 257 + 16 * 50
    student, teacher = 6 * block * 12 * tokens * 0.5, 2 * block * 12 * 4 * 257  # 1 of 2 images is kept
    assert student + teacher < steps.flops < 2 * (student + teacher)
    assert steps.cpu_seconds > 0
    assert steps.flops_per_cpu_second > 0


def test_programs_stand_beside_the_peers(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "our_command", lambda *a: [sys.executable, "-c", "b'1' * 10**8"])
    monkeypatch.setattr(train, "_step_figures", lambda setting, precision: [])
    found = bench_train(Setting(batch=2, steps=1), ["fp32"], peer=fake_peer(tmp_path, "exit 0"))
    assert [(figure.name, figure.peer) for figure in found] == [
        ("program, fp32", "lightly-train"),
        ("peak memory of the program, fp32", "lightly-train"),
    ]
    assert all(figure.better == "lower" for figure in found)
    assert found[1].value > 0.1 > found[1].peer_value > 0  # what it allocates


def test_our_program_gets_a_valid_configuration_and_enough_photographs(tmp_path):
    command = our_command(TINY, "bf16", tmp_path, 2)
    config = parse(TrainConfig, read_yaml(command[-1]), where="test")
    assert (config.iterations, config.precision, config.objective.tied_heads) == (2, "bf16", True)
    assert pq.read_metadata(config.shards).num_rows == 2 * 2


def test_the_peer_gets_the_same_setting(tmp_path):
    peer = fake_peer(tmp_path)
    command = peer_command(Setting(batch=3, tied=False), "bf16", tmp_path, 2, peer)
    assert command[:2] == [str(tmp_path / "lightly-train"), "pretrain"]
    assert {
        "precision=bf16-mixed",
        "model=dinov2/vits14-notpretrained",
        "method_args.ibot_separate_head=true",
        "model_args.drop_path_rate=0.3",
        "method_args.output_dim=65536",
    } <= set(command)
    assert len(list((tmp_path / "photos-2").iterdir())) == 6


def test_a_program_that_fails_is_an_error_with_its_last_words():
    with pytest.raises(ConfigError, match="ended with 3: no such thing"):
        run_program(["/bin/sh", "-c", "echo no such thing; exit 3"], 1)


def test_an_environment_without_the_peer_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no lightly-train beside it; install it there"):
        bench_train(Setting(), ["fp32"], peer=tmp_path / "python")


def test_a_size_that_the_peer_lacks_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="--preset tiny: lightly-train has small, base"):
        bench_train(TINY, ["fp32"], peer=fake_peer(tmp_path))


def test_precisions_are_named():
    assert parse_precisions("both") == ("fp32", "bf16")
    with pytest.raises(ConfigError, match="--precision fp16: needed is one of fp32, bf16, both"):
        parse_precisions("fp16")
