"""What runs on a worker: a task carries (stage, part), reads its inputs and commits its parts; no data travels."""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import pyarrow as pa

from curate.counting import Counts, metered
from curate.engine.part_writer import Part, PartWriter
from curate.engine.shuffle import read_bucket, sorted_by_bucket
from curate.engine.stage import Fold, Input, IteratedFold, SharedMap, Shuffle, Stage
from curate.engine.store import Store
from curate.engine.table import Table
from curate.engine.threads import set_threads
from curate.errors import DamagedPart
from curate.logs import show_warnings_visibly
from curate.memory import release_holes
from curate.surroundings import surrounded

PIECES, PARTIALS, STATE, LISTED = "_pieces", "_partials", "_state", "_listed"
"""Hidden folders of a table in the making."""
HIDDEN = (PIECES, PARTIALS, STATE, LISTED)


class Surroundings(Protocol):
    """Settings of a run that are no part of any table, such as how long to wait for a server; pickled with tasks."""

    def used(self) -> AbstractContextManager[None]:
        """What is done within goes by these settings."""
        ...


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
    manifests: dict[str, str] = field(default_factory=dict)
    """Input table to the digest of its manifest, which a worker then reads once and not once a task."""
    resources: dict[str, float] = field(default_factory=dict)
    number: int = 0
    """Round of an IteratedFold; phase run: its last one."""
    anew: bool = False
    """Make all rows of a part, also where only some are open."""
    within: Surroundings | None = None
    """What the worker does it within."""

    @property
    def label(self) -> str:
        """Table and phase, as the Dask dashboard groups and shows them."""
        return f"{next(iter(self.stages))}-{self.phase}"

    def __str__(self) -> str:
        return f"{' + '.join(self.stages)}, part {self.part} ({self.phase})"


def inputs_of(stages: Mapping[str, Stage]) -> dict[str, Input]:
    """What the stages of one step read; stages of a pass may each declare some of it."""
    return {key: spec for stage in stages.values() for key, spec in stage.inputs.items()}


@dataclass(frozen=True)
class Done:
    """What a task committed."""

    table: str
    phase: str
    part: Part
    seconds: float
    """Wall-clock, on the worker."""
    counts: Counts = field(default_factory=Counts)
    """What the task cost, all that it committed together."""


def perform(root: str, task: Task, threads: int) -> list[Done]:
    """Run a task with `threads` threads: read its inputs, make its rows, commit its parts.

    An error leaves with a note of the table and part that it stopped.
    """
    set_threads(threads)
    show_warnings_visibly()
    try:
        store = Store(root)
        with metered() as meter, surrounded(workdir=store), task.within.used() if task.within else nullcontext():
            start = time.perf_counter()
            parts = _perform(store, task)
            seconds, counts = time.perf_counter() - start, meter.counts()
        return [Done(table, task.phase, part, seconds, counts) for table, part in parts.items()]
    except Exception as error:
        error.add_note(f"while making {task}")
        raise
    finally:  # what networks, decoders and searches used, before the next task asks for its own
        pa.default_memory_pool().release_unused()
        release_holes()


def _perform(store: Store, task: Task) -> dict[str, Part]:
    """Make and commit the part of each table of a task."""
    if isinstance(next(iter(task.stages.values())), SharedMap):
        return _perform_together(store, task)
    ((name, stage),) = task.stages.items()
    fingerprint = task.fingerprints[name]
    if task.phase == "scatter":
        assert isinstance(stage, Shuffle)
        target, part = store.table(f"{name}/{PIECES}"), task.part
        rows = sorted_by_bucket(stage.scatter(part, **_read(store, task)), task.schemas[name])
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
    return {name: target.commit(part, task.schemas[name], rows, fingerprint=fingerprint)}


