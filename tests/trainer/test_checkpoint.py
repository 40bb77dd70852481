import pytest
import torch

from curate.errors import WorkdirError
from curate.trainer.checkpoint import (
    checkpoint_path,
    list_checkpoints,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)


def test_state_survives_the_round_trip(tmp_path):
    state = {"weights": {"a": torch.randn(3)}, "samples": 7, "identity": "{}"}
    loaded = load_checkpoint(save_checkpoint(tmp_path / "new", 5, state))
    assert torch.equal(loaded["weights"]["a"], state["weights"]["a"])
    assert (loaded["step"], loaded["samples"]) == (5, 7)


def test_the_newest_stay_with_their_exports_and_the_rest_go(tmp_path):
    for step in (100, 20, 3):
        save_checkpoint(tmp_path, step, {}).with_suffix(".safetensors").touch()
    prune_checkpoints(tmp_path, 2)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [20, 100]
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_a_half_written_checkpoint_is_not_listed(tmp_path):
    save_checkpoint(tmp_path, 1, {})
    checkpoint_path(tmp_path, 2).with_name("step-00000002.pt.writing").write_bytes(b"half")
    assert [step for step, _ in list_checkpoints(tmp_path)] == [1]


def test_a_failed_write_leaves_nothing_and_says_so(tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(WorkdirError, match=r"cannot be written: .*No space left.*; free space and rerun"):
        save_checkpoint(tmp_path, 1, {})
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_checkpoint_is_named_and_not_passed_over(tmp_path):
    path = save_checkpoint(tmp_path, 1, {"x": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(WorkdirError, match=rf"checkpoint {path}: cannot be read .* remove it"):
        load_checkpoint(path)


def test_code_in_a_checkpoint_is_refused(tmp_path):
    path = checkpoint_path(tmp_path, 1)
    torch.save({"format": 1, "call": print}, path)
    with pytest.raises(WorkdirError, match="cannot be read"):
        load_checkpoint(path)


def test_another_format_is_refused(tmp_path):
    path = checkpoint_path(tmp_path, 1)
    torch.save({"format": 99}, path)
    with pytest.raises(WorkdirError, match="not of format 1"):
        load_checkpoint(path)
