"""Checkpoints from which a run resumes exactly, on any number of processes.

Whatever is random depends on (seed, iteration) or (seed, sample number), so no generator's state is stored: weights,
centers, moments of the optimizer and one integer are everything. A checkpoint is a folder:

    step-00001000/checkpoint.json     iterations, samples consumed, what two runs must share to be one; the SHA-256 of
                                      every other file here, and of its own text
                  log.jsonl           rows of the log until then
                  state/*.safetensors tensors, as torch.distributed.checkpoint spreads them over ranks
                  backbone.safetensors, heads.safetensors    exports of the teacher

Three difficulties. Training should not wait for the disk: the state is copied in memory (`staging.py`), and a thread
writes the copy while training goes on; its collectives run in a process group of their own, since those of two threads
must not mix. A crash must leave no half checkpoint that looks whole: all is written under another name,
flushed, and renamed by rank 0 after all ranks are done. And a run may go on with other numbers of processes: every rank
writes the shards that it holds, and reads those that it then needs, as torch.distributed.checkpoint finds them in the
files. The files are safetensors, so that reading one cannot run code.

Disks lie, so a start hashes the newest checkpoint before it reads it, and goes on from the one before where it is not
what was written: iterations are random by their number alone, so that the run still ends with the same weights.
"""

import hashlib
import logging
import os
import re
import shutil
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException

from curate.errors import WorkdirError
from curate.interrupt import stays
from curate.sealed_json import dump_sealed, load_sealed
from curate.trainer.parallel import World
from curate.trainer.staging import Copied, Staging, State

logger = logging.getLogger(__name__)

FORMAT = 2
NAME = re.compile(r"step-(\d{8})")
WRITING = ".writing"
"""End of the name of a checkpoint that is not whole yet."""
ASIDE = ".aside"
"""End of the name of the folder of checkpoints that a fresh start is about to replace."""
DAMAGED = ".damaged"
"""End of the name of a checkpoint that was passed over; it goes when the next one is written."""
STATE, METADATA = "state", "checkpoint.json"
FILES = "files"
"""Key of the metadata: the SHA-256 of every other file, by its path within the checkpoint."""
PARTIAL_EXPORT = ".export-*"
"""Folders in which `write_export` makes an export before it publishes it."""


class DamagedCheckpoint(WorkdirError):
    """A checkpoint does not hold what was written."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint made after `step` iterations lies."""
    return folder / f"step-{step:08d}"


