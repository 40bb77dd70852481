"""Checkpoints from which a run resumes exactly, on any number of processes.

Whatever is random depends on (seed, iteration) or (seed, sample number), so no generator's state is stored: weights,
centers, moments of the optimizer and one integer are everything. A checkpoint is a folder:

    step-00001000/checkpoint.json     iterations, samples consumed, what two runs must share to be one
                  state/*.safetensors tensors, as torch.distributed.checkpoint spreads them over ranks
                  backbone.safetensors, heads.safetensors    exports of the teacher

Three difficulties. Training should not wait for the disk: the state is copied, which takes as long as a copy in memory,
and a thread writes the copy while training goes on; its collectives run in a process group of their own, since those
of two threads must not mix. A crash must leave no half checkpoint that looks whole: all is written under another name,
flushed, and renamed by rank 0 after all ranks are done. And a run may go on with other numbers of processes: every rank
writes the shards that it holds, and reads those that it then needs, as torch.distributed.checkpoint finds them in the
files. The files are safetensors, so that reading one cannot run code.
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
from curate.interrupt import stays
from curate.trainer.parallel import World

FORMAT = 2
NAME = re.compile(r"step-(\d{8})")
WRITING = ".writing"
"""End of the name of a checkpoint that is not whole yet."""
STATE, METADATA = "state", "checkpoint.json"
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
    """Writes checkpoints while training goes on, one at a time; all ranks make the same calls."""

    def __init__(self, folder: Path, world: World, *, keep: int) -> None:
        self._folder, self._world, self._keep = folder, world, keep
        self._group = dist.new_group(backend="gloo") if world.size > 1 else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._under_way: Future[None] | None = None

    def save(self, step: int, state: State, metadata: Mapping[str, Any], export: Callable[[Path], None]) -> None:
        """Copy `state` and begin to write it; returns before it is written.

        Args:
            state: tensors by name; shards (DTensor) are written by the rank that holds them.
            metadata: JSON-ready values for `read_metadata`.
            export: writes the exports into the folder that it is given; called on rank 0 alone.

        Raises:
            WorkdirError: the checkpoint before this one could not be written.
        """
        self.wait()
        stager = DefaultStager(StagingOptions(False, False, False, False))
        copied = stager.stage(dict(state))
        stager.close()
        self._under_way = self._thread.submit(self._write, step, copied, dict(metadata), export)

    def wait(self) -> None:
        """Wait until what was begun is written.

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

    def _write(self, step: int, state: Any, metadata: dict[str, Any], export: Callable[[Path], None]) -> None:
        path = checkpoint_path(self._folder, step)
        temporary = path.with_name(path.name + WRITING)
        try:
            (temporary / STATE).mkdir(parents=True, exist_ok=True)
            with warnings.catch_warnings(action="ignore"):
                writer = HuggingFaceStorageWriter(str(temporary / STATE), save_distributed=True)
                dcp.save(state, storage_writer=writer, process_group=self._group, no_dist=self._world.size == 1)
            if self._world.is_first:
                export(temporary)
                _write_metadata(temporary / METADATA, {"format": FORMAT, "step": step, **metadata})
                _publish(temporary, path)
                tell_checkpoint(step, path)
                prune_checkpoints(self._folder, self._keep)
        except (Exception, CheckpointException) as error:  # torch wraps what the system said in types of its own
            shutil.rmtree(temporary, ignore_errors=True)
            raise WorkdirError(
                f"{path}: the checkpoint cannot be written: {_main_line(error)}; free space and rerun"
            ) from error


def tell_checkpoint(step: int, path: Path) -> None:
    """Let a Ctrl-C say from where the training goes on."""
    stays(f"the training goes on from the checkpoint after iteration {step}, {path}")


def _write_metadata(path: Path, metadata: Mapping[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(metadata, file)
        file.flush()
        os.fsync(file.fileno())


def _publish(temporary: Path, path: Path) -> None:
    """Rename once every file is on the disk: a crash leaves no damaged checkpoint."""
    for file in temporary.rglob("*.safetensors"):
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    temporary.replace(path)


def read_metadata(path: Path) -> dict[str, Any]:
    """The format, the iterations done, and the metadata that `save` was given.

    Raises:
        WorkdirError: it is damaged, or of another version of the trainer.
    """
    try:
        metadata = json.loads((path / METADATA).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged_checkpoint(path, error) from error
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise WorkdirError(f"checkpoint {path}: not of format {FORMAT}, which this trainer reads; remove it")
    return metadata


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
        raise _damaged_checkpoint(path, error) from error


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


def _damaged_checkpoint(path: Path, error: BaseException) -> WorkdirError:
    reason = _main_line(error)
    return WorkdirError(
        f"checkpoint {path}: cannot be read ({reason}); remove it, and the run goes on from the one before it"
    )


def _main_line(error: BaseException) -> str:
    """The line of an error that says what happened: the last where torch gathers errors of all ranks, with traces."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[-1] if isinstance(error, CheckpointException) else lines[0]
