"""Where tasks run: in this process, or on Dask workers of this machine, of a Slurm cluster, of any scheduler.

The only module that knows Dask.
"""

import itertools
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import Field, model_validator

from curate.config import Execution, Settings
from curate.engine.tasks import Done, Task, perform
from curate.errors import ConfigError, MissingExtra, WorkerDied
from curate.interrupt import deaf

logger = logging.getLogger(__name__)

WINDOW = 4096
"""Tasks that a scheduler holds at once: enough for thousands of workers, little for its memory."""

KEEP_UP_MS = 10_000
"""Between two looks whether workers are missing."""


class SlurmConfig(Settings):
    """One Slurm job for each worker; what is left out is what the cluster gives by default."""

    partition: str | None = None
    """Partition (queue) of the jobs."""
    account: str | None = None
    """Account they are charged to."""
    walltime: str = "04:00:00"
    """Of a job, as Slurm writes it. A worker whose time is over costs the part it was making."""
    cpus: Annotated[int, Field(ge=1)] = 8
    """Cores of a job."""
    gpus: Literal[0, 1] = 0
    """1: a GPU for each job; stages that use one then run on nothing else."""
    directives: tuple[str, ...] = ()
    """More lines of the job's head, for example --constraint=a100."""
    prologue: tuple[str, ...] = ()
    """Shell lines before the worker starts, for example module load or export."""
    interface: str | None = None
    """Network interface of scheduler and workers, for example ib0."""
    log_directory: str | None = None
    """Folder of the jobs' output; None: where the driver was started."""


class ExecutorConfig(Settings):
    """Where the tasks of a pipeline run."""

    kind: Literal["inprocess", "local", "cuda", "slurm", "scheduler"] = "inprocess"
    """inprocess; local: Dask worker processes on this machine; cuda: one for each of its GPUs; slurm: a Slurm job for
    each; scheduler: the Dask cluster at `address`."""
    workers: Annotated[int | None, Field(ge=1)] = None
    """Worker processes of kinds local and slurm (None: 2), of kind cuda (None: one for each GPU)."""
    threads: Annotated[int | None, Execution()] = None
    """Threads for torch, faiss and decoding in each process; None: its share of the cores."""
    address: str | None = None
    """Scheduler of kind `scheduler`, for example tcp://host:8786."""
    memory_limit: str = "auto"
    """Of each worker of kinds local, cuda and slurm, as Dask writes it: 4GiB. Slurm needs one."""
    retries: Annotated[int, Field(ge=0)] = 3
    """Times that a part is tried again after the worker that made it died; kind scheduler: as that was started."""
    slurm: SlurmConfig = SlurmConfig()
    """What a job of kind slurm asks for."""

    @model_validator(mode="after")
    def _is_told_enough(self) -> Self:
        if self.kind == "scheduler" and self.address is None:
            raise ValueError("kind scheduler needs executor.address, for example tcp://host:8786")
        if self.kind == "slurm" and self.memory_limit == "auto":
            raise ValueError("kind slurm needs executor.memory_limit, the memory of a job, for example 32GiB")
        return self


class Executor(Protocol):
    """Runs tasks and yields what they committed, in any order; the first failure is raised."""

    def run(self, root: str, tasks: Sequence[Task]) -> Iterator[list[Done]]: ...


class InProcess:
    """Tasks one after the other, each using `threads` threads."""

    def __init__(self, threads: int | None) -> None:
        self.threads = threads or os.cpu_count() or 1

    def run(self, root: str, tasks: Sequence[Task]) -> Iterator[list[Done]]:
        for task in tasks:
            yield perform(root, task, self.threads)


