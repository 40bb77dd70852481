"""Tensors by name: read from weight files without running anything in them, and loaded into networks."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from curate.errors import WeightsError, first_line
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
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{file}: not a readable safetensors file: {error}") from error
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise WeightsError(
            f"{file}: cannot be read as a torch file of plain tensors ({first_line(error)}); "
            "files that run code are refused: save the state_dict alone, or as .safetensors"
        ) from error
    return _unwrap(loaded, file)


def _unwrap(loaded: object, file: Path) -> StateDict:
    for key in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{file}: holds a {type(loaded).__name__}, a state_dict (name to tensor) is needed")
    others = [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
    if others:
        raise WeightsError(f"{file}: not a state_dict: {abridged(others)} are no tensors")
    return {str(key).removeprefix("module."): value for key, value in loaded.items()}


def fill(model: nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Load the tensors of `state` into `model`; names and shapes must be the same.

    Raises:
        WeightsError: names missing or unknown, or shapes that differ, with what was found and needed.
    """
    check_names(state, {key: tuple(value.shape) for key, value in model.state_dict().items()}, where=where)
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
