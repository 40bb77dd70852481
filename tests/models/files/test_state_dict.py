import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from curate.errors import WeightsError
from curate.models.files.description import find_description
from curate.models.files.state_dict import StateDict, fill, read_state_dict
from curate.models.nets.config import ViTConfig
from curate.models.nets.vit import VisionTransformer

SMALL = ViTConfig(dim=48, depth=2, heads=3, image_size=56)


def states_equal(first: StateDict, second: StateDict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "teacher"])
def test_torch_and_safetensors_files_load_alike(wrapper: str | None, tmp_path: Path) -> None:
    state = dict(VisionTransformer(SMALL).state_dict())
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 3}, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors")
    assert states_equal(read_state_dict(tmp_path / "a.pth"), state)
    assert states_equal(read_state_dict(tmp_path / "a.safetensors"), state)


class Payload:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_a_file_that_runs_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1), "evil": Payload(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match=r"evil.pth: cannot be read .* files that run code are refused"):
        read_state_dict(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_unreadable_weight_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none.pth: no such weight file"):
        read_state_dict(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match=r"a folder without model.safetensors or pytorch_model.bin"):
        read_state_dict(tmp_path)
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(WeightsError, match=r"cut.safetensors: not a readable safetensors file"):
        read_state_dict(tmp_path / "cut.safetensors")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(WeightsError, match=r"cut.pth: cannot be read as a torch file"):
        read_state_dict(tmp_path / "cut.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match=r"list.pth: holds a list, a state_dict"):
        read_state_dict(tmp_path / "list.pth")
    torch.save({"weight": torch.zeros(1), "epoch": 3}, tmp_path / "mixed.pth")
    with pytest.raises(WeightsError, match=r"mixed.pth: not a state_dict: epoch are no plain tensors"):
        read_state_dict(tmp_path / "mixed.pth")


def test_weights_of_another_shape_say_what_differs() -> None:
    state = dict(VisionTransformer(SMALL).state_dict())
    smaller = VisionTransformer(SMALL.model_copy(update={"depth": 1}))
    with pytest.raises(WeightsError, match=r"x.pth: does not fit the model: unknown blocks.1.attn.proj.bias, "):
        fill(smaller, state, where="x.pth")
    state["cls_token"] = torch.zeros(1, 1, 7)
    del state["norm.bias"]
    with pytest.raises(
        WeightsError, match=r"missing norm.bias; cls_token has \(1, 1, 7\), the model needs \(1, 1, 48\)"
    ):
        fill(VisionTransformer(SMALL), state, where="x.pth")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(1 << 40),
        torch.zeros(4, device="meta"),
        torch.eye(2).to_sparse(),
        torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8),
    ],
    ids=["expanded", "meta", "sparse", "quantized"],
)
def test_tensors_that_are_more_or_less_than_their_values_are_refused(tensor: torch.Tensor, tmp_path: Path) -> None:
    torch.save({"weight": tensor}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a.pth: (not a state_dict: weight are no plain tensors|cannot be read)"):
        read_state_dict(tmp_path / "a.pth")


def test_whole_numbers_in_the_place_of_weights_are_refused() -> None:
    """Torch would copy them, rounded as they are."""
    model = VisionTransformer(SMALL)
    state = dict(model.state_dict())
    fill(model, {name: value.half() for name, value in state.items()}, where="half.pth")
    wrong = {name: value.long() if ".mlp.fc1." in name else value for name, value in state.items()}
    with pytest.raises(
        WeightsError, match=r"q.pth: blocks.0.mlp.fc1.bias, .* hold torch.int64, floating-point numbers"
    ):
        fill(model, wrong, where="q.pth")


def test_an_empty_torch_file_says_what_torch_calls_it(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").touch()
    with pytest.raises(WeightsError, match=r"empty.pth: cannot be read as a torch file of plain tensors \(EOFError\)"):
        read_state_dict(tmp_path / "empty.pth")


def test_a_torch_file_that_grows_in_memory_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1 << 20)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "bomb.pth", "w") as bomb:
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry), compress_type=zipfile.ZIP_DEFLATED)
    assert (tmp_path / "bomb.pth").stat().st_size < 1 << 16
    with pytest.raises(WeightsError, match=r"bomb.pth: \d+ bytes that unpack to 4\d+; torch writes tensors as they"):
        read_state_dict(tmp_path / "bomb.pth")


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "content",
    [
        (2**63).to_bytes(8, "little"),
        (200_000_000).to_bytes(8, "little") + b"{}",
        safetensors({"a": F32, "b": F32}, bytes(4)),
        safetensors({"a": F32 | {"shape": [2**40]}}, bytes(4)),
        safetensors({"a": F32 | {"data_offsets": [0, 400]}}, bytes(4)),
        safetensors({"a": F32 | {"data_offsets": [4, 0]}}, bytes(4)),
        safetensors({"a": F32 | {"dtype": "F3"}}, bytes(4)),
        safetensors({"a": F32 | {"shape": [2**62, 2**62]}}, bytes(4)),
        safetensors({"a": F32}, bytes(8)),
        safetensors(b"[" * 100_000),
        safetensors(b"\xff\x1b[2J"),
        safetensors({"a": {"dtype": "F8_E8M0", "shape": [1], "data_offsets": [0, 1]}, "b": 1}, bytes(1)),
    ],
)
def test_headers_that_lie_are_errors_that_name_the_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    for read in (read_state_dict, find_description):
        with pytest.raises(WeightsError, match=r"a.safetensors: not a readable safetensors file") as told:
            read(tmp_path / "a.safetensors")
        assert str(told.value).isprintable()


@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: d.replace(b"FloatStorage", b"FloatStorbge")])
def test_damaged_torch_files_are_errors_that_name_the_file(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(100)}, tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(damage(whole))
    with pytest.raises(WeightsError, match=r"a.pth: cannot be read as a torch file of plain tensors"):
        read_state_dict(tmp_path / "a.pth")
