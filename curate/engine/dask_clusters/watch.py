"""Looking after the workers of a run: whether they are there, whether they are fit, and why a driver waits.

A run over a cluster has many ways to stand still: jobs that wait in a queue, workers that end before they join, a
scheduler that is gone. Dask waits for all of them in silence and for ever. Here each is looked for while nothing
finishes; what passes is said every half minute, what does not is an error.
"""

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from curate.engine.dask_clusters.fitness import Report, differing, report, unfit, versions
from curate.engine.store import TEMPORARY, Store
from curate.errors import ClusterError

logger = logging.getLogger(__name__)

SAY_S = 30.0
"""Seconds between two words on why the driver waits."""

ANSWER_S = 60.0
"""Seconds in which a scheduler answers, however busy it is."""

TRIES, BETWEEN_TRIES_S = 6, 2.0
"""How often a worker looks for a new file in the workdir: a network file system may show it late."""


class Source(Protocol):
    """Where workers come from."""

    def look(self) -> None:
        """Replace those that ended before they joined; raises ClusterError where no worker will come."""
        ...

    def worked(self) -> None:
        """A part was made."""
        ...

    def why_none(self) -> str:
        """Why no worker is there."""
        ...


class Elsewhere:
    """Workers that someone else starts."""

    def __init__(self, address: str) -> None:
        self.address = address

    def look(self) -> None:
        """Who starts them looks after them."""

    worked = look

    def why_none(self) -> str:
        start = f"dask worker {self.address} --nthreads 1"
        return f"none has joined the scheduler at {self.address}; start some with `{start}`"


class Here:
    """Workers of this machine."""

    def look(self) -> None:
        """Their nannies start them again."""

    worked = look

    def why_none(self) -> str:
        return "those of this machine are starting"


class Watch:
    """The workers of a client."""

    def __init__(self, client: Any, source: Source | None = None, *, log: Path | None = None) -> None:
        """
        Args:
            log: file for what Dask says in workers of this machine.
        """
        self.client, self.log = client, log
        self.address = str(client.scheduler.address)
        self.source = source or Elsewhere(self.address)
        self._known: set[str] = set()
        self._told: set[str] = set()
        self._nobody_since: float | None = None
        self._said = 0.0

    # -- asking the scheduler --------------------------------------------------------------------------------

    def lost(self) -> ClusterError:
        """The error of a run whose scheduler is gone."""
        return ClusterError(
            f"lost the Dask scheduler at {self.address}: it has ended, or the network to it is down. What is committed "
            "stays; run the same command again once there is one"
        )

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Dask's errors of a lost scheduler as one of ours."""
        from distributed.comm import CommClosedError

        if self.client.status in ("connecting", "closing", "closed"):
            raise self.lost()
        try:
            yield
        except (CommClosedError, ConnectionError) as error:
            raise self.lost() from error
        except Exception as error:
            if self.client.status != "running":
                raise self.lost() from error
            raise

    def _ask(self, question: Callable[..., Any], **more: Any) -> Any:
        """What the scheduler answers; None: nothing yet, which is said."""
        with self.explained():
            try:
                return self.client.sync(question, callback_timeout=ANSWER_S, **more)
            except TimeoutError:
                logger.warning("the scheduler at %s has not answered for %.0f s; waiting", self.address, ANSWER_S)
                return None

    def _workers(self) -> set[str] | None:
        """Addresses of all workers, also of those that Dask has paused; None: no answer yet."""
        found = self._ask(self.client.scheduler.ncores)
        return None if found is None else set(found)

    def offered(self) -> set[str]:
        """Resources that some worker was started with; a task that asks for another would wait for ever."""
        with self.explained():
            workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        return {name for worker in workers for name in worker.get("resources", {})}

    # -- looking at workers ----------------------------------------------------------------------------------

    def await_workers(self, root: str) -> None:
        """Return once a worker is there that can do the work; say every 30 s why there is none.

        Raises:
            ClusterError: a worker cannot, none will come, or the scheduler is gone.
        """
        while not self.look(root):
            time.sleep(0.1)

    def look(self, root: str) -> bool:
        """Check workers that have joined, and say why there are none; returns whether some are there."""
        there = self._workers()
        if there is None:
            return False
        self.source.look()
        self._check(there - self._known, root)
        self._known &= there
        now = time.monotonic()
        if there:
            self._nobody_since = None
            return bool(self._known)
        if self._nobody_since is None:
            self._nobody_since = self._said = now
        elif now - self._said >= SAY_S:
            self._said = now
            waited = now - self._nobody_since
            logger.warning("waiting for workers for %.0f s: %s", waited, self.source.why_none())
        return False

    def check_all(self, root: str) -> None:
        """Check every worker anew."""
        self._check(self._workers() or set(), root)

    def _check(self, workers: set[str], root: str) -> None:
        """Raise where a worker cannot do the work; warn of other versions than the driver's."""
        if not workers:
            return
        found = self._reports(sorted(workers), root)
        if problems := unfit(found):
            shown = problems[:3]
            if len(problems) > len(shown):
                shown.append(f"and {len(problems) - len(shown)} more workers")
            raise ClusterError("\n".join(shown))
        told = set(differing({w: one for w, one in found.items() if isinstance(one, Report)}, versions()))
        for sentence in sorted(told - self._told):
            logger.warning("%s: tables made there may differ in their last digits", sentence)
        self._told |= told
        self._known |= found.keys()

    def _reports(self, workers: list[str], root: str) -> dict[str, Report | BaseException]:
        """What the workers say of themselves; those that went meanwhile are left out."""
        store = Store(root)
        token = f"{TEMPORARY}{uuid.uuid4().hex}"  # should this driver be killed, the next one removes it
        log = None if self.log is None else str(self.log)
        store.write_bytes(token, b"seen by the driver\n")
        found: dict[str, Report | BaseException] = {}
        try:
            for left in reversed(range(TRIES)):
                with self.explained():
                    found |= self.client.run(report, root, token, log, workers=workers, on_error="return")
                workers = [w for w in workers if isinstance(one := found[w], Report) and not one.sees_workdir]
                if not workers or not left:
                    break
                time.sleep(BETWEEN_TRIES_S)
        finally:
            store.remove(token)
        # A worker that died meanwhile is left out, and asked again should it still be there.
        return {worker: one for worker, one in found.items() if not isinstance(one, OSError)}