def _run(stage: Stage, name: str, store: Store, task: Task) -> Iterator[pa.RecordBatch]:
    if isinstance(stage, Shuffle):
        pieces = read_bucket(store.table(f"{name}/{PIECES}"), task.part)
        before = {"before": store.table(name)} if stage.reuses else {}
        return stage.run(task.part, pieces=pieces, **before, **_read(store, task, only="whole"))
    if isinstance(stage, Fold):
        return stage.run(task.part, state=_state(stage, store.table(f"{name}/{STATE}"), task), **_read(store, task))
    return stage.run(task.part, **_read(store, task))


def _state(stage: Fold, states: Table, task: Task) -> pa.Table:
    """As much of the state as a part of the output is made of."""
    images = stage.state_images(task.part)
    if images is None:
        return states.read(task.number)
    with states.open(task.number) as file:
        schema = file.schema_arrow
    found = states.read_images(task.number, *images)
    return pa.Table.from_batches([batch for rows in found for batch in rows.to_batches()], schema)


def _state_before(store: Store, task: Task) -> dict[str, Any]:
    """What a round sees of the round before it; nothing for a plain Fold."""
    ((name, stage),) = task.stages.items()
    if not isinstance(stage, IteratedFold):
        return {}
    return {"state": store.table(f"{name}/{STATE}").read(task.number - 1) if task.number else None}


def _perform_together(store: Store, task: Task) -> dict[str, Part]:
    """The part of every table of a pass, over one reading of the inputs."""
    lead = next(iter(task.stages.values()))
    assert isinstance(lead, SharedMap)
    writers: dict[str, PartWriter] = {}
    with ExitStack() as stack:
        for name, fingerprint in task.fingerprints.items():
            table = store.table(name)
            writers[name] = stack.enter_context(table.begin(task.part, task.schemas[name], fingerprint=fingerprint))
        for name, batch in _rows_together(lead, store, task):
            if name in writers:
                writers[name].write(batch)
    return {name: writer.done() for name, writer in writers.items()}


def _rows_together(lead: SharedMap, store: Store, task: Task) -> Iterator[tuple[str, pa.RecordBatch]]:
    """The rows of a pass: all of them, or where only some are open, those beside what is there."""
    tables = {name: store.table(name) for name in task.stages}
    inputs, rows, before = _read(store, task), None, {}
    with suppress(DamagedPart):  # what is there is not what was written: all rows anew
        rows = _open_rows(tables, task)
        before = {name: table.read(task.part) for name, table in tables.items()} if rows is not None else {}
    if rows is None or not before:
        return lead.run_together(task.stages, task.part, **inputs)  # type: ignore[arg-type]
    return lead.run_open(task.stages, task.part, before=before, open_rows=rows, **inputs)  # type: ignore[arg-type]


def _open_rows(tables: Mapping[str, Table], task: Task) -> list[int] | None:
    """Rows that are open in every table of a pass; None: some table is not there, or is made of something else."""
    if task.anew:
        return None
    found: set[tuple[int, ...]] = set()
    for name, table in tables.items():
        footer, wanted = table.footer(task.part), task.fingerprints.get(name)
        if footer is None or wanted is None or not footer.open or not footer.fulfills(wanted):
            return None
        found.add(tuple(table.open_rows(task.part)))
    return list(found.pop()) if len(found) == 1 else None


def _read(store: Store, task: Task, *, only: str | None = None) -> dict[str, Any]:
    """The inputs as the stage wants them: this part as a pa.Table, or whole Tables."""
    specs = inputs_of(task.stages)
    tables: dict[str, Any] = {}
    for name, spec in specs.items():
        names = task.inputs.get(name)
        if only and spec.how != only:
            continue
        if names is None:
            tables[name] = None
        elif spec.many:
            tables[name] = [Table(store, n, digest=task.manifests.get(n)) for n in names]
        elif spec.how == "whole":
            tables[name] = Table(store, names[0], digest=task.manifests.get(names[0]))
        else:
            tables[name] = store.table(names[0]).read(task.part, spec.schema.names)
    return tables
