"""Tensors by name: read from weight files without running anything in them, and loaded into networks."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from curate.errors import WeightsError, foreign_text
from curate.models.files.sealed_tensors import check_seal
from curate.models.files.weights import find_weight_file

StateDict = dict[str, Tensor]
"""What `nn.Module.state_dict` gives."""

WRAPPERS = ("state_dict", "model", "teacher")
"""Keys under which training scripts put the weights into a torch file."""


def read_state_dict(path: str | Path) -> StateDict:
    """The tensors of a weight file, on the CPU; nothing in the file is ever executed.

    Args:
        path: a .safetensors or torch file, or a Hugging Face folder that holds one.

    Raises:
        WeightsError: missing, damaged (exports of ours carry a digest), or a pickle with more than tensors.
    """
    file = find_weight_file(path)
    if file.suffix == ".safetensors":
        try:
            check_seal(file)
            return load_file(file)
        except WeightsError:
            raise
        except Exception as error:  # also types that torch does not know, and more than fits the memory
            raise WeightsError(f"{file}: not a readable safetensors file: {foreign_text(error)}") from error
    _refuse_compressed(file)
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle can fail in any way
        raise WeightsError(
            f"{file}: cannot be read as a torch file of plain tensors ({foreign_text(error) or type(error).__name__}); "
            "files that run code are refused: save the state_dict alone, or as .safetensors"
        ) from error
    return _unwrap(loaded, file)


def _refuse_compressed(file: Path) -> None:
    """torch stores tensors as they are; a file that says otherwise would grow in memory."""
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (OSError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile):
        return  # of an earlier version of torch, or none: it will say so
    if size > file.stat().st_size:
        raise WeightsError(
            f"{file}: {file.stat().st_size} bytes that unpack to {size}; torch writes tensors as they are: save the "
            "state_dict again"
        )


def _unwrap(loaded: object, file: Path) -> StateDict:
    for key in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{file}: holds a {type(loaded).__name__}, a state_dict (name to tensor) is needed")
    others = [str(key) for key, value in loaded.items() if not _is_plain(value)]
    if others:
        raise WeightsError(f"{file}: not a state_dict: {abridged(others)} are no plain tensors")
    return {str(key).removeprefix("module."): value for key, value in loaded.items()}


def _is_plain(value: object) -> bool:
    """Whether something is a tensor that holds all of its values, none of them twice."""
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_quantized:
        return False
    return value.device.type == "cpu" and value.nbytes <= value.untyped_storage().nbytes()


def fill(model: nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Load the tensors of `state` into `model`; names and shapes must be the same.

    Raises:
        WeightsError: names missing or unknown, or shapes that differ, with what was found and needed; or whole numbers
            where weights have fractions, which a copy would hide.
    """
    wanted = model.state_dict()
    check_names(state, {key: tuple(value.shape) for key, value in wanted.items()}, where=where)
    whole = sorted(key for key, value in state.items() if wanted[key].is_floating_point() > value.is_floating_point())
    if whole:
        raise WeightsError(
            f"{where}: {abridged(whole)} hold {state[whole[0]].dtype}, floating-point numbers are needed; is the model "
            "quantized? Give the file of its plain weights"
        )
    model.load_state_dict(dict(state))


def check_names(
    state: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], *, where: str, owner: str = "the model"
) -> None:
    """Check that names and shapes are exactly those that `owner`, a phrase for the message, needs.

    Raises:
        WeightsError: names missing or unknown, or shapes that differ, with what was found and needed.
    """
    problems = []
    missing = sorted(wanted.keys() - state.keys())
    unknown = sorted(state.keys() - wanted.keys())
    shapes = [
        f"{key} has {tuple(value.shape)}, {owner} needs {wanted[key]}"
        for key, value in state.items()
        if key in wanted and tuple(value.shape) != wanted[key]
    ]
    if missing:
        problems.append(f"missing {abridged(missing)}")
    if unknown:
        problems.append(f"unknown {abridged(unknown)}")
    problems += shapes[:3]
    if problems:
        raise WeightsError(f"{where}: does not fit {owner}: {'; '.join(problems)}; is it another model's file?")


def abridged(names: list[str], limit: int = 4) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
