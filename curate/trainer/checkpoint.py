"""Checkpoints from which a run resumes exactly.

Whatever is random depends on (seed, iteration) or (seed, sample number), so no generator's state is stored:
weights, centres, moments of the optimiser and one integer are everything.
"""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from curate.errors import WorkdirError

FORMAT = 1
NAME = re.compile(r"step-(\d{8})\.pt")
WRITING = ".writing"
"""Ends the name of a file that is not whole yet."""
PARTIAL_EXPORT = ".export-*"
"""Folders in which `write_export` makes an export before it publishes it."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint made after `step` iterations lies."""
    return folder / f"step-{step:08d}.pt"


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(iterations done, path) of every checkpoint, oldest first; half-written files have another name."""
    found = [(NAME.fullmatch(path.name), path) for path in folder.glob("step-*.pt")]
    return sorted((int(match[1]), path) for match, path in found if match)


def save_checkpoint(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Write `state` under a temporary name, flush it to the disk, rename: a crash leaves no damaged checkpoint.

    Raises:
        WorkdirError: the folder cannot be written, or the disk is full.
    """
    path = checkpoint_path(folder, step)
    temporary = path.with_name(path.name + WRITING)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, "step": step, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        temporary.unlink(missing_ok=True)
        raise WorkdirError(f"{path}: the checkpoint cannot be written: {error}; free space and rerun") from error
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` stored, on the CPU; code in the file is never run.

    Raises:
        WorkdirError: the file is damaged, or of another version of the trainer.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for damaged files
        raise WorkdirError(
            f"checkpoint {path}: cannot be read ({_first_line(error)}); remove it, and the run goes on from the "
            "one before it"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise WorkdirError(f"checkpoint {path}: not of format {FORMAT}, which this trainer reads; remove it")
    return state


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, with the exports beside them."""
    for _, path in list_checkpoints(folder)[:-keep]:
        path.unlink()
        path.with_suffix(".safetensors").unlink(missing_ok=True)


def remove_checkpoints(folder: Path) -> None:
    """Remove every checkpoint, for a run that starts anew."""
    for _, path in list_checkpoints(folder):
        path.unlink()
        path.with_suffix(".safetensors").unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run had begun to write; only for the holder of the lock."""
    for place in (folder, folder / "checkpoints"):
        for export in place.glob(PARTIAL_EXPORT):
            shutil.rmtree(export)
        for path in place.glob(f"*{WRITING}"):
            path.unlink()


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
