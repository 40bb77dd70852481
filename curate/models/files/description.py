"""Weight files of ours describe themselves: JSON in the metadata of a .safetensors, or in a config.json beside it.

Descriptions are read without torch, since a plan needs no more than the dimensions of a model.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from curate.errors import WeightsError
from curate.models.files.publish import publishing
from curate.models.files.sealed_tensors import DIGEST, UNSET, seal

if TYPE_CHECKING:
    from torch import Tensor

KEY = "curate"
"""Key of the description: in the metadata of a .safetensors, or in a config.json beside it."""
HUGGINGFACE_FILES = ("model.safetensors", "config.json")
"""Names of the two files in a Hugging Face folder: the tensors, and the description beside them."""


def save_tensors(path: Path, state: Mapping[str, "Tensor"], described: Mapping[str, Any]) -> Path:
    """Write a .safetensors with `described` in its metadata; equal content gives equal bytes.

    Raises:
        WeightsError: `path` is not a .safetensors, or cannot be written.
    """
    if path.suffix != ".safetensors":
        raise WeightsError(f"{path}: exports are .safetensors files; name it {path.with_suffix('.safetensors')}")
    from safetensors.torch import save_file

    plain = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    with publishing(path) as partial:
        try:
            save_file(plain, partial, metadata={KEY: json.dumps({**described, DIGEST: UNSET}, sort_keys=True)})
            seal(partial)
        except SafetensorError as error:  # it wraps what the system said, such as a full disk
            raise WeightsError(f"{path}: cannot be written: {error}; make room or choose another output") from error
    return path


def read_description(file: Path, *, needed: str) -> dict[str, Any]:
    """The description that `save_tensors` wrote.

    Args:
        needed: end of the message where the file has none: what is needed instead.

    Raises:
        WeightsError: not a safetensors file, or without a description.
    """
    described = find_description(file)
    if described is None:
        raise WeightsError(f"{file}: no metadata {KEY!r}: {needed}")
    return described


def find_description(file: Path) -> dict[str, Any] | None:
    """The description that `save_tensors` wrote; None where the file has none.

    Raises:
        WeightsError: not a safetensors file, or metadata that are damaged.
    """
    try:
        with safe_open(file, framework="numpy") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file}: not a readable safetensors file: {error}") from error
    try:
        if KEY in metadata:
            described = json.loads(metadata[KEY])
            return {key: value for key, value in described.items() if key != DIGEST}
        weights, config = HUGGINGFACE_FILES
        if file.name == weights and file.with_name(config).is_file():
            return json.loads(file.with_name(config).read_bytes()).get(KEY)
    except (json.JSONDecodeError, AttributeError) as error:
        raise WeightsError(f"{file}: metadata {KEY!r} are not JSON ({error}); export it again") from error
    return None
