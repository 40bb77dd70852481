import dataclasses
import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from curate.config import parse
from curate.errors import ConfigError, SourceError, TrainingDiverged, TrainingInterrupted, WorkdirError
from curate.models.backbones.load import load_backbone
from curate.trainer import identity, losses
from curate.trainer import train as loop
from curate.trainer.checkpoint import list_checkpoints
from curate.trainer.config import TrainConfig
from curate.trainer.train import train
from tests.feed.shards import row, write_shard, write_shards

TINY = {
    "model": {"preset": "tiny", "patch_size": 8, "depth": 2, "num_registers": 1, "drop_path": 0.3},
    "crops": {"global_size": 32, "local_size": 16, "num_local": 2},
    "objective": {"prototypes": 32, "head_hidden": 32, "head_bottleneck": 16},
    "optimizer": {"base_lr": 4e-3, "warmup_iterations": 1},
    "batch_size": 4,
    "iterations": 6,
    "checkpoint_every": 3,
    "log_every": 1,
    "precision": "fp32",
    "device": "cpu",
}


def settings(tmp_path, **changes):
    shards = tmp_path / "shards"
    if not shards.exists():
        write_shards(shards)
    return {"shards": str(shards), "output": str(tmp_path / "run"), **TINY, **changes}


def config(tmp_path, **changes):
    return parse(TrainConfig, settings(tmp_path, **changes), where="test")


def weights(run):
    _, path = list_checkpoints(run / "checkpoints")[-1]
    (file,) = (path / "state").iterdir()
    return load_file(file)


