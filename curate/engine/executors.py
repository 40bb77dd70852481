"""Where tasks run: in this process, or on Dask workers of this machine, of a Slurm cluster, of any scheduler."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Annotated, Literal, Protocol, Self

from pydantic import ByteSize, Field, TypeAdapter, ValidationError, model_validator

from curate.config import Execution, Settings
from curate.engine.tasks import Done, Task, perform

LEAST_TASK_MEMORY = 64 << 20


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


class TlsConfig(Settings):
    """Certificates of a cluster whose parts know and encrypt each other by them; files that every machine sees."""

    ca_file: str
    """Certificate of the authority that signed all others, PEM."""
    cert: str
    """Certificate of driver, and with kind slurm of scheduler and workers too, PEM."""
    key: str
    """Its key, PEM."""


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
    """Of each worker of kinds local, cuda and slurm, as Dask writes it: 4GiB. auto: the machine's over the workers;
    Slurm needs one. A worker that reaches 95 % of it is started again."""
    task_memory: str = "1GiB"
    """Memory for the rows that a task regroups (lists, pairs, shards), at least 64MiB. Tables do not depend on it. More
    saves a second level of sorting; less makes reads smaller than 1 MiB where a table has thousands of parts."""
    retries: Annotated[int, Field(ge=0)] = 3
    """Times that a part is tried again after the worker that made it died; kind scheduler: as that was started."""
    dashboard: str = "127.0.0.1:0"
    """Where the scheduler of kinds local, cuda and slurm shows its pages; port 0: a free one. They have no password:
    an address such as 0.0.0.0:8787 lets all see them who reach this machine."""
    log_directory: str | None = None
    """Folder for what Dask says in the driver and in workers of this machine; None: a temporary one, kept after an
    error of the cluster, which names it."""
    tls: TlsConfig | None = None
    """Certificates, kinds slurm and scheduler; None: the network between the machines is trusted."""
    slurm: SlurmConfig = SlurmConfig()
    """What a job of kind slurm asks for."""

    @model_validator(mode="after")
    def _is_told_enough(self) -> Self:
        if self.kind == "scheduler" and self.address is None:
            raise ValueError("kind scheduler needs executor.address, for example tcp://host:8786")
        if self.kind == "slurm" and self.memory_limit == "auto":
            raise ValueError("kind slurm needs executor.memory_limit, the memory of a job, for example 32GiB")
        if self.task_bytes < LEAST_TASK_MEMORY:
            raise ValueError(f"executor.task_memory={self.task_memory}: give 64MiB or more, such as 1GiB")
        if self.tls is not None and self.kind not in ("slurm", "scheduler"):
            raise ValueError(f"executor.tls is for kinds slurm and scheduler; kind {self.kind} leaves no machine")
        if self.kind == "scheduler" and str(self.address).startswith("tls://") != (self.tls is not None):
            raise ValueError(f"an address tls://HOST:PORT and executor.tls need each other; address is {self.address}")
        return self

    @property
    def task_bytes(self) -> int:
        """`task_memory` in bytes."""
        try:
            return int(TypeAdapter(ByteSize).validate_python(self.task_memory))
        except ValidationError as error:
            raise ValueError(f"executor.task_memory={self.task_memory!r}: not a size; write 1GiB or 512MiB") from error


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
    from curate.engine.dask_clusters.starting import start_on_dask

    with start_on_dask(config) as on_dask:
        yield on_dask
