"""Worker jobs of Slurm: submitted, looked at, replaced, cancelled.

dask-jobqueue submits the jobs and hears of those whose worker has joined the scheduler. It does not hear of a job that
sbatch refused, that waits in the queue, or that ended before its worker joined; so these are asked of Slurm itself.
"""

import logging
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from curate.engine.executors import ExecutorConfig
from curate.errors import ClusterError, ConfigError, MissingExtra

logger = logging.getLogger(__name__)

DEATH_S = 30
"""Seconds after which a worker without a scheduler ends its job."""

COMMAND_S = 20
"""Seconds that a command of Slurm may take."""

LOOK_S = 5.0
"""Seconds between two looks at the queue."""

UNLUCKY = ("CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "DEADLINE")
"""States of jobs that ended by no fault of theirs: another one may do better."""

OVER = ("COMPLETED", "FAILED", "BOOT_FAIL", "OUT_OF_MEMORY", *UNLUCKY)
"""States of jobs that will not run again."""


AS_OURS = ["export DASK_DISTRIBUTED__WORKER__DAEMON=False"]
"""Shell lines before `dask worker`: it may then start processes."""


def start_slurm(config: ExecutorConfig, security: Any) -> "tuple[Any, WorkerJobs]":
    """A Slurm job for each worker; `sbatch` must be there, and the workdir must be seen by every node."""
    try:
        with _signals_kept():
            from dask_jobqueue.slurm import SLURMCluster, SLURMJob
    except ImportError as error:
        raise MissingExtra("dask-jobqueue", "slurm") from error
    except ValueError as error:  # its import sets a signal handler, which Python allows in the main thread alone
        raise ConfigError("executor.kind=slurm: start the run from the main thread of its process") from error
    if not shutil.which("sbatch"):
        raise ConfigError("executor.kind=slurm: no `sbatch` here; start the run on a machine that submits Slurm jobs")
    submitted: list[str] = []
    refused: list[str] = []

    class WorkerJob(SLURMJob):  # type: ignore[misc]
        """A job whose number is kept, or what sbatch said when it refused it."""

        async def start(self) -> None:
            try:
                await super().start()
            except (RuntimeError, ValueError, OSError) as error:
                refused.append(_what_sbatch_said(str(error)))
                raise
            submitted.append(self.job_id)

    job = config.slurm
    gpus = ["--gres=gpu:1"] * job.gpus
    cluster = SLURMCluster(
        job_cls=WorkerJob,
        security=security,
        queue=job.partition,
        account=job.account,
        walltime=job.walltime,
        cores=1,  # threads of the Dask worker: it makes one part at a time, with all cores of the job
        job_cpu=job.cpus,
        processes=1,
        memory=config.memory_limit,
        interface=job.interface,
        log_directory=job.log_directory,
        job_name="curate-worker",
        job_extra_directives=[*gpus, *job.directives],
        job_script_prologue=[*AS_OURS, *job.prologue],
        death_timeout=DEATH_S,
        worker_extra_args=["--dashboard-address", "127.0.0.1:0", *["--resources GPU=1"] * job.gpus],
        scheduler_options={"dashboard_address": config.dashboard},
        silence_logs=False,
    )
    jobs = WorkerJobs(cluster, config.workers or 2, submitted, refused)
    cluster.scale(jobs.wanted)
    return cluster, jobs


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep what this process does on signals: importing dask-jobqueue lets Ctrl-C exit with status 0."""
    if threading.current_thread() is not threading.main_thread():  # there nothing can be set
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _what_sbatch_said(error: str) -> str:
    lines = [line.removeprefix("sbatch: error: ") for line in error.splitlines() if line.startswith("sbatch: ")]
    return "; ".join(lines) or " ".join(error.split())


class WorkerJobs:
    """The jobs of a cluster's workers, as Slurm sees them."""

    def __init__(self, cluster: Any, wanted: int, submitted: list[str], refused: list[str]) -> None:
        self.cluster, self.wanted, self.submitted, self.refused = cluster, wanted, submitted, refused
        self._looked = 0.0
        self._failed: dict[str, str] = {}  # what became of jobs that ended by themselves since a part was made

    def worked(self) -> None:
        """A part was made: jobs do not fail one after another."""
        self._failed.clear()

    def why_none(self) -> str:
        """What Slurm says of the jobs."""
        listed = self.queue()
        if listed is None:
            return "squeue does not answer"
        told = Counter(f"{state} ({reason})" if reason != "None" else state for state, reason in listed.values())
        counts = [f"{number} {what}" if number > 1 else what for what, number in sorted(told.items())]
        return (
            f"Slurm says of jobs {', '.join(sorted(listed, key=int)[:8])}: {', '.join(counts)}" if listed else "no job"
        )

    def look(self) -> None:
        """Replace jobs that ended without a word to the scheduler.

        Raises:
            ClusterError: no worker is there, and sbatch refuses jobs, or job after job ends without making a part.
        """
        joined = {worker.name for worker in list(self.cluster.scheduler.workers.values())}
        if self.refused and not joined:
            raise ClusterError(f"sbatch refuses the job of a worker: {self.refused[-1]}; see executor.slurm")
        if time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        listed = self.queue()
        if listed is None:
            return
        for name, job in list(self.cluster.workers.items()):
            number: str | None = getattr(job, "job_id", None)
            if number is None or name in joined:
                continue
            state, _ = listed.get(number, ("FAILED", ""))
            if state in OVER:
                if state not in UNLUCKY:
                    self._failed[number] = _what_became_of(number)
                self.cluster.loop.add_callback(self._forget, name)
        if len(self._failed) >= max(3, self.wanted) and not joined:
            number, what = list(self._failed.items())[-1]
            raise ClusterError(
                f"{len(self._failed)} Slurm jobs ended one after another without making a part, the last one is job "
                f"{number}: {what}"
            )

    def _forget(self, name: str) -> None:
        self.cluster.workers.pop(name, None)
        self.cluster.worker_spec.pop(name, None)

    def queue(self) -> dict[str, tuple[str, str]] | None:
        """State and reason of our jobs by number; those that Slurm has forgotten are left out. None: no answer."""
        ran = _run("squeue", "--noheader", "--states=all", f"--user={os.getuid()}", "--format=%i|%T|%r")
        if ran is None:
            return None
        rows = [line.split("|") for line in ran.splitlines() if line.count("|") == 2]
        return {number: (state, reason) for number, state, reason in rows if number in self.submitted}

    def cancel(self, *, seconds: float = 1.5) -> None:
        """End every job, also those that a requeue brings back; waits no longer than this for Slurm's answer."""
        if self.submitted:
            _run("scancel", *self.submitted, seconds=seconds)


def _what_became_of(number: str) -> str:
    """State of a job that ended, where its output is, and how that ends."""
    shown = _run("scontrol", "--oneliner", "show", "job", number) or ""
    found = dict(re.findall(r"(JobState|ExitCode|StdErr)=(\S+)", shown))
    what = f"{found.get('JobState', 'gone')}, exit code {found.get('ExitCode', 'unknown')}"
    with suppress(KeyError, OSError):
        lines = [line for line in Path(found["StdErr"]).read_text(errors="replace").splitlines() if line.strip()]
        what += f"; {found['StdErr']} ends with: {lines[-1] if lines else 'nothing'}"
    return what


def _run(*command: str, seconds: float = COMMAND_S) -> str | None:
    """What a command prints; None: it failed, or took too long."""
    try:
        ran = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ran.stdout if ran.returncode == 0 else None