def assert_bit_equal(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


KILLED = """
    import os, signal, sys, time, json, torch
    from curate.config import parse
    from curate.trainer.config import TrainConfig
    from curate.trainer.train import train
    torch.set_num_threads(int(sys.argv[2]))
    calls = []
    def die_at_the_fifth(backbone):
        calls.append(1)
        if len(calls) == 5:
            while not os.path.exists(json.loads(sys.argv[1])["output"] + "/checkpoints/step-00000003"):
                time.sleep(0.01)  # it is written behind the training's back
            os.kill(os.getpid(), signal.SIGKILL)
        return {}
    train(parse(TrainConfig, json.loads(sys.argv[1]), where="test"), evaluate=die_at_the_fifth)
"""


def test_killed_run_resumes_to_bit_equal_weights_and_log(tmp_path):
    whole = train(config(tmp_path, output=str(tmp_path / "whole"), workers=0))
    values = settings(tmp_path, output=str(tmp_path / "killed"), evaluate_every=1)
    command = [sys.executable, "-c", textwrap.dedent(KILLED), json.dumps(values), str(torch.get_num_threads())]
    killed = subprocess.run(command, capture_output=True, check=False, env=os.environ)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert [step for step, _ in list_checkpoints(tmp_path / "killed" / "checkpoints")] == [3]
    assert not (tmp_path / "killed" / loop.EXPORT).exists()
    resumed = train(parse(TrainConfig, values, where="test"))
    assert_bit_equal(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    assert [r["step"] for r in resumed.log] == [1, 2, 3, 4, 5, 6]
    assert [r["loss"] for r in resumed.log] == [r["loss"] for r in whole.log]
    for name, tensor in load_file(whole.export).items():
        assert torch.equal(tensor, load_file(resumed.export)[name]), name


def test_a_training_stopped_by_damage_goes_on_where_damage_is_skipped(tmp_path):
    rows = [row(i) for i in range(19)] + [row(19, encoded=b"no picture")]
    write_shard(tmp_path / "shards" / "a.parquet", rows)
    with pytest.raises(SourceError, match="the image does not decode .*feed.on_damaged=skip"):
        train(config(tmp_path, checkpoint_every=1))
    log = train(config(tmp_path, checkpoint_every=1, feed={"on_damaged": "skip"})).log
    assert [row["step"] for row in log] == [1, 2, 3, 4, 5, 6]
    assert log[-1]["skipped_images"] > 0 == log[-1]["damaged_shards"]


def test_weights_move_and_the_teacher_follows(tmp_path):
    result = train(config(tmp_path))
    before, after = load_file(result.initial), load_file(result.export)
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(moved) == len(before)
    state = weights(tmp_path / "run")
    name = "backbone.blocks.0.mlp.fc1.weight"
    assert not torch.equal(state[f"objective.student.{name}"], state[f"objective.teacher.{name}"])


def test_a_finished_run_has_nothing_to_do(tmp_path, monkeypatch):
    first = train(config(tmp_path))
    stamp = first.export.stat().st_mtime_ns
    monkeypatch.setattr(loop.Trainer, "step", lambda *_: pytest.fail("trained again"))
    again = train(config(tmp_path))
    assert again.log == first.log
    assert again.export.stat().st_mtime_ns == stamp


def test_a_finished_run_writes_a_lost_export_again(tmp_path):
    first = train(config(tmp_path))
    wanted = load_file(first.export)
    first.export.unlink()
    again = load_file(train(config(tmp_path)).export)
    assert all(torch.equal(tensor, again[name]) for name, tensor in wanted.items())


def test_the_export_gives_equal_outputs_in_timm(tmp_path):
    result = train(config(tmp_path, iterations=2))
    with safe_open(result.export, framework="pt") as file:
        told = json.loads(file.metadata()["curate"])["timm"]
    model = timm.create_model(
        told["architecture"],
        pretrained=True,
        pretrained_cfg_overlay={"file": str(result.export)},
        **told["kwargs"],
    ).eval()
    ours = load_backbone("curate", weights=str(result.export), device="cpu", precision="fp32")
    pictures = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(pictures), ours.module(pictures), atol=1e-5, rtol=1e-5)


def test_a_changed_setting_is_named_and_nothing_is_removed(tmp_path):
    train(config(tmp_path, iterations=3))
    told = (
        "iterations was 3, now 6; the 3 iterations done would have had another base_lr, teacher_momentum, weight_decay"
    )
    advice = f"set them back, remove {tmp_path}/run to start anew, or set another output=FOLDER"
    longer = "a run can be made longer with optimizer.schedule=constant and ema.end=constant"
    with pytest.raises(WorkdirError, match=f"belongs to another run: {told}; {advice}; {longer}"):
        train(config(tmp_path))
    with pytest.raises(WorkdirError, match=r"optimizer.base_lr was 0.004, now 0.1"):
        train(config(tmp_path, iterations=3, optimizer={"base_lr": 0.1, "warmup_iterations": 1}))
    assert list_checkpoints(tmp_path / "run" / "checkpoints")
    assert len(train(config(tmp_path), resume=False).log) == 6


def test_other_shards_are_another_run(tmp_path):
    train(config(tmp_path, iterations=3))
    write_shards(tmp_path / "shards", num_shards=3)
    with pytest.raises(WorkdirError, match="belongs to another run: shards was"):
        train(config(tmp_path, iterations=3))


def test_shards_rewritten_with_other_rows_are_another_run(tmp_path):
    train(config(tmp_path, iterations=3))
    for shard in sorted((tmp_path / "shards").iterdir()):
        write_shard(shard, [row(100 + i) for i in range(10)])
    with pytest.raises(WorkdirError, match="belongs to another run: shards was"):
        train(config(tmp_path, iterations=3))


def test_speed_settings_and_moved_shards_are_the_same_run(tmp_path):
    train(config(tmp_path, iterations=3))
    (tmp_path / "shards").rename(tmp_path / "moved")
    moved = config(tmp_path, iterations=3, workers=0, keep=1, checkpoint_every=2)
    assert train(moved.model_copy(update={"shards": str(tmp_path / "moved")})).log[-1]["step"] == 3


def test_log_and_checkpoints_may_come_more_rarely_and_change_no_weight(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    whole = load_file(train(config(tmp_path, output=str(tmp_path / "whole"))).export)
    train(config(tmp_path))
    shutil.rmtree(list_checkpoints(tmp_path / "run" / "checkpoints")[-1][1])
    log = train(config(tmp_path, log_every=2, checkpoint_every=5)).log
    assert "going on with other settings: log_every was 1, now 2" in caplog.text
    assert [row["step"] for row in log] == [1, 2, 3, 4, 6]
    assert_bit_equal(load_file(tmp_path / "run" / loop.EXPORT), whole)


@pytest.mark.parametrize("centering", ["sinkhorn", "softmax"])
def test_without_masks_the_ibot_loss_is_zero(tmp_path, centering):
    objective = {**TINY["objective"], "masked_share": 0, "centering": centering}
    log = train(config(tmp_path, iterations=2, objective=objective)).log
    assert [row["loss_ibot"] for row in log] == [0, 0]
    assert np.isfinite([row["loss"] for row in log]).all()


def test_a_second_training_in_the_folder_is_refused_and_the_first_unharmed(tmp_path):
    def second(_backbone):
        with pytest.raises(WorkdirError, match=rf"output={tmp_path}/run: another training is at work here; wait"):
            train(config(tmp_path))
        return {"tried": 1.0}

    result = train(config(tmp_path, iterations=2, evaluate_every=2), evaluate=second)
    assert result.log[-1]["eval_tried"] == 1.0
    assert train(config(tmp_path, iterations=2, evaluate_every=2)).log == result.log


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "holiday.jpg").write_bytes(b"1")
    with pytest.raises(WorkdirError, match="not empty, and no training of curate"):
        train(config(tmp_path))
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["holiday.jpg"]


def test_a_process_without_children_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with pytest.raises(ConfigError, match="set worker_kind=thread or executor.kind=inprocess"):
        train(config(tmp_path, workers=1, worker_kind="process"))
    assert not (tmp_path / "run").exists()


def test_what_a_killed_run_had_begun_to_write_is_removed(tmp_path):
    killed = """
        import os, signal, sys, json, pathlib
        from curate.config import parse
        from curate.trainer.config import TrainConfig
        from curate.trainer.train import train
        plain = pathlib.Path.replace
        def die_before_publishing(path, target):
            if str(target).endswith("step-00000003"):
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(path, target)
        pathlib.Path.replace = die_before_publishing
        train(parse(TrainConfig, json.loads(sys.argv[1]), where="test"))
    """
    command = [sys.executable, "-c", textwrap.dedent(killed), json.dumps(settings(tmp_path))]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    checkpoints = tmp_path / "run" / "checkpoints"
    (tmp_path / "run" / "log.writing").touch()
    assert [p.name for p in checkpoints.iterdir()] == ["step-00000003.writing"]
    train(config(tmp_path))
    assert sorted(p.name for p in checkpoints.iterdir()) == ["step-00000003", "step-00000006"]
    assert not list((tmp_path / "run").glob("*.writing"))


def flip(file):
    """Change one bit in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def test_a_damaged_newest_checkpoint_costs_iterations_and_nothing_else(tmp_path, caplog):
    wanted = load_file(train(config(tmp_path)).export)
    run = tmp_path / "run"
    first, newest = [path for _, path in list_checkpoints(run / "checkpoints")]
    flip(next((newest / "state").iterdir()))
    (run / "log.jsonl").write_bytes(b"\xff\x00{" + b"\n" * 9)  # the checkpoint has a copy that was checked
    (run / loop.EXPORT).unlink()
    log = train(config(tmp_path)).log
    assert f"checkpoint {newest}: cannot be read" in caplog.text
    assert f"going on from {first.name}" in caplog.text
    assert_bit_equal(load_file(run / loop.EXPORT), wanted)
    assert [row["step"] for row in log] == [1, 2, 3, 4, 5, 6]
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == [first.name, newest.name]


def test_where_all_checkpoints_are_damaged_nothing_begins_anew_by_itself(tmp_path):
    train(config(tmp_path))
    for _, path in list_checkpoints(tmp_path / "run" / "checkpoints"):
        flip(path / "checkpoint.json")
    with pytest.raises(WorkdirError, match=r"cannot be read .*, and there is none before it; restore it, or remove"):
        train(config(tmp_path))
    assert len(list_checkpoints(tmp_path / "run" / "checkpoints")) == 2
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert train(config(tmp_path)).log[-1]["step"] == 6


def test_a_fresh_start_that_fails_costs_no_checkpoint(tmp_path, monkeypatch):
    train(config(tmp_path))
    checkpoints = tmp_path / "run" / "checkpoints"

    def fail(*_args, **_kwargs):
        raise MemoryError("no such device")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "Trainer", fail)
        with pytest.raises(MemoryError):
            train(config(tmp_path), resume=False)
    assert [step for step, _ in list_checkpoints(checkpoints)] == [3, 6]
    checkpoints.rename(checkpoints.with_name("checkpoints.aside"))  # as one leaves that is killed there
    assert train(config(tmp_path)).log[-1]["step"] == 6
    assert [step for step, _ in list_checkpoints(checkpoints)] == [3, 6]


def test_a_loss_that_is_no_number_stops_before_the_weights_are_spoiled(tmp_path, monkeypatch):
    plain = loop.Trainer._forward

    def spoiled(self, number, crops, step):
        output = plain(self, number, crops, step)
        bad = {**output.terms, "dino": torch.tensor(float("nan"))}
        return output if number < 4 else dataclasses.replace(output, terms=bad)

    monkeypatch.setattr(loop.Trainer, "_forward", spoiled)
    with pytest.raises(TrainingDiverged, match=r"iteration 4: loss is not finite \(loss_dino nan\)"):
        train(config(tmp_path))
    assert [step for step, _ in list_checkpoints(tmp_path / "run" / "checkpoints")] == [3]


def test_the_log_tells_what_to_watch(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (row, *_) = train(config(tmp_path, iterations=2)).log
    wanted = {
        *("step", "loss", "loss_dino", "loss_ibot", "loss_koleo", "learning_rate", "teacher_momentum"),
        *(
            "teacher_temperature",
            "teacher_entropy",
            "prototypes_used",
            "feature_std",
            "images_per_second",
            "matmul_share",
            "teraflops",
            "feed_seconds",
            "step_seconds",
            "peak_host_gib",
            "cls_patch_cosine",
        ),
        *("gradient_norm_backbone", "gradient_norm_dino_head", "gradient_norm_ibot_head", "epoch"),
    }
    assert set(row) == wanted
    assert np.isfinite(list(row.values())).all()
    assert "20 images: 2 iterations of 4 = 0.4 epochs, 8 images seen" in caplog.text
    assert "peak learning rate 0.00025" in caplog.text


def test_evaluations_enter_the_log_of_their_iterations(tmp_path):
    seen = []

    def evaluate(backbone):
        seen.append(backbone.pos_embed.detach().clone())
        return {"knn": len(seen) / 10}

    result = train(config(tmp_path, evaluate_every=2, log_every=6, iterations=4), evaluate=evaluate)
    assert [(r["step"], r["eval_knn"]) for r in result.log] == [(2, 0.1), (4, 0.2)]
    assert not torch.equal(*seen)


def test_checkpoints_keep_exports_in_them(tmp_path):
    result = train(config(tmp_path, checkpoint_every=1, keep=2))
    found = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert [step for step, _ in found] == [5, 6]
    for name in ("backbone.safetensors", "heads.safetensors"):
        assert_bit_equal(load_file(found[-1][1] / name), load_file(result.export.with_name(name)))


@pytest.mark.parametrize(
    "changes", [{"objective": {**TINY["objective"], "centering": "softmax", "tied_heads": True}}, {"precision": "bf16"}]
)
def test_the_other_recipes_run(tmp_path, changes):
    assert np.isfinite(train(config(tmp_path, iterations=2, **changes)).log[-1]["loss"])


def test_automatic_precision_stays_that_of_the_runs_start(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "resolve_precision", lambda *_: "bf16")
    whole = train(config(tmp_path, precision="auto", keep=2))
    first = load_file(whole.export)
    shutil.rmtree(list_checkpoints(tmp_path / "run" / "checkpoints")[-1][1])
    monkeypatch.setattr(identity, "resolve_precision", lambda *_: "fp32")  # a busy moment
    assert_bit_equal(load_file(train(config(tmp_path, precision="auto")).export), first)
    with pytest.raises(WorkdirError, match="precision was bf16, now fp32"):
        train(config(tmp_path, precision="fp32"))


def test_accumulated_passes_equal_one_when_nothing_looks_across_images(tmp_path, monkeypatch):
    """Softmax with a center that stands still, and no KoLeo: the gradient of a batch is the mean of its passes'."""
    monkeypatch.setattr(losses, "update_center", lambda *_args, **_more: None)
    objective = {**TINY["objective"], "centering": "softmax", "koleo_weight": 0.0, "ibot_weight": 0.0}
    changes = {"model": {**TINY["model"], "drop_path": 0.0}, "objective": objective, "iterations": 1}
    changes["optimizer"] = {"base_lr": 4e-3}
    one = train(config(tmp_path, output=str(tmp_path / "one"), **changes))
    two = train(config(tmp_path, output=str(tmp_path / "two"), accumulate=2, **changes))
    assert two.log[0]["loss"] == pytest.approx(one.log[0]["loss"], rel=1e-5)
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in first:
        if name.endswith(".exp_avg"):
            torch.testing.assert_close(second[name], first[name], atol=1e-6, rtol=1e-3, msg=name)


def test_activation_checkpointing_changes_nothing(tmp_path):
    kept = train(config(tmp_path, output=str(tmp_path / "kept"), iterations=2))
    again = train(config(tmp_path, output=str(tmp_path / "again"), iterations=2, activation_checkpointing=True))
    assert [row["loss"] for row in again.log] == [row["loss"] for row in kept.log]
    assert_bit_equal(weights(tmp_path / "kept"), weights(tmp_path / "again"))


SIGNALLED = """
    import os, signal, sys, time
    from curate.__main__ import main
    from curate.trainer import train as loop
    plain = loop.Trainer.step
    def step(self, number, batches):
        if number == 3:
            os.kill(os.getpid(), signum)
            time.sleep(2)  # longer than a command is given that ends
        return plain(self, number, batches)
    loop.Trainer.step = step
    signum = int(sys.argv.pop())
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell lets processes in the background ignore it
    sys.argv[1:1] = ["train"]
    main()
"""


def signalled(config, signum):
    """`curate train`, which gets the signal as its fourth iteration begins."""
    command = [sys.executable, "-c", textwrap.dedent(SIGNALLED), str(config), str(int(signum))]
    return subprocess.run(command, capture_output=True, check=False, text=True, env=os.environ)


def test_ctrl_c_says_from_which_checkpoint_the_training_goes_on(tmp_path):
    values = settings(tmp_path, output=str(tmp_path / "stopped"), checkpoint_every=1, workers=0)
    (tmp_path / "config.yaml").write_text(json.dumps(values))
    told = signalled(tmp_path / "config.yaml", signal.SIGINT)
    assert told.returncode == -signal.SIGINT, told.stderr
    step, path = list_checkpoints(tmp_path / "stopped" / "checkpoints")[-1]
    assert told.stderr.splitlines()[-1] == (
        f"interrupted: the training goes on from the checkpoint after iteration {step}, {path}; to go on, run: "
        f"curate train {tmp_path / 'config.yaml'}"
    )
    assert step == 4, "the iteration under way is saved"
    assert train(parse(TrainConfig, values, where="test")).log[-1]["step"] == 6


def test_sigterm_saves_the_iteration_under_way_and_the_run_goes_on_as_if_uninterrupted(tmp_path):
    values = settings(tmp_path, output=str(tmp_path / "stopped"), checkpoint_every=100, workers=0)
    (tmp_path / "config.yaml").write_text(json.dumps(values))
    told = signalled(tmp_path / "config.yaml", signal.SIGTERM)
    assert told.returncode == 143, told.stderr
    assert "stopped by SIGTERM after iteration 4 of 6; the checkpoint is written" in told.stderr
    assert [step for step, _ in list_checkpoints(tmp_path / "stopped" / "checkpoints")] == [4]
    resumed = train(parse(TrainConfig, values, where="test"))
    whole = train(config(tmp_path, output=str(tmp_path / "whole"), checkpoint_every=100, workers=0))
    assert [row["loss"] for row in resumed.log] == pytest.approx([row["loss"] for row in whole.log], rel=1e-5)


@pytest.mark.parametrize("stop", [1, 2, 4, 5])
def test_a_run_stopped_after_any_iteration_continues_bit_for_bit(tmp_path, monkeypatch, stop):
    whole = train(config(tmp_path, output=str(tmp_path / "whole"), workers=0, checkpoint_every=1))
    plain = loop.Trainer.step

    def step(self, number, batches):
        if number == stop:
            raise KeyboardInterrupt
        return plain(self, number, batches)

    stopped = config(tmp_path, output=str(tmp_path / "stopped"), workers=2, checkpoint_every=1)
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "step", step)
        with pytest.raises(KeyboardInterrupt):
            train(stopped)
    resumed = train(stopped)
    assert [row["loss"] for row in resumed.log] == [row["loss"] for row in whole.log]
    assert_bit_equal(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))


