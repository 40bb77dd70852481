import threading
import time

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.staging import DefaultStager

from curate.config import parse
from curate.errors import WorkdirError
from curate.trainer import train as loop
from curate.trainer.checkpoint import CheckpointWriter, checkpoint_path, list_checkpoints
from curate.trainer.config import TrainConfig
from curate.trainer.parallel import World
from curate.trainer.staging import Staging
from tests.feed.shards import write_shards
from tests.trainer.test_train import TINY


@pytest.fixture
def gate(monkeypatch):
    """Copies beside the computation begin once this is set."""
    opened, plain = threading.Event(), DefaultStager._stage

    def stage(self, state, **more):
        if self._config.use_async_staging:
            assert opened.wait(60)
        return plain(self, state, **more)

    monkeypatch.setattr(DefaultStager, "_stage", stage)
    return opened


@pytest.mark.parametrize("beside", [False, True])
def test_copies_hold_what_was_there_and_share_nothing(beside):
    state = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(2)}
    staging = Staging(beside=beside)
    for turn in range(2):  # the second takes the place of the first
        state["a"].fill_(turn)
        copied = staging.copy(state, late={"a"})
        staging.wait()
        state["a"].fill_(-1)
        assert copied()["a"].tolist() == [[turn] * 3] * 2
        assert copied()["b"] == 2
    staging.close()


def test_only_late_tensors_are_copied_after_the_call(gate):
    state = {"weights": torch.zeros(3), "center": torch.zeros(3)}
    staging = Staging(beside=True)
    copied = staging.copy(state, late={"weights"})
    for value in state.values():
        value.fill_(1)  # too early for one of them
    gate.set()
    staging.close()
    assert copied()["center"].tolist() == [0, 0, 0]
    assert copied()["weights"].tolist() == [1, 1, 1]


def test_waiting_for_the_copy_is_not_waiting_for_the_disk(tmp_path, gate):
    written = threading.Event()
    writer = CheckpointWriter(tmp_path, World(), keep=1, beside=True)
    weights = torch.zeros(3)
    writer.save(1, {"weights": weights}, {}, lambda _: written.wait(60), late={"weights"})
    gate.set()
    writer.wait_for_copy()
    weights.fill_(1)
    assert not list_checkpoints(tmp_path)
    written.set()
    writer.close()
    (file,) = (checkpoint_path(tmp_path, 1) / "state").iterdir()
    assert load_file(file)["weights"].tolist() == [0, 0, 0]


def test_a_copy_that_fails_is_told_as_a_checkpoint_that_was_not_written(tmp_path, monkeypatch):
    def fail(*_args, **_more):
        raise RuntimeError("CUDA error: out of memory")

    writer = CheckpointWriter(tmp_path, World(), keep=1, beside=True)
    monkeypatch.setattr(DefaultStager, "_stage", lambda self, state, **_: fail() if "weights" in state else state)
    writer.save(1, {"weights": torch.zeros(3)}, {}, lambda _: None, late={"weights"})
    writer.wait_for_copy()
    with pytest.raises(WorkdirError, match="the checkpoint cannot be written: CUDA error: out of memory"):
        writer.close()


@pytest.mark.parametrize("objective", [{"centering": "softmax"}, {"kind": "dino"}], ids=["dinov2-softmax", "dino"])
def test_a_training_whose_copies_come_late_writes_equal_checkpoints(tmp_path, monkeypatch, objective):
    """The copy begins when gradients are computed, centers have moved, and the update is about to begin."""
    plain_writer, plain_stage = loop.CheckpointWriter, DefaultStager._stage

    def late(self, state, **more):
        if self._config.use_async_staging:
            time.sleep(0.3)
        return plain_stage(self, state, **more)

    def checkpoints(name):
        values = {
            **TINY,
            "shards": str(shards),
            "output": str(tmp_path / name),
            "objective": {**TINY["objective"], **objective},
            "iterations": 3,
            "checkpoint_every": 1,
            "keep": 9,
        }
        loop.train(parse(TrainConfig, values, where="test"))
        found = list_checkpoints(tmp_path / name / "checkpoints")
        return [load_file(next((path / "state").iterdir())) for _, path in found]

    shards = write_shards(tmp_path / "shards")
    wanted = checkpoints("at-once")
    monkeypatch.setattr(loop, "CheckpointWriter", lambda *args, **more: plain_writer(*args, **more | {"beside": True}))
    monkeypatch.setattr(DefaultStager, "_stage", late)
    for one, other in zip(wanted, checkpoints("late"), strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert torch.equal(value, other[name]), name
