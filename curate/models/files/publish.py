"""Weight files appear whole or not at all: written beside their place, flushed, then renamed."""

import filecmp
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
"""Key under which our files describe themselves: JSON in a .safetensors' metadata, or in a config.json beside it."""
HUGGINGFACE = ("model.safetensors", "config.json")
"""Names in a folder whose tensors are described beside them."""


@contextmanager
def publishing(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Give a temporary place for a file or folder; what lies there at the end takes the place of `path`.

    Files that were made beside it, such as external data, move along, before it. An error inside leaves all as it was.

    Raises:
        WeightsError: something else is there already, without `overwrite` (equal content is no error); or a folder
            with files that would be lost.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as scratch:
        partial = Path(scratch) / path.name
        yield partial
        probe = Path(scratch) / ".mode"
        probe.touch()
        mode = probe.stat().st_mode  # as the user's umask says; safetensors makes files that nobody else may read
        probe.unlink()
        made = [*sorted(entry for entry in Path(scratch).iterdir() if entry != partial), partial]
        for entry in made:
            target = path.parent / entry.name
            if not overwrite and target.exists() and not same_content(entry, target):
                raise WeightsError(f"{target}: exists and differs; choose another output, or give --overwrite")
            others = sorted(_names(target) - _names(entry))
            if others:
                raise WeightsError(f"{target}: holds other files too ({', '.join(others[:4])}); choose another output")
            _flush(entry, mode=mode)
        for entry in made:
            _take_place(entry, path.parent / entry.name, aside=Path(scratch) / "old")


def same_content(first: Path, second: Path) -> bool:
    """Whether two files, or two flat folders, hold the same bytes."""
    if first.is_dir() and second.is_dir():
        names = _names(first)
        return names == _names(second) and all(same_content(first / name, second / name) for name in names)
    return first.is_file() and second.is_file() and filecmp.cmp(first, second, shallow=False)


def _names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()


def _take_place(entry: Path, target: Path, *, aside: Path) -> None:
    if target.exists() and (target.is_dir() or entry.is_dir()):  # a rename replaces nothing but a file by a file
        target.rename(aside)
    entry.replace(target)


def _flush(entry: Path, *, mode: int) -> None:
    for file in [entry] if entry.is_file() else entry.iterdir():
        file.chmod(mode)
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


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
    described = find_description(file)
    if described is None:
        raise WeightsError(f"{file}: no metadata {KEY!r}: {needed}")
    return described


def find_description(file: Path) -> dict[str, Any] | None:
    """As `read_description`; None where a file has none.

    Raises:
        WeightsError: not a safetensors file, or metadata that are damaged.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file}: not a readable safetensors file: {error}") from error
    try:
        if KEY in metadata:
            return json.loads(metadata[KEY])
        weights, config = HUGGINGFACE
        if file.name == weights and file.with_name(config).is_file():
            return json.loads(file.with_name(config).read_text(encoding="utf-8")).get(KEY)
    except json.JSONDecodeError as error:
        raise WeightsError(f"{file}: metadata {KEY!r} are not JSON ({error}); export it again") from error
    return None
