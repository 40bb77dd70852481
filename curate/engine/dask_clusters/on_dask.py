"""Tasks on the workers of a Dask client."""

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from curate.engine.dask_clusters.watch import Watch
from curate.engine.tasks import Done, Task, perform
from curate.errors import WorkerDied

WINDOW = 4096
"""Tasks that a scheduler holds at once: enough for thousands of workers, little for its memory."""

LOOK_S = 2.0
"""Seconds without a finished part after which the workers are looked at."""


class OnDask:
    """Tasks on the workers of a Dask client; a killed worker costs only the parts it was making."""

    def __init__(self, client: Any, threads: int, *, watch: Watch | None = None, window: int = WINDOW) -> None:
        self.client, self.threads, self.window = client, threads, window
        self.watch = watch or Watch(client)

    def run(self, root: str, tasks: Sequence[Task]) -> Iterator[list[Done]]:
        """Submit the tasks, `window` at once; one that fails cancels the others.

        Raises:
            WorkerDied: every worker that a task was given to died of it, or with it.
            ClusterError: the scheduler is gone, or workers cannot do the work: they lack the package, have another
                version of it, or do not see the workdir.
        """
        self.watch.await_workers(root)
        offered, waiting = self.watch.offered(), iter(tasks)
        running: dict[Any, Task] = {}
        finished: SimpleQueue[Any] = SimpleQueue()

        def submit(number: int) -> None:
            for task in itertools.islice(waiting, number):
                future = self._submit(root, task, offered)
                running[future] = task
                future.add_done_callback(finished.put)

        try:
            submit(self.window)
            while running:
                try:
                    future = finished.get(timeout=LOOK_S)
                except Empty:
                    self.watch.look(root)
                    continue
                done = self._result(root, future, running.pop(future))
                future.release()
                self.watch.source.worked()
                submit(1)
                yield done
        except Exception:  # ends the run; what is committed stays. On Ctrl-C the client goes, and its tasks with it
            with suppress(Exception):  # without a scheduler there is nothing to cancel
                self.client.cancel(list(running))
            raise

    def _result(self, root: str, future: Any, task: Task) -> list[Done]:
        from distributed import KilledWorker

        if future.cancelled():  # nobody here cancels one that is waited for
            raise self.watch.lost()
        try:
            return future.result()  # type: ignore[no-any-return]
        except KilledWorker as error:
            raise WorkerDied(
                f"{task}: {error.allowed_failures + 1} workers died making this part, the last one at "
                f"{error.last_worker}. If they ran out of memory (the worker's log tells), give them more "
                "(executor.memory_limit) or smaller parts (rows_per_part of a new workdir); what is committed "
                "stays: run again to go on"
            ) from error
        except Exception as error:
            if not getattr(error, "__notes__", None):  # it never came as far as `perform`
                self.watch.check_all(root)
            raise

    def _submit(self, root: str, task: Task, offered: set[str]) -> Any:
        with self.watch.explained():
            return self.client.submit(
                perform,
                root,
                task,
                self.threads,
                key=f"{task.label}-{task.part}-{time.time_ns()}",
                pure=False,
                retries=0,
                resources={k: v for k, v in task.resources.items() if k in offered} or None,
            )
