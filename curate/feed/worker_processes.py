"""Worker processes that no signal meant for the training ends: the training notes it, and needs batches to its end.

Slurm sends the SIGTERM of a preemption to every process of a step, and a terminal its Ctrl-C to all in front. A loader
that died of it would take the iteration under way along, before the checkpoint is written. So both signals are blocked
in the workers from their first instruction on, and who started them ends them by SIGKILL.
"""

import os
import signal
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.popen_spawn_posix import Popen
from typing import Any


class _Popen(Popen):
    def _launch(self, process_obj: Any) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})  # the child inherits it
        try:
            super()._launch(process_obj)  # type: ignore[misc]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def terminate(self) -> None:
        """As `kill`: a worker that hangs would not hear of SIGTERM."""
        self.kill()


class WorkerProcess(SpawnProcess):
    """A process that SIGTERM and SIGINT do not reach, and that ends with its work.

    Interpreters that were taken down with threads of libraries still alive have aborted now and then, after all batches
    were made; torch's loader tells of that as an error, wherever the training then is. Nothing is left to take down.
    """

    def run(self) -> None:
        """Do the work, and end."""
        super().run()
        os._exit(0)

    @staticmethod
    def _Popen(process_obj: Any) -> Popen:
        return _Popen(process_obj)


class WorkerContext(SpawnContext):
    """Starts such processes. They are spawned: a fork would inherit locked locks of torch's threads."""

    Process = WorkerProcess  # type: ignore[assignment]
