import json
import random

import pytest
import torch
from safetensors.torch import load_file

from curate.errors import WorkdirError
from curate.trainer import checkpoint
from curate.trainer.checkpoint import (
    CheckpointWriter,
    check_files,
    checkpoint_path,
    list_checkpoints,
    load_state,
    prune_checkpoints,
    read_metadata,
    remove_leftovers,
)
from curate.trainer.parallel import World

STATE = {"weights": torch.arange(6.0).view(2, 3), "step": torch.tensor(3.0)}


def save(folder, *steps, state=STATE, keep=9, export=lambda _: None):
    writer = CheckpointWriter(folder, World(), keep=keep)
    for step in steps:
        writer.save(step, state, {"samples": 7 * step}, export)
    writer.close()
    return checkpoint_path(folder, steps[-1])


def test_state_survives_the_round_trip(tmp_path):
    path = save(tmp_path / "new", 5)
    loaded = {name: torch.full_like(value, -1) for name, value in STATE.items()}
    load_state(path, loaded, World())
    assert all(torch.equal(loaded[name], value) for name, value in STATE.items())
    assert (read_metadata(path)["step"], read_metadata(path)["samples"]) == (5, 35)


def test_what_is_written_is_the_state_at_the_call(tmp_path):
    moving = {"x": torch.zeros(1000, 100)}
    writer = CheckpointWriter(tmp_path, World(), keep=1)
    writer.save(1, moving, {}, lambda _: None)
    moving["x"].fill_(1)
    writer.close()
    (file,) = (checkpoint_path(tmp_path, 1) / "state").iterdir()
    assert not load_file(file)["x"].any()


def test_exports_are_published_with_the_checkpoint(tmp_path):
    path = save(tmp_path, 1, export=lambda folder: (folder / "backbone.safetensors").write_bytes(b"x"))
    assert (path / "backbone.safetensors").read_bytes() == b"x"


def test_the_newest_stay_and_the_rest_go(tmp_path):
    save(tmp_path, 3, 20, 100, keep=2)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [20, 100]
    prune_checkpoints(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_half_written_checkpoint_is_not_listed_and_goes_with_the_leftovers(tmp_path):
    folder = tmp_path / "checkpoints"
    save(folder, 1)
    half = folder / "step-00000002.writing" / "state"
    half.mkdir(parents=True)
    (half / "x").touch()
    assert [step for step, _ in list_checkpoints(folder)] == [1]
    remove_leftovers(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["step-00000001"]


def test_a_failed_write_leaves_nothing_and_says_so(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.dcp, "save", full)
    with pytest.raises(WorkdirError, match=r"cannot be written: .*No space left.*; free space and rerun"):
        save(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_checkpoint_is_named_and_not_passed_over(tmp_path):
    path = save(tmp_path, 1)
    (file,) = (path / "state").iterdir()
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(WorkdirError, match=rf"checkpoint {path}: cannot be read .* remove it"):
        load_state(path, STATE, World())


def test_a_checkpoint_of_other_tensors_is_refused(tmp_path):
    path = save(tmp_path, 1)
    with pytest.raises(WorkdirError, match="cannot be read"):
        load_state(path, {"other": torch.zeros(2)}, World())


def test_every_flipped_bit_is_found_and_the_file_is_named(tmp_path):
    """Whatever the position: in tensors, in names, in the description, in the digests themselves."""
    path = save(tmp_path, 1, export=lambda folder: (folder / "log.jsonl").write_bytes(b"{}"))
    check_files(path)
    rng = random.Random(0)
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        whole = file.read_bytes()
        for place in rng.sample(range(len(whole)), min(40, len(whole))):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << rng.randrange(8)
            file.write_bytes(damaged)
            with pytest.raises(WorkdirError, match=str(path)):
                check_files(path)
        file.write_bytes(whole)
    (path / "log.jsonl").unlink()
    with pytest.raises(WorkdirError, match=r"step-00000001: cannot be read \(log.jsonl is missing\)"):
        check_files(path)


@pytest.mark.parametrize("files", [[], 3, {"../../dev/zero": "0" * 64}, {"/dev/zero": "0" * 64}])
def test_digests_of_files_elsewhere_are_not_looked_up(tmp_path, files):
    """A device would never end."""
    path = save(tmp_path, 1)
    (path / "checkpoint.json").write_text(json.dumps({"format": 2, "step": 1, "files": files}))
    with pytest.raises(WorkdirError, match="cannot be read .* is missing"):
        check_files(path)


def test_a_checkpoint_of_an_earlier_version_is_read_without_digests(tmp_path):
    path = save(tmp_path, 1)
    (path / "checkpoint.json").write_text(json.dumps({"format": 2, "step": 1, "samples": 7}))
    check_files(path)
    assert read_metadata(path) == {"format": 2, "step": 1, "samples": 7}


def test_another_format_and_a_damaged_description_are_refused(tmp_path):
    path = save(tmp_path, 1)
    (path / "checkpoint.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(WorkdirError, match="not of format 2"):
        read_metadata(path)
    (path / "checkpoint.json").write_text("{")
    with pytest.raises(WorkdirError, match="cannot be read"):
        read_metadata(path)


def test_nothing_in_a_checkpoint_can_run_code(tmp_path):
    kinds = {file.suffix for file in save(tmp_path, 1).rglob("*") if file.is_file()}
    assert kinds == {".json", ".safetensors"}


def test_every_truncated_file_is_found_wherever_it_ends(tmp_path):
    path = save(tmp_path, 1, export=lambda folder: (folder / "log.jsonl").write_bytes(b"{}"))
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        whole = file.read_bytes()
        for length in {0, 1, len(whole) // 2, len(whole) - 2}:  # the last byte may be a newline
            file.write_bytes(whole[:length])
            with pytest.raises(checkpoint.DamagedCheckpoint, match=str(path)):
                check_files(path)
        file.write_bytes(whole)
    check_files(path)
