"""Where tasks run: in this process, or on Dask workers. A task carries (stage, part); workers read and commit.

The only module that knows Dask.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.config import Execution, Settings
from curate.errors import ConfigError
from curate.ops.threads import set_threads
from curate.stage import Fold, IteratedFold, RunTogether, Shuffle, Stage
from curate.store import Part, PartWriter, Store, Table

logger = logging.getLogger(__name__)


class ExecutorConfig(Settings):
    """Where the tasks of a pipeline run."""

    kind: Literal["inprocess", "local", "scheduler"] = "inprocess"
    """inprocess; local: Dask worker processes on this machine; scheduler: the Dask cluster at `address`."""
    workers: int = 2
    """Worker processes of kind `local`."""
    threads: Annotated[int | None, Execution()] = None
    """Threads for torch, faiss and decoding in each process; None: all cores, shared among local workers."""
    address: str | None = None
    """Scheduler of kind `scheduler`, for example tcp://host:8786."""
    memory_limit: str = "auto"
    """Of each local worker, as Dask writes it: 4GiB."""


@dataclass(frozen=True)
class Task:
    """One part of one step, in one phase; all that a worker needs but the store."""

    phase: Literal["run", "scatter", "partial", "combine"]
    part: int
    stages: dict[str, Stage]
    """Table name to stage; several only where they share one reading."""
    schemas: dict[str, pa.Schema]
    fingerprints: dict[str, str]
    """Table name to the fingerprint to commit; only these tables are committed."""
    inputs: dict[str, tuple[str, ...] | None]
    together: RunTogether | None = None
    resources: dict[str, float] = field(default_factory=dict)
    number: int = 0
    """Round of an IteratedFold; phase run: its last one."""

    @property
    def label(self) -> str:
        return f"{next(iter(self.stages))}-{self.phase}"


@dataclass(frozen=True)
class Done:
    """What a task committed."""

    table: str
    phase: str
    part: Part
    seconds: float
    """Wall-clock, on the worker."""


PIECES, PARTIALS, STATE = "_pieces", "_partials", "_state"
SCATTER_BYTES = 256 << 20
"""Rows a scatter task holds before it writes them, sorted by bucket."""
BUCKET = pa.field("bucket", pa.int32(), nullable=False)


def perform(root: str, task: Task, threads: int) -> list[Done]:
    """Run a task with `threads` threads: read its inputs, make its rows, commit its parts."""
    set_threads(threads)
    store = Store(root)
    start = time.perf_counter()
    if task.together is not None:
        return _perform_together(store, task, start)
    ((name, stage),) = task.stages.items()
    fingerprint = task.fingerprints[name]
    if task.phase == "scatter":
        assert isinstance(stage, Shuffle)
        target, part = store.table(f"{name}/{PIECES}"), task.part
        rows = _by_bucket(stage.scatter(part, **_read(store, task)), task.schemas[name])
    elif task.phase == "partial":
        assert isinstance(stage, Fold)
        target, part = store.table(f"{name}/{PARTIALS}"), task.part
        rows = stage.partial(part, **_state_before(store, task), **_read(store, task))
    elif task.phase == "combine":
        assert isinstance(stage, Fold)
        target, part = store.table(f"{name}/{STATE}"), task.number
        partials = store.table(f"{name}/{PARTIALS}")
        has_partials = bool(partials.committed())
        before = _state_before(store, task)
        rows = stage.combine(partials if has_partials else None, **before, **_read(store, task, only="whole"))
    else:
        target, part = store.table(name), task.part
        rows = _run(stage, name, store, task)
    done = target.commit(part, task.schemas[name], rows, fingerprint=fingerprint)
    return [Done(name, task.phase, done, time.perf_counter() - start)]


def _run(stage: Stage, name: str, store: Store, task: Task) -> Iterator[pa.RecordBatch]:
    if isinstance(stage, Shuffle):
        pieces = read_bucket(store.table(f"{name}/{PIECES}"), task.part)
        return stage.run(task.part, pieces=pieces, **_read(store, task, only="whole"))
    if isinstance(stage, Fold):
        state = store.table(f"{name}/{STATE}").read(task.number)
        return stage.run(task.part, state=state, **_read(store, task))
    return stage.run(task.part, **_read(store, task))


def _state_before(store: Store, task: Task) -> dict[str, Any]:
    """What a round sees of the round before it; nothing for a plain Fold."""
    ((name, stage),) = task.stages.items()
    if not isinstance(stage, IteratedFold):
        return {}
    return {"state": store.table(f"{name}/{STATE}").read(task.number - 1) if task.number else None}


def _perform_together(store: Store, task: Task, start: float) -> list[Done]:
    assert task.together is not None
    writers: dict[str, PartWriter] = {}
    with ExitStack() as stack:
        for name, fingerprint in task.fingerprints.items():
            table = store.table(name)
            writers[name] = stack.enter_context(table.begin(task.part, task.schemas[name], fingerprint=fingerprint))
        for name, batch in task.together(task.stages, task.part, **_read(store, task)):
            if name in writers:
                writers[name].write(batch)
    seconds = time.perf_counter() - start
    return [Done(name, "run", writer.done(), seconds) for name, writer in writers.items()]


