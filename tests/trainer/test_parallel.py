import signal

import pytest
import torch
from safetensors.torch import load_file

from curate.config import parse
from curate.feed.shards import read_index
from curate.trainer.checkpoint import list_checkpoints, load_state
from curate.trainer.config import TrainConfig
from curate.trainer.effective import resolve_auto
from curate.trainer.iteration import Trainer
from curate.trainer.journal import read_log
from curate.trainer.parallel import World
from curate.trainer.train import train
from tests.feed.shards import write_shards
from tests.trainer.ranks import start_ranks, train_on_ranks

PLAIN = {
    "model": {"preset": "tiny", "patch_size": 8, "depth": 2, "num_registers": 1, "drop_path": 0.0, "layer_scale": 1.0},
    "crops": {"global_size": 32, "local_size": 16, "num_local": 2},
    "objective": {"prototypes": 32, "head_hidden": 32, "head_bottleneck": 16},
    "optimizer": {"base_lr": 4e-2, "warmup_iterations": 1, "clip_norm": 0.5, "freeze_last_layer_iterations": 0},
    "batch_size": 8,
    "iterations": 4,
    "checkpoint_every": 1,
    "keep": 9,
    "log_every": 1,
    "precision": "fp32",
    "device": "cpu",
    "workers": 0,
}
"""No stochastic depth, which each rank draws for itself."""
SOFTMAX = {**PLAIN["objective"], "centering": "softmax", "tied_heads": True}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Trainings by one process and by two, in both ways to share a model; `moved` goes from 1 rank to 2 to 1."""
    root = tmp_path_factory.mktemp("runs")
    shards = str(write_shards(root / "shards"))

    def values(name, **changes):
        return {**PLAIN, "shards": shards, "output": str(root / name), **changes}

    def alone(name, **changes):
        train(parse(TrainConfig, values(name, **changes), where="test"))

    alone("one")
    alone("one-softmax", objective=SOFTMAX)
    alone("moved")
    forget(root / "moved", after=1)
    pairs = [
        (way, name, changes)
        for way in ("ddp", "fsdp")
        for name, changes in (("", {}), ("-softmax", {"objective": SOFTMAX}))
    ]
    both = [values(f"{way}{name}", parallel=way, **changes) for way, name, changes in pairs]
    train_on_ranks([*both, values("moved", parallel="fsdp")])
    forget(root / "moved", after=3)
    alone("moved")
    return root


def forget(run, *, after):
    """As if the training had been killed before it wrote its later checkpoints."""
    for step, path in list_checkpoints(run / "checkpoints"):
        if step > after:
            for file in sorted(path.rglob("*"), reverse=True):
                file.unlink() if file.is_file() else file.rmdir()
            path.rmdir()
    for export in ("backbone.safetensors", "heads.safetensors"):
        (run / export).unlink(missing_ok=True)


def state_at(run, step):
    """The tensors of a checkpoint, whole, however many ranks wrote them."""
    shards = str(run.parent / "shards")
    objective = SOFTMAX if "softmax" in run.name else PLAIN["objective"]
    config = parse(TrainConfig, {**PLAIN, "shards": shards, "output": str(run), "objective": objective}, where="test")
    state = fresh_state(config)
    load_state(dict(list_checkpoints(run / "checkpoints"))[step], state, World())
    return state


def fresh_state(config):
    index = read_index(config.shards)
    effective = resolve_auto(config, num_images=index.num_images, num_samples=index.num_samples)
    return Trainer(config, effective, World()).state()


@pytest.mark.parametrize("name", ["", "-softmax"])
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_gradients_of_two_ranks_equal_those_of_one_process(runs, way, name):
    one, two = state_at(runs / f"one{name}", 1), state_at(runs / f"{way}{name}", 1)
    # After one iteration the first context is 0.1 of the clipped gradient.
    gradients = {key: value for key, value in one.items() if key.endswith(".exp_avg")}
    assert sum(value.abs().sum() > 0 for value in gradients.values()) > 40
    largest = max(value.abs().max() for value in gradients.values())
    for key, value in gradients.items():
        torch.testing.assert_close(two[key], value, atol=1e-5 * largest.item(), rtol=1e-4, msg=key)


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_losses_of_two_ranks_follow_those_of_one_process(runs, way):
    one, two = read_log(runs / "one" / "log.jsonl"), read_log(runs / way / "log.jsonl")
    for first, second in zip(one, two, strict=True):
        for name in ("loss", "loss_dino", "loss_ibot", "loss_koleo", "gradient_norm_backbone", "learning_rate"):
            assert second[name] == pytest.approx(first[name], rel=2e-3), (name, first["step"])


@pytest.mark.parametrize("way", ["ddp", "fsdp", "ddp-softmax", "fsdp-softmax"])
def test_two_ranks_export_as_one_process_does(runs, way):
    for name in ("backbone.safetensors", "heads.safetensors"):
        one = load_file(runs / f"one{'-softmax' * ('softmax' in way)}" / name)
        two = load_file(runs / way / name)
        assert one.keys() == two.keys()
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, atol=3e-3, rtol=1e-2, msg=key)


def test_a_run_goes_on_with_other_numbers_of_ranks(runs):
    one, moved = read_log(runs / "one" / "log.jsonl"), read_log(runs / "moved" / "log.jsonl")
    assert [row["step"] for row in moved] == [1, 2, 3, 4]
    for first, second in zip(one, moved, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=2e-3)
    two = state_at(runs / "moved", 2)
    assert all(torch.isfinite(value).all() for value in two.values())


def test_sigterm_to_one_rank_ends_all_with_a_checkpoint(tmp_path):
    shards = str(write_shards(tmp_path / "shards"))
    long = {
        **PLAIN,
        "shards": shards,
        "output": str(tmp_path / "run"),
        "iterations": 100_000,
        "checkpoint_every": 50_000,
    }
    ranks = start_ranks([long], size=2)
    log = tmp_path / "run" / "log.jsonl"
    while len(read_log(log)) < 3:
        assert all(rank.poll() is None for rank in ranks)
    ranks[1].send_signal(signal.SIGTERM)
    told = [rank.communicate(timeout=60)[1] for rank in ranks]
    ((step, _),) = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert step == read_log(log)[-1]["step"]
    for rank, text in zip(ranks, told, strict=True):
        assert rank.returncode == 1  # an uncaught TrainingInterrupted; the command line makes 143 of it
        assert f"stopped by SIGTERM after iteration {step} of 100000" in text


def test_the_log_tells_how_long_gradients_are_under_way(runs):
    rows = {name: read_log(runs / name / "log.jsonl") for name in ("one", "ddp", "fsdp")}
    assert all(row["communication_seconds"] > 0 for row in rows["ddp"][1:])
    for name, found in rows.items():
        assert all(row["step_seconds"] > 0 and row["feed_seconds"] > 0 and row["peak_host_gib"] > 0 for row in found)
        assert all(("communication_seconds" in row) == (name == "ddp") for row in found[1:])