def test_an_unknown_device_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="device=abacus"):
        train(config(tmp_path, device="abacus"))


def test_a_signal_ends_an_evaluation_which_is_made_up_for_at_the_next_start(tmp_path):
    """Whoever sends a SIGTERM kills soon after it: what can be done again does not keep the checkpoint waiting."""
    calls = []

    def slow(backbone):
        calls.append(backbone)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(10_000):
                time.sleep(0.01)
        return {"knn": float(len(calls))}

    given = config(tmp_path, evaluate_every=2, checkpoint_every=100, workers=0)
    with pytest.raises(
        TrainingInterrupted, match="stopped by SIGTERM after iteration 2 of 6; the checkpoint is written"
    ):
        train(given, evaluate=slow)
    assert [step for step, _ in list_checkpoints(tmp_path / "run" / "checkpoints")] == [2]
    log = train(given, evaluate=slow).log
    assert [row.get("eval_knn") for row in log] == [None, 2.0, None, 3.0, None, 4.0]
    whole = train(config(tmp_path, output=str(tmp_path / "whole"), workers=0)).log
    assert [row["loss"] for row in log] == [row["loss"] for row in whole]


def test_ctrl_c_in_a_program_of_ones_own_saves_and_then_raises_as_usual(tmp_path, monkeypatch):
    plain = loop.Trainer.step

    def step(self, number, batches):
        if number == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(self, number, batches)

    monkeypatch.setattr(loop.Trainer, "step", step)
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path, checkpoint_every=100, workers=0))
    assert [step for step, _ in list_checkpoints(tmp_path / "run" / "checkpoints")] == [4]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_ends_the_iteration_under_way(tmp_path, monkeypatch):
    def step(_self, _number, _batches):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)  # the first is noted
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    monkeypatch.setattr(loop.Trainer, "step", step)
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path, checkpoint_every=100, workers=0))
    assert not list_checkpoints(tmp_path / "run" / "checkpoints")


def test_a_loss_that_is_no_number_between_two_rows_is_told_at_the_next_and_never_saved(tmp_path, monkeypatch):
    plain = loop.Trainer._forward

    def spoiled(self, number, crops, step):
        output = plain(self, number, crops, step)
        bad = {**output.terms, "dino": torch.tensor(float("nan"))}
        return output if number != 3 else dataclasses.replace(output, terms=bad)

    monkeypatch.setattr(loop.Trainer, "_forward", spoiled)
    with pytest.raises(TrainingDiverged, match=r"iteration 3: loss is not finite \(loss_dino nan\)"):
        train(config(tmp_path, log_every=6, checkpoint_every=1, keep=9))
    assert [step for step, _ in list_checkpoints(tmp_path / "run" / "checkpoints")] == [1, 2, 3]