class OnDask:
    """Tasks on the workers of a Dask client; a killed worker costs only the parts it was making."""

    def __init__(self, client: Any, threads: int, *, window: int = WINDOW) -> None:
        self.client, self.threads, self.window = client, threads, window

    def _offered(self) -> set[str]:
        """Resources that some worker was started with; a task that asks for another would wait for ever."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        return {name for worker in workers for name in worker.get("resources", {})}

    def run(self, root: str, tasks: Sequence[Task]) -> Iterator[list[Done]]:
        """Submit the tasks, `window` at once; one that fails cancels the others.

        Raises:
            WorkerDied: every worker that a task was given to died of it, or with it.
        """
        from distributed import KilledWorker, as_completed

        offered, waiting = self._offered(), iter(tasks)
        running = {self._submit(root, task, offered): task for task in itertools.islice(waiting, self.window)}
        completed = as_completed(list(running))
        try:
            for future in completed:
                task = running.pop(future)
                try:
                    done = future.result()
                except KilledWorker as error:
                    raise WorkerDied(
                        f"{task}: {error.allowed_failures + 1} workers died making this part, the last one at "
                        f"{error.last_worker}. If they ran out of memory (the worker's log tells), give them more "
                        "(executor.memory_limit) or smaller parts (rows_per_part of a new workdir); what is committed "
                        "stays: run again to go on"
                    ) from error
                future.release()
                for following in itertools.islice(waiting, 1):
                    submitted = self._submit(root, following, offered)
                    running[submitted] = following
                    completed.add(submitted)
                yield done
        except BaseException:
            self.client.cancel(list(running))  # a failure ends the run; what is committed stays
            raise

    def _submit(self, root: str, task: Task, offered: set[str]) -> Any:
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


class WhenNeeded:
    """An executor that is started by its first task: a run that finds nothing to do starts no cluster."""

    def __init__(self, config: ExecutorConfig, stack: ExitStack) -> None:
        self._config, self._stack = config, stack
        self._started: Executor | None = None

    def run(self, root: str, tasks: Sequence[Task]) -> Iterator[list[Done]]:
        """As the executor that the config names."""
        if self._started is None:
            self._started = self._stack.enter_context(started(self._config))
        yield from self._started.run(root, tasks)


@contextmanager
def start_executor(config: ExecutorConfig) -> Iterator[Executor]:
    """The executor that the config names, started by its first task and closed at the end.

    Its first task raises:
        ConfigError: no scheduler at the address, or an address is missing.
        MissingExtra: a library of this kind of executor is not installed.
    """
    with ExitStack() as stack:
        yield WhenNeeded(config, stack)


@contextmanager
def started(config: ExecutorConfig) -> Iterator[Executor]:
    """The executor that the config names, started at once and closed at the end."""
    if config.kind == "inprocess":
        yield InProcess(config.threads)
        return
    import dask
    from distributed import Client

    with dask.config.set(_dask_settings(config)):
        if config.kind == "scheduler":
            client, cluster = _connect(config.address, Client), None
        else:
            with deaf():
                cluster = {"local": _start_local, "cuda": _start_cuda, "slurm": _start_slurm}[config.kind](config)
            _keep_up(cluster)
            client = Client(cluster)
            logger.info("Dask dashboard: %s", client.dashboard_link)
        try:
            yield OnDask(client, _threads(config))
        finally:
            client.close()
            if cluster is not None:
                cluster.close()


def _keep_up(cluster: Any) -> None:
    """Start workers again that Dask gave up: a Slurm job whose time was over, a process that died while it started."""
    from tornado.ioloop import PeriodicCallback

    keep = PeriodicCallback(lambda: cluster.scale(len(cluster.worker_spec)), KEEP_UP_MS)
    cluster.loop.add_callback(keep.start)


def _dask_settings(config: ExecutorConfig) -> dict[str, Any]:
    """Tasks hand over paths, not data: there is nothing to spill, and a worker that runs full is started again."""
    return {
        "distributed.scheduler.allowed-failures": config.retries,
        "distributed.worker.daemon": False,  # the trainer's loaders may be processes of their own
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
    }


NO_SPILLING = [f"export DASK_DISTRIBUTED__WORKER__MEMORY__{name}=False" for name in ("TARGET", "SPILL")]
"""The same for workers that another machine starts."""


def _threads(config: ExecutorConfig) -> int:
    cores = os.cpu_count() or 1
    shared = {"slurm": config.slurm.cpus, "scheduler": cores}.get(config.kind) or cores // (config.workers or 2)
    return config.threads or max(1, shared)


def _start_local(config: ExecutorConfig) -> Any:
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=config.workers or 2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=":0",
        memory_limit=config.memory_limit,
        silence_logs=logging.ERROR,
    )


def _start_cuda(config: ExecutorConfig) -> Any:
    """One worker for each GPU of this machine, each seeing its own alone."""
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise MissingExtra("dask-cuda", "gpu") from error
    return LocalCUDACluster(
        n_workers=config.workers,
        threads_per_worker=1,
        dashboard_address=":0",
        memory_limit=config.memory_limit,
        silence_logs=logging.ERROR,
        resources={"GPU": 1},
    )


def _start_slurm(config: ExecutorConfig) -> Any:
    """A Slurm job for each worker; `sbatch` must be there, and the workdir must be seen by every node."""
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError as error:
        raise MissingExtra("dask-jobqueue", "slurm") from error
    job = config.slurm
    gpus = ["--gres=gpu:1"] * job.gpus
    cluster = SLURMCluster(
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
        job_script_prologue=[*NO_SPILLING, *job.prologue],
        worker_extra_args=["--resources GPU=1"] * job.gpus,
        scheduler_options={"dashboard_address": ":0"},
    )
    cluster.scale(config.workers or 2)
    return cluster


def _connect(address: str | None, connect: Callable[..., Any]) -> Any:
    try:
        return connect(address, timeout="20s")
    except (OSError, TimeoutError) as error:
        raise ConfigError(
            f"executor.address={address}: no Dask scheduler answers there ({error}); start one with "
            "`dask scheduler` and workers with `dask worker ADDRESS --nthreads 1`"
        ) from error