@contextmanager
def set_aside(folder: Path) -> Iterator[None]:
    """Put all checkpoints away that a fresh start replaces; they are back where the start fails."""
    aside = folder.with_name(folder.name + ASIDE)
    if not folder.is_dir():
        yield
        return
    folder.rename(aside)
    try:
        yield
    except BaseException:
        aside.rename(folder)
        raise
    shutil.rmtree(aside)


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(iterations done, path) of every checkpoint, oldest first; half-written ones have another name."""
    found = [(NAME.fullmatch(path.name), path) for path in folder.glob("step-*")]
    return sorted((int(match[1]), path) for match, path in found if match)


class CheckpointWriter:
    """Writes checkpoints while training goes on, one at a time; all ranks make the same calls."""

    def __init__(self, folder: Path, world: World, *, keep: int, beside: bool = False) -> None:
        """`beside`: whether tensors that `save` is told of are copied beside the computation, as a GPU can."""
        self._folder, self._world, self._keep = folder, world, keep
        self._staging = Staging(beside=beside)
        self._group: Any = dist.new_group(backend="gloo") if world.size > 1 else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._under_way: Future[None] | None = None

    def save(
        self,
        step: int,
        state: State,
        metadata: Mapping[str, Any],
        export: Callable[[Path], None],
        *,
        late: Collection[str] = (),
    ) -> None:
        """Copy `state` and begin to write it; returns before it is written.

        Args:
            state: tensors by name; shards (DTensor) are written by the rank that holds them.
            metadata: JSON-ready values for `read_metadata`.
            export: writes the exports into the folder that it is given; called on rank 0 alone.
            late: names of tensors that do not change before `wait_for_copy`.

        Raises:
            WorkdirError: the checkpoint before this one could not be written.
        """
        self.wait()
        copied = self._staging.copy(state, late)
        self._under_way = self._thread.submit(self._write, step, copied, dict(metadata), export)

    def wait_for_copy(self) -> None:
        """Wait until the tensors that are copied late may change."""
        self._staging.wait()

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
            self._staging.close()

    def _hash_files(self, folder: Path) -> dict[str, str]:
        """SHA-256 of every file of a checkpoint, each rank some of them; the files of all ranks must be there."""
        world = self._world
        if world.size > 1:
            dist.barrier(group=self._group)  # rank 0 writes the exports
        mine = {name: _hash_file(folder / name) for name in _files(folder)[world.rank :: world.size]}
        found: list[Any] = [mine] * world.size
        if world.size > 1:
            dist.all_gather_object(found, mine, group=self._group)
        return {name: one[name] for one in found for name in sorted(one)}

    def _write(self, step: int, copied: Copied, metadata: dict[str, Any], export: Callable[[Path], None]) -> None:
        path = checkpoint_path(self._folder, step)
        temporary = path.with_name(path.name + WRITING)
        try:
            (temporary / STATE).mkdir(parents=True, exist_ok=True)
            with warnings.catch_warnings(action="ignore"):
                writer = HuggingFaceStorageWriter(str(temporary / STATE), save_distributed=True)
                dcp.save(copied(), storage_writer=writer, process_group=self._group, no_dist=self._world.size == 1)
            if self._world.is_first:
                export(temporary)
            files = self._hash_files(temporary)
            if self._world.is_first:
                (temporary / METADATA).write_bytes(
                    dump_sealed({"format": FORMAT, "step": step, **metadata, FILES: files})
                )
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


def _publish(temporary: Path, path: Path) -> None:
    """Rename once every file is on the disk: a crash leaves no damaged checkpoint."""
    for entry in (*temporary.rglob("*"), temporary):
        _flush(entry)
    temporary.replace(path)
    _flush(path.parent)


def _flush(entry: Path) -> None:
    handle = os.open(entry, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _files(folder: Path) -> list[str]:
    """Paths within a checkpoint of all its files but the metadata, in order."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != METADATA)


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_metadata(path: Path) -> dict[str, Any]:
    """The format, the iterations done, and the metadata that `save` was given.

    Raises:
        WorkdirError: it is damaged, or of another version of the trainer.
    """
    try:
        metadata = load_sealed((path / METADATA).read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged_checkpoint(path, error) from error
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise WorkdirError(f"checkpoint {path}: not of format {FORMAT}, which this trainer reads; remove it")
    return metadata


def check_files(path: Path) -> None:
    """Hash every file of a checkpoint; one of an earlier version, which has no digests, passes.

    Raises:
        WorkdirError: a file is missing, or not the one that was written.
    """
    wanted = read_metadata(path).get(FILES)
    if wanted is None:
        return
    there = set(_files(path))
    if not isinstance(wanted, dict) or not wanted.keys() <= there:
        missing = sorted(set(wanted) - there)[:1] if isinstance(wanted, dict) else ["a list of its files"]
        raise _damaged_checkpoint(path, ValueError(f"{missing[0]} is missing"))
    for name, digest in wanted.items():
        try:
            found = _hash_file(path / name)
        except OSError as error:
            raise _damaged_checkpoint(path, error) from error
        if found != digest:
            raise _damaged_checkpoint(path, ValueError(f"{name} does not have the sha256 that was written"))


def pass_over_damaged(folder: Path) -> None:
    """Put the newest checkpoints aside as long as they are damaged; only for the holder of the lock.

    Raises:
        WorkdirError: there are checkpoints, and all of them are damaged.
    """
    damaged: list[Path] = []
    paths = [path for _, path in list_checkpoints(folder)]
    while paths:
        try:
            check_files(paths[-1])
            break
        except DamagedCheckpoint as error:
            damaged.append(paths.pop())
            if not paths:
                raise WorkdirError(
                    f"{str(error).partition(';')[0]}, and there is none before it; restore it, or remove {folder} to "
                    "start anew"
                ) from error
            logger.warning("%s: going on from %s", str(error).partition(";")[0], paths[-1].name)
    for path in damaged:
        path.rename(path.with_name(path.name + DAMAGED))


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
    for path in folder.glob(f"step-*{DAMAGED}"):
        shutil.rmtree(path)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run had begun to write; only for the holder of the lock."""
    aside = folder / f"checkpoints{ASIDE}"
    if aside.is_dir() and not (folder / "checkpoints").exists():
        aside.rename(folder / "checkpoints")  # a fresh start was killed before it began
    shutil.rmtree(aside, ignore_errors=True)
    for place in (folder, folder / "checkpoints"):
        for part in (*place.glob(PARTIAL_EXPORT), *place.glob(f"step-*{WRITING}")):
            shutil.rmtree(part)


def _damaged_checkpoint(path: Path, error: BaseException) -> DamagedCheckpoint:
    reason = _main_line(error)
    return DamagedCheckpoint(
        f"checkpoint {path}: cannot be read ({reason}); remove it, and the run goes on from the one before it"
    )


def _main_line(error: BaseException) -> str:
    """The line of an error that says what happened: the last where torch gathers errors of all ranks, with traces."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[-1] if isinstance(error, CheckpointException) else lines[0]
