"""Clusters started, or connected to, and ended: in order, on errors, and when the driver must go at once."""

import importlib.util
import logging
import os
import shutil
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from curate.engine.dask_clusters.dask_log import DaskLog
from curate.engine.dask_clusters.on_dask import OnDask
from curate.engine.dask_clusters.slurm import WorkerJobs, start_slurm
from curate.engine.dask_clusters.watch import Elsewhere, Here, Source, Watch
from curate.engine.executors import ExecutorConfig, TlsConfig
from curate.errors import ClusterError, ConfigError, CurateError, MissingExtra, WorkerDied
from curate.interrupt import deaf, on_hard_end
from curate.memory import machine_memory

logger = logging.getLogger(__name__)

KEEP_UP_MS = 3_000
"""Between two looks whether workers are missing."""

CLOSE_S = 10.0
"""Seconds in which a cluster that ends in order may close."""


@contextmanager
def start_on_dask(config: ExecutorConfig) -> Iterator[OnDask]:
    """The executor of a Dask cluster, started at once and closed at the end.

    Raises:
        ConfigError: no scheduler at the address, or certificates that cannot be used.
        MissingExtra: a library of this kind of executor is not installed.
    """
    import dask

    with ExitStack() as stack:
        log = stack.enter_context(_kept_log(config.log_directory))
        stack.enter_context(dask.config.set(_dask_settings(config)))
        stack.enter_context(_ended_by_sigterm())
        client, cluster, source = _connected(config)
        with _closed(client, cluster, source):
            shared = log / "workers.log" if isinstance(source, Here) else None  # others have logs of their own
            yield OnDask(client, threads_of(config), watch=Watch(client, source, log=shared))


def _connected(config: ExecutorConfig) -> tuple[Any, Any, Source]:
    """Client, cluster (None: started elsewhere), and where workers come from."""
    from distributed import Client
    from distributed.versions import VersionMismatchWarning

    warnings.filterwarnings("ignore", category=VersionMismatchWarning)  # `Watch` names what differs
    security = None if config.tls is None else _security(config.tls)
    if config.kind == "scheduler":
        client = _connect(str(config.address), Client, security)
        return client, None, Elsewhere(str(config.address))
    source: Source = Here()
    with deaf():  # a Ctrl-C of the terminal is the driver's alone, which ends the workers
        if config.kind == "slurm":
            cluster, source = start_slurm(config, security)
        else:
            cluster = {"local": _start_local, "cuda": _start_cuda}[config.kind](config)
    try:
        _keep_up(cluster, source.wanted if isinstance(source, WorkerJobs) else len(cluster.worker_spec))
        client = Client(cluster)
    except BaseException:  # such as Ctrl-C; processes of this machine end with it, jobs would not
        if isinstance(source, WorkerJobs):
            source.cancel()
        raise
    if importlib.util.find_spec("bokeh"):  # without it the scheduler shows no pages
        logger.info("Dask dashboard: %s", client.dashboard_link)
    return client, cluster, source


