"""Workers that are killed while they make a part: its rows are made, but not committed."""

import os
import signal
from pathlib import Path
from typing import Any

from curate.engine import tasks
from curate.engine.part_writer import PartWriter
from curate.engine.pieces import PieceWriter
from curate.engine.tasks import Done, Task

PERFORM = tasks.perform


class Killing:
    """`perform` that kills its own process the first `times` times that it makes a part of a table and phase.

    The marks of what was killed are files in `folder`, which all processes see.
    """

    def __init__(self, folder: Path, *, only: frozenset[str] | None = None, times: int = 1) -> None:
        self.folder, self.only, self.times = folder, only, times

    def __call__(self, root: str, task: Task, threads: int) -> list[Done]:
        if self.only is None or task.label in self.only:
            for time in range(self.times):
                if self._mark(f"{task.label.replace('/', '_')}-{time}"):
                    PartWriter.close = PieceWriter.close = _die  # type: ignore[method-assign]
                    break
        return PERFORM(root, task, threads)

    def killed(self) -> set[str]:
        return {path.name.rpartition("-")[0] for path in self.folder.iterdir()}

    def _mark(self, name: str) -> bool:
        try:
            (self.folder / name).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def _die(self: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
