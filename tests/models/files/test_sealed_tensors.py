"""Exports carry their own digest, and whoever loads one checks it."""

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from curate.errors import WeightsError
from curate.models.files.description import find_description, read_description, save_tensors
from curate.models.files.state_dict import read_state_dict

STATE = {"a": torch.arange(600.0), "b": torch.ones(3, 4)}
DESCRIBED = {"export": {"note": "ü", "mean": [0.485]}}


def test_the_description_and_the_tensors_are_as_they_were_given(tmp_path: Path) -> None:
    path = save_tensors(tmp_path / "x.safetensors", STATE, DESCRIBED)
    assert find_description(path) == DESCRIBED
    for read in (read_state_dict, load_file):
        assert all(torch.equal(value, STATE[name]) for name, value in read(path).items())
    again = save_tensors(tmp_path / "y.safetensors", STATE, DESCRIBED)
    assert path.read_bytes() == again.read_bytes()


def load(path: Path) -> None:
    """As every reader of an export does."""
    read_description(path, needed="an export is needed")
    read_state_dict(path)


def test_every_flipped_bit_is_found_by_who_loads_the_file(tmp_path: Path) -> None:
    path = save_tensors(tmp_path / "x.safetensors", STATE, DESCRIBED)
    whole, rng = path.read_bytes(), random.Random(0)
    header = int.from_bytes(whole[:8], "little") + 8
    for place in [*range(header), *rng.sample(range(header, len(whole)), 100)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match="x.safetensors"):
            load(path)


def test_files_without_a_digest_are_read(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "x.safetensors", metadata={"curate": '{"export": {}}'})
    assert find_description(tmp_path / "x.safetensors") == {"export": {}}
    assert read_state_dict(tmp_path / "x.safetensors").keys() == STATE.keys()
