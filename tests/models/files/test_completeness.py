"""What a library has lost of a file is found, whatever it did to the rest."""

import logging

import pytest
import torch
from torch import Tensor

from curate.errors import WeightsError
from curate.models.files.completeness import check_complete, find_lost


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


FILE = {"qkv": values(12, 4), "w1": values(6, 4, seed=1), "w2": values(6, 4, seed=2), "pos": values(1, 5, 4, seed=3)}


def test_renamed_and_rearranged_values_are_held() -> None:
    q, k, v = FILE["qkv"].chunk(3)
    loaded = {"q": q, "k": k, "v": v, "fc": torch.cat([FILE["w1"], FILE["w2"]]), "pos": values(1, 9, 4, seed=4)}
    assert find_lost(FILE, loaded) == []  # the positions were resampled, so both hold other numbers of values
    transposed = {name: value.transpose(0, 1) for name, value in loaded.items()}
    assert find_lost(FILE, transposed | {"q": q, "k": k, "v": v, "fc": loaded["fc"]}) == []


@pytest.mark.parametrize("lost", ["qkv", "w1", "w2"])
def test_each_lost_tensor_is_named(lost: str) -> None:
    loaded = {f"other {name}": value for name, value in FILE.items() if name != lost}
    assert find_lost(FILE, loaded) == [lost]


def test_a_third_that_is_lost_is_found_unless_it_is_zero() -> None:
    q, k, v = FILE["qkv"].chunk(3)
    assert find_lost({"qkv": FILE["qkv"]}, {"q": q, "v": v}) == ["qkv"]
    assert find_lost({"qkv": torch.cat([q, torch.zeros_like(k), v])}, {"q": q, "v": v}) == []
    assert find_lost({"bias": torch.zeros(5)}, {"q": q}) == []


def test_what_only_a_training_reads_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    state = FILE | {"mask_token": values(1, 4), "local_cls_norm.weight": values(4)}
    with caplog.at_level(logging.INFO):
        check_complete(state, FILE, where="file.bin")
    assert "file.bin: left out, since only a training reads them: local_cls_norm.weight, mask_token" in caplog.text
    with pytest.raises(WeightsError, match="file.bin: the model has no place for 1 tensors of the file: w2; try this"):
        check_complete(state, {name: FILE[name] for name in ("qkv", "w1", "pos")}, where="file.bin", hint="try this")