def _read(store: Store, task: Task, *, only: str | None = None) -> dict[str, Any]:
    """The inputs as the stage wants them: this part as a pa.Table, or whole Tables."""
    specs = next(iter(task.stages.values())).inputs
    tables: dict[str, Any] = {}
    for name, spec in specs.items():
        names = task.inputs.get(name)
        if only and spec.how != only:
            continue
        if names is None:
            tables[name] = None
        elif spec.many:
            tables[name] = [store.table(n) for n in names]
        elif spec.how == "whole":
            tables[name] = store.table(names[0])
        else:
            tables[name] = store.table(names[0]).read(task.part)
    return tables


def _by_bucket(rows: Iterator[tuple[int, pa.RecordBatch]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Prefix scattered rows with their bucket; buckets in order within each memory-bounded run."""
    buckets: dict[int, list[pa.RecordBatch]] = {}
    held = 0
    for bucket, batch in rows:
        buckets.setdefault(bucket, []).append(batch)
        held += batch.nbytes
        if held >= SCATTER_BYTES:
            yield from _drain(buckets, schema)
            held = 0
    yield from _drain(buckets, schema)


def _drain(buckets: dict[int, list[pa.RecordBatch]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for bucket in sorted(buckets):
        for batch in buckets[bucket]:
            ids = pa.array(np.full(batch.num_rows, bucket, np.int32))
            yield pa.RecordBatch.from_arrays([ids, *batch.columns], schema=schema)
    buckets.clear()


def read_bucket(pieces: Table, bucket: int) -> pa.Table:
    """The rows of one bucket, in the order of the scattering parts; other row groups are skipped by statistics."""
    found, schema = [], None
    for number in sorted(pieces.committed()):
        with pieces.open(number) as file:
            schema = file.schema_arrow
            for group in range(file.num_row_groups):
                statistics = file.metadata.row_group(group).column(0).statistics
                if statistics is None or statistics.min <= bucket <= statistics.max:
                    table = file.read_row_group(group)
                    found.append(table.filter(pc.equal(table["bucket"], bucket)))
    assert schema is not None
    return (
        pa.concat_tables(found or [schema.empty_table()])
        .drop_columns(["bucket"])
        .replace_schema_metadata(schema.metadata)
    )


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

    def __init__(self, client: Any, threads: int) -> None:
        self.client, self.threads = client, threads

    def _offered(self) -> set[str]:
        """Resources that some worker was started with; a task that asks for another would wait for ever."""
        workers = self.client.scheduler_info()["workers"].values()
        return {name for worker in workers for name in worker.get("resources", {})}

    def run(self, root: str, tasks: Sequence[Task]) -> Iterator[list[Done]]:
        """Submit all tasks; one that fails cancels the others."""
        from distributed import as_completed

        offered = self._offered()

        futures = [
            self.client.submit(
                perform,
                root,
                task,
                self.threads,
                key=f"{task.label}-{task.part}-{time.time_ns()}",
                pure=False,
                retries=0,
                resources={k: v for k, v in task.resources.items() if k in offered} or None,
            )
            for task in tasks
        ]
        try:
            for future in as_completed(futures):
                yield future.result()
                future.release()
        except BaseException:
            self.client.cancel(futures)  # a failure ends the run; what is committed stays
            raise


@contextmanager
def start_executor(config: ExecutorConfig) -> Iterator[Executor]:
    """The executor that the config names, closed at the end.

    Raises:
        ConfigError: no scheduler at the address, or an address is missing.
    """
    if config.kind == "inprocess":
        yield InProcess(config.threads)
        return
    import dask
    from distributed import Client, LocalCluster

    threads = config.threads or max(1, (os.cpu_count() or 1) // max(1, config.workers))
    clusters: list[AbstractContextManager[Any]] = []
    if config.kind == "local":
        dask.config.set({"distributed.worker.daemon": False})  # the trainer's loaders may be processes of their own
        cluster = LocalCluster(
            n_workers=config.workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            memory_limit=config.memory_limit,
            silence_logs=logging.ERROR,
        )
        clusters.append(cluster)
        client = Client(cluster)
        logger.info("Dask dashboard: %s", client.dashboard_link)
    else:
        client = _connect(config.address, Client)
    try:
        yield OnDask(client, threads)
    finally:
        client.close()
        for cluster in clusters:
            cluster.close()  # type: ignore[attr-defined]


def _connect(address: str | None, connect: Callable[..., Any]) -> Any:
    if address is None:
        raise ConfigError("executor.kind=scheduler needs executor.address, for example tcp://host:8786")
    try:
        return connect(address, timeout="20s")
    except (OSError, TimeoutError) as error:
        raise ConfigError(
            f"executor.address={address}: no Dask scheduler answers there ({error}); start one with "
            "`dask scheduler` and workers with `dask worker ADDRESS --nthreads 1`"
        ) from error
