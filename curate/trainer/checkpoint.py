"""Checkpoints from which a run resumes exactly, on any number of processes.

Whatever is random depends on (seed, iteration) or (seed, sample number), so no generator's state is stored: weights,
centres, moments of the optimiser and one integer are everything. A checkpoint is a folder:

    step-00001000/checkpoint.json     iterations, samples consumed, what two runs must share to be one
                  state/*.safetensors tensors, as torch.distributed.checkpoint spreads them over ranks
                  backbone.safetensors, heads.safetensors    exports of the teacher
"""

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from curate.errors import WorkdirError
from curate.trainer.parallel import World

FORMAT = 2
NAME = re.compile(r"step-(\d{8})")
WRITING = ".writing"
"""Ends the name of a checkpoint that is not whole yet."""
STATE, TOLD = "state", "checkpoint.json"
PARTIAL_EXPORT = ".export-*"
"""Folders in which `write_export` makes an export before it publishes it."""

State = Mapping[str, Tensor]


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint made after `step` iterations lies."""
    return folder / f"step-{step:08d}"


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(iterations done, path) of every checkpoint, oldest first; half-written ones have another name."""
    found = [(NAME.fullmatch(path.name), path) for path in folder.glob("step-*")]
    return sorted((int(match[1]), path) for match, path in found if match)


class CheckpointWriter:
    """Writes checkpoints behind the training's back, one at a time; all ranks make the same calls."""

    def __init__(self, folder: Path, world: World, *, keep: int) -> None:
        self._folder, self._world, self._keep = folder, world, keep
        # Of its own, since the thread's collectives must not mix with those of the training.
        self._group = dist.new_group(backend="gloo") if world.size > 1 else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._under_way: Future[None] | None = None

    def save(self, step: int, state: State, told: Mapping[str, Any], export: Callable[[Path], None]) -> None:
        """Copy `state` and begin to write it; returns before it is written.

        Args:
            state: tensors by name; shards (DTensor) are written by the rank that holds them.
            told: JSON-ready, for `read_told`.
            export: writes the exports into the folder it is given, on rank 0 alone.

        Raises:
            WorkdirError: the checkpoint before this one could not be written.
        """
        self.wait()
        stager = DefaultStager(StagingOptions(False, False, False, False))
        copied = stager.stage(dict(state))
        stager.close()
        self._under_way = self._thread.submit(self._write, step, copied, dict(told), export)

    def wait(self) -> None:
        """Until what was begun is written.

        Raises:
            WorkdirError: it could not be.
        """
        if self._under_way is not None:
            under_way, self._under_way = self._under_way, None
            under_way.result()

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def _write(self, step: int, state: Any, told: dict[str, Any], export: Callable[[Path], None]) -> None:
        path = checkpoint_path(self._folder, step)
        temporary = path.with_name(path.name + WRITING)
        try:
            (temporary / STATE).mkdir(parents=True, exist_ok=True)
            with warnings.catch_warnings(action="ignore"):
                writer = HuggingFaceStorageWriter(str(temporary / STATE), save_distributed=True)
                dcp.save(state, storage_writer=writer, process_group=self._group, no_dist=self._world.size == 1)
            if self._world.is_first:
                export(temporary)
                _write_told(temporary / TOLD, {"format": FORMAT, "step": step, **told})
                _publish(temporary, path)
                prune_checkpoints(self._folder, self._keep)
        except (Exception, CheckpointException) as error:  # torch wraps what the system said in types of its own
            shutil.rmtree(temporary, ignore_errors=True)
            raise WorkdirError(
                f"{path}: the checkpoint cannot be written: {_reason(error)}; free space and rerun"
            ) from error


def _write_told(path: Path, told: Mapping[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(told, file)
        file.flush()
        os.fsync(file.fileno())


def _publish(temporary: Path, path: Path) -> None:
    """Rename once every file is on the disk: a crash leaves no damaged checkpoint."""
    for file in temporary.rglob("*.safetensors"):
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    temporary.replace(path)


def read_told(path: Path) -> dict[str, Any]:
    """What `save` was told of the checkpoint.

    Raises:
        WorkdirError: it is damaged, or of another version of the trainer.
    """
    try:
        told = json.loads((path / TOLD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise WorkdirError(f"checkpoint {path}: not of format {FORMAT}, which this trainer reads; remove it")
    return told


def load_state(path: Path, state: State, world: World) -> None:
    """Read the tensors of a checkpoint into those of `state`, each rank its own shards.

    Raises:
        WorkdirError: it is damaged, or its tensors are not those of `state`.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            reader = HuggingFaceStorageReader(str(path / STATE))
            dcp.load(dict(state), storage_reader=reader, no_dist=world.size == 1)
    except (Exception, CheckpointException) as error:  # there are many types for damaged files
        raise _damaged(path, error) from error


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints."""
    found = list_checkpoints(folder)
    for _, path in found[: max(0, len(found) - keep)]:
        shutil.rmtree(path)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run had begun to write; only for the holder of the lock."""
    for place in (folder, folder / "checkpoints"):
        for part in (*place.glob(PARTIAL_EXPORT), *place.glob(f"step-*{WRITING}")):
            shutil.rmtree(part)


def _damaged(path: Path, error: BaseException) -> WorkdirError:
    return WorkdirError(
        f"checkpoint {path}: cannot be read ({_reason(error)}); remove it, and the run goes on from the one before it"
    )


def _reason(error: BaseException) -> str:
    """The line that says what happened: of those that torch gathers from ranks, with their traces, the last."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[-1] if isinstance(error, CheckpointException) else lines[0]