@contextmanager
def _kept_log(folder: str | None) -> Iterator[Path]:
    """Folder of what Dask says in this run; a temporary one stays only after an error that it may explain."""
    place = Path(tempfile.mkdtemp(prefix="curate-dask-")) if folder is None else Path(folder).absolute()
    try:
        place.mkdir(parents=True, exist_ok=True)
        log = DaskLog(place / "driver.log")
    except OSError as error:
        raise ConfigError(f"executor.log_directory={folder}: cannot be written ({error.strerror})") from error
    dask = logging.getLogger("distributed")
    before = dask.handlers, dask.propagate, dask.level
    log.take_over()
    keep = folder is not None
    try:
        yield place
    except BaseException as error:
        # Dask's threads may report the same, with traces, until this process ends.
        before = [logging.NullHandler()], False, dask.level
        if isinstance(error, WorkerDied | ClusterError):
            error.add_note(f"what Dask said: {place}")
            keep = True
        raise
    finally:
        dask.handlers, dask.propagate = before[:2]
        dask.setLevel(before[2])
        log.close()
        if not keep:
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end this process as an error does, so that its cluster ends too; a handler that is there stays."""
    free = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not free:
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


@contextmanager
def _closed(client: Any, cluster: Any, source: Source) -> Iterator[None]:
    """Close both at the end: in order after a run, at once where the driver is told to go."""
    seconds = CLOSE_S
    forget = on_hard_end(lambda: source.cancel(seconds=0.3)) if isinstance(source, WorkerJobs) else lambda: None
    try:
        yield
    except CurateError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception):  # Ctrl-C, SIGTERM
            seconds = 1.0
            _kill_processes(cluster)
        raise
    finally:
        forget()
        if isinstance(source, WorkerJobs):
            source.cancel()
        with suppress(Exception):  # whatever is wrong with it, the run is over
            client.close(timeout=seconds)
        if cluster is not None:
            with suppress(Exception):
                cluster.close(timeout=seconds)


def _kill_processes(cluster: Any) -> None:
    """End the worker processes of this machine; those of jobs and elsewhere end with their scheduler."""
    for worker in list(getattr(cluster, "workers", {}).values()):
        pid = getattr(worker, "pid", None)  # of a nanny's process; a Slurm job has none
        if isinstance(pid, int):
            with suppress(OSError):  # it has ended
                os.kill(pid, signal.SIGKILL)


def _keep_up(cluster: Any, wanted: int) -> None:
    """Start workers again that Dask gave up: a Slurm job whose time was over, a process that died while it started."""
    from tornado.ioloop import PeriodicCallback

    keep = PeriodicCallback(lambda: cluster.scale(wanted), KEEP_UP_MS)
    cluster.loop.add_callback(keep.start)


def _dask_settings(config: ExecutorConfig) -> dict[str, Any]:
    """Tasks hand over paths, not data: there is nothing to spill, and a worker that runs full is started again.

    Nor may it be paused, as Dask would at 80 %: what it waits for, memory freed by spilling, never comes. `report` sets
    the same in workers that others have started.
    """
    return {
        "distributed.scheduler.allowed-failures": config.retries,
        "distributed.worker.daemon": False,  # the trainer's loaders may be processes of their own
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
    }


def threads_of(config: ExecutorConfig) -> int:
    """Threads that a worker computes with: as told, else its share of the cores."""
    cores = os.cpu_count() or 1
    shared = {"slurm": config.slurm.cpus, "scheduler": cores}.get(config.kind) or cores // (config.workers or 2)
    return config.threads or max(1, shared)


def _memory(config: ExecutorConfig, workers: int) -> str | int:
    """What a worker of this machine may use; `auto`: its share of the machine, where Dask would go by the cores."""
    return machine_memory() // workers if config.memory_limit == "auto" else config.memory_limit


def _start_local(config: ExecutorConfig) -> Any:
    from distributed import LocalCluster

    workers = config.workers or 2
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address=config.dashboard,
        memory_limit=_memory(config, workers),
        silence_logs=logging.CRITICAL,  # in the workers, until `report` gives them a file
    )


def _start_cuda(config: ExecutorConfig) -> Any:
    """One worker for each GPU of this machine, each seeing its own alone."""
    try:
        from dask_cuda import LocalCUDACluster
        from dask_cuda.utils import get_n_gpus
    except ImportError as error:
        raise MissingExtra("dask-cuda", "gpu") from error
    return LocalCUDACluster(
        n_workers=config.workers,
        threads_per_worker=1,
        dashboard_address=config.dashboard,
        memory_limit=_memory(config, config.workers or get_n_gpus()),
        silence_logs=logging.CRITICAL,
        resources={"GPU": 1},
    )


def _security(tls: TlsConfig) -> Any:
    """Certificates for every part of the cluster; what is not encrypted is refused."""
    from distributed import Security

    for name in ("ca_file", "cert", "key"):
        path = Path(getattr(tls, name))
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            raise ConfigError(f"executor.tls.{name}={path}: cannot be read ({error.strerror})") from error
    pairs = {
        f"tls_{role}_{name}": getattr(tls, name)
        for role in ("scheduler", "worker", "client")
        for name in ("cert", "key")
    }
    return Security(require_encryption=True, tls_ca_file=tls.ca_file, **pairs)


def _connect(address: str, connect: Callable[..., Any], security: Any) -> Any:
    try:
        return connect(address, timeout="20s", security=security)
    except (OSError, TimeoutError) as error:
        raise ConfigError(
            f"executor.address={address}: no Dask scheduler answers there ({error}); start one with "
            "`dask scheduler` and workers with `dask worker ADDRESS --nthreads 1`"
        ) from error
