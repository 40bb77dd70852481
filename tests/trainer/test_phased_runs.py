"""A run through phases ends with the same weights wherever it was killed: between phases, at a refresh, anywhere."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from curate.config import parse
from curate.errors import WorkdirError
from curate.trainer import train as loop
from curate.trainer.checkpoint import list_checkpoints
from curate.trainer.config import TrainConfig
from curate.trainer.train import train
from tests.feed.shards import write_shards
from tests.trainer.ranks import train_on_ranks

SIZES = [
    {"global_size": 32, "local_size": 16, "probability": 0.5},
    {"global_size": 48, "local_size": 24, "probability": 0.5},
]
PHASED = {
    "model": {"preset": "tiny", "patch_size": 8, "depth": 1, "num_registers": 1, "drop_path": 0.3},
    "crops": {"global_size": 32, "local_size": 16, "num_local": 1},
    "objective": {"kind": "dinov3", "prototypes": 32, "head_hidden": 32, "head_bottleneck": 16, "koleo_group": 2},
    "optimizer": {"base_lr": 4e-3, "schedule": "constant", "warmup_iterations": 1, "betas": [0.9, 0.99]},
    "ema": {"end": "constant"},
    "phases": [
        {"until": 3},
        {
            "until": 8,
            "gram": {"teacher": "step 2", "weight": {"value": 2, "ramp": 2}, "refresh": 2, "max_refreshes": 2},
            "weights": {"dino": {"value": 0.5, "ramp": 2, "shape": "cosine"}},
            "sizes": SIZES,
        },
        {"until": 10, "base_lr": {"end": 0}},
    ],
    "batch_size": 4,
    "checkpoint_every": 1,
    "keep": 99,
    "log_every": 1,
    "precision": "fp32",
    "device": "cpu",
    "workers": 0,
}
AT_THE_END = 99
"""Iterations between checkpoints of runs of which the last is looked at alone: writing one takes as long as a step."""


def values(folder, shards, **changes):
    return {**PHASED, "shards": str(shards), "output": str(folder), **changes}


def run(folder, shards, **changes):
    return train(parse(TrainConfig, values(folder, shards, **changes), where="test"))


def state_at(folder, step):
    """The tensors of a checkpoint; of each name the shards of all ranks, in order."""
    found = {}
    for file in sorted((dict(list_checkpoints(folder / "checkpoints"))[step] / "state").iterdir()):
        for name, value in load_file(file).items():
            found.setdefault(name, []).append(value)
    return found


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, shards in first.items():
        assert all(torch.equal(a, b) for a, b in zip(shards, second[name], strict=True)), name


def killed_after(folder, step, target):
    """A copy of a run as it would be if it had been killed after `step` iterations; of its checkpoints, the last."""
    others = [path.name for done, path in list_checkpoints(folder / "checkpoints") if done != step]
    exports = ("backbone.safetensors", "heads.safetensors")
    root = str(folder)
    shutil.copytree(folder, target, ignore=lambda at, names: others if at != root else exports)
    return target


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("phased")
    write_shards(root / "shards")
    log = run(root / "whole", root / "shards").log
    return root, log


def test_the_log_tells_the_phase_and_the_weights(whole):
    _, log = whole
    assert [row["phase"] for row in log] == [0, 0, 0, 1, 1, 1, 1, 1, 2, 2]
    assert [row["weight_gram"] for row in log] == pytest.approx([0, 0, 0, 0, 1, 2, 2, 2, 0, 0])
    assert [row["weight_dino"] for row in log] == pytest.approx([1, 1, 1, 1, 0.75, 0.5, 0.5, 0.5, 0.5, 0.5])
    assert [row["learning_rate"] for row in log[-2:]] == pytest.approx(
        [log[2]["learning_rate"], log[2]["learning_rate"] / 2]
    )


@pytest.mark.parametrize("stop", range(1, 10))
def test_a_run_killed_after_any_iteration_goes_on_to_equal_bytes(whole, tmp_path, stop):
    root, log = whole
    killed = killed_after(root / "whole", stop, tmp_path / "run")
    resumed = run(killed, root / "shards", workers=stop % 3, checkpoint_every=AT_THE_END)
    assert_equal(state_at(tmp_path / "run", 10), state_at(root / "whole", 10))
    assert [row["loss"] for row in resumed.log] == [row["loss"] for row in log]
    assert (tmp_path / "run" / loop.EXPORT).read_bytes() == (root / "whole" / loop.EXPORT).read_bytes()


def test_the_gram_teacher_is_the_runs_own_of_its_iteration_until_it_is_replaced(whole):
    root, _ = whole
    teachers = {step: state_at(root / "whole", step) for step in range(1, 11)}

    def kept(step, prefix):
        return {n.removeprefix(prefix): v for n, v in teachers[step].items() if n.startswith(prefix)}

    of = {step: kept(step, "gram_teacher.") for step in teachers}
    ema = {step: kept(step, "objective.teacher.backbone.") for step in teachers}
    assert [bool(of[step]) for step in range(1, 11)] == [False, False, True, True, True, True, True, True, False, False]
    for step, source in {3: 2, 5: 2, 6: 5, 7: 5, 8: 7}.items():
        assert_equal(of[step], ema[source])


def test_a_file_may_be_the_gram_teacher_and_is_part_of_the_run(whole, tmp_path):
    root, _ = whole
    file = tmp_path / "early.safetensors"
    shutil.copy(root / "whole" / loop.INITIAL_EXPORT, file)
    phases = [{"until": 1}, {"until": 3, "gram": {"teacher": str(file)}}]
    run(tmp_path / "run", root / "shards", phases=phases)
    stored, given = state_at(tmp_path / "run", 3), load_file(file)
    for name, value in given.items():
        assert torch.equal(stored[f"gram_teacher.{name}"][0], value), name
    shutil.copy(root / "whole" / loop.EXPORT, file)
    with pytest.raises(WorkdirError, match=r"belongs to another run: origins.phases.1.gram.teacher was"):
        run(tmp_path / "run", root / "shards", phases=phases)


@pytest.fixture(scope="module")
def on_ranks(whole, tmp_path_factory):
    """Runs of two processes, whole and killed at a phase's begin, before a refresh, after it, and at a phase's end."""
    root, _ = whole
    folder = tmp_path_factory.mktemp("ranks")
    ways = ("ddp", "fsdp")
    train_on_ranks([values(folder / way, root / "shards", parallel=way) for way in ways])
    again = []
    for way in ways:
        for stop in (2, 3, 6, 8):
            target = killed_after(folder / way, stop, folder / f"{way}-{stop}")
            again.append(values(target, root / "shards", parallel=way, checkpoint_every=AT_THE_END))
    train_on_ranks(again)
    return folder


@pytest.mark.parametrize("stop", [2, 3, 6, 8])
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_runs_on_two_ranks_go_on_to_equal_bytes_too(on_ranks, way, stop):
    assert_equal(state_at(on_ranks / f"{way}-{stop}", 10), state_at(on_ranks / way, 10))
    for name in ("backbone.safetensors", "heads.safetensors"):
        assert (on_ranks / f"{way}-{stop}" / name).read_bytes() == (on_ranks / way / name).read_bytes()


LONGER = [
    {"phases": []},
    {"phases": [{"until": 4}, {"until": 6, "base_lr": {"end": 0}}]},
]


@pytest.mark.parametrize("changes", LONGER)
def test_a_constant_run_can_be_made_longer_and_ends_as_if_it_had_been_so_from_the_start(
    whole, tmp_path, changes, caplog
):
    root, _ = whole
    caplog.set_level("INFO")
    last = {"checkpoint_every": AT_THE_END}
    run(tmp_path / "whole", root / "shards", iterations=6, **changes, **last)
    run(tmp_path / "run", root / "shards", iterations=4, phases=[], **last)
    run(tmp_path / "run", root / "shards", iterations=6, **changes, **last)
    assert "going on with other settings: iterations was 4, now 6" in caplog.text
    assert_equal(state_at(tmp_path / "run", 6), state_at(tmp_path / "whole", 6))


def test_a_run_can_get_a_phase_whose_gram_teacher_is_a_file_and_lose_it_until_it_is_used(whole, tmp_path):
    root, _ = whole
    phases = [{"until": 4}, {"until": 6, "gram": {"teacher": str(root / "whole" / loop.INITIAL_EXPORT)}}]
    run(tmp_path / "whole", root / "shards", phases=phases)
    run(tmp_path / "run", root / "shards", iterations=4, phases=[])
    run(tmp_path / "run", root / "shards", phases=phases)
    assert_equal(state_at(tmp_path / "run", 6), state_at(tmp_path / "whole", 6))
    run(killed_after(tmp_path / "whole", 4, tmp_path / "without"), root / "shards", iterations=5, phases=[])
    with pytest.raises(WorkdirError, match="the 6 iterations done would have had another .*gram"):
        run(tmp_path / "run", root / "shards", iterations=7, phases=[])


def test_numbers_that_auto_became_stay_when_a_run_is_made_longer(whole, tmp_path):
    root, _ = whole
    auto = {"optimizer": {"base_lr": 4e-3, "schedule": "constant"}, "phases": [], "iterations": 20}
    short = run(tmp_path / "run", root / "shards", checkpoint_every=20, **auto).effective
    longer = run(tmp_path / "run", root / "shards", checkpoint_every=20, **auto | {"iterations": 21}).effective
    assert longer.warmup_iterations == short.warmup_iterations == 2
    assert longer.teacher_momentum == short.teacher_momentum
    assert longer.images_seen == 84


def test_a_run_cannot_become_shorter_than_what_is_done(whole, tmp_path):
    root, _ = whole
    run(tmp_path / "run", root / "shards", iterations=4, phases=[], checkpoint_every=AT_THE_END)
    with pytest.raises(WorkdirError, match="iterations was 4, now 3; 4 iterations are done"):
        run(tmp_path / "run", root / "shards", iterations=3, phases=[])


def test_a_phase_that_is_over_cannot_change(whole, tmp_path):
    root, _ = whole
    changed = [{"until": 3, "weight_decay": 0.1}, *PHASED["phases"][1:]]
    killed_after(root / "whole", 5, tmp_path / "run")
    with pytest.raises(WorkdirError, match="the 5 iterations done would have had another weight_decay"):
        run(tmp_path / "run", root / "shards", phases=changed)
