"""Weight files appear whole or not at all: written beside their place, flushed, then renamed."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from curate.errors import WeightsError

KEY = "curate"
"""Key of a .safetensors' metadata under which our files describe themselves, as JSON."""


@contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Give a temporary place for a file or folder; what lies there at the end takes the place of `path`.

    An error inside leaves `path` as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as scratch:
        partial = Path(scratch) / path.name
        yield partial
        for file in [partial, *partial.rglob("*")]:
            if file.is_dir():
                continue
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        if path.is_dir():  # a rename replaces files, but no folder with something in it
            path.rename(Path(scratch) / f"{path.name}.old")
        partial.replace(path)


def save_tensors(path: Path, state: Mapping[str, Tensor], described: Mapping[str, Any]) -> Path:
    """Publish a .safetensors with `described` in its metadata; equal content gives equal bytes.

    Raises:
        WeightsError: `path` is not a .safetensors, or cannot be written.
    """
    if path.suffix != ".safetensors":
        raise WeightsError(f"{path}: exports are .safetensors files; name it {path.with_suffix('.safetensors')}")
    plain = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    with publishing(path) as partial:
        try:
            save_file(plain, partial, metadata={KEY: json.dumps(described, sort_keys=True)})
        except SafetensorError as error:  # it wraps what the system said, such as a full disk
            raise WeightsError(f"{path}: cannot be written: {error}; make room or choose another output") from error
    return path


def read_description(file: Path, *, needed: str) -> dict[str, Any]:
    """What `save_tensors` was given as `described`; `needed` ends the error where a file has none.

    Raises:
        WeightsError: not a safetensors file, or none of ours.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file}: not a readable safetensors file: {error}") from error
    if KEY not in metadata:
        raise WeightsError(f"{file}: no metadata {KEY!r}: {needed}")
    try:
        return json.loads(metadata[KEY])
    except json.JSONDecodeError as error:
        raise WeightsError(f"{file}: metadata {KEY!r} are not JSON ({error}); export it again") from error
