"""What runs on a worker: a task carries (stage, part), reads its inputs and commits its parts; no data travels."""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from curate.counting import Counts, metered
from curate.engine.part_writer import Part, PartWriter
from curate.engine.shuffle import read_bucket, sorted_by_bucket
from curate.engine.stage import Fold, Input, IteratedFold, Known, Listing, Piece, SharedMap, Shuffle, Stage, digest_text
from curate.engine.store import Store
from curate.engine.table import Table
from curate.engine.threads import set_threads
from curate.errors import DamagedPart
from curate.logs import show_warnings_visibly
from curate.memory import release_holes
from curate.surroundings import surrounded

PIECES, PARTIALS, STATE = "_pieces", "_partials", "_state"
GROUPS, LISTED, TOLD, HOMES, KNOWN, CUT, REMADE = "_groups", "_listed", "_told", "_homes", "_known", "_cut", "_remade"
"""Hidden folders of a table in the making."""
HIDDEN = (PIECES, PARTIALS, STATE, GROUPS, LISTED, TOLD, HOMES, KNOWN, CUT, REMADE)


TEXT = pa.schema([pa.field("text", pa.large_string(), nullable=False)])
HOME_ROWS = pa.schema(
    [
        pa.field("home", pa.uint64()),
        pa.field("part", pa.int32()),
        pa.field("start", pa.int64()),
        pa.field("stop", pa.int64()),
    ]
)
"""Digest of a container, and where rows of it lie in a complete listing."""


class Surroundings(Protocol):
    """Settings of a run that are no part of any table, such as how long to wait for a server; pickled with tasks."""

    def used(self) -> AbstractContextManager[None]:
        """What is done within goes by these settings."""
        ...


@dataclass(frozen=True)
class Task:
    """One part of one step, in one phase; all that a worker needs but the store."""

    phase: Literal["run", "scatter", "partial", "combine", "list", "homes"]
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
    known: bool = False
    """Phase list: the table is complete, and only what it does not hold is wanted."""
    target: str = ""
    """Phase run of a Listing: the table that takes the part."""
    pieces: tuple[tuple[int, int, int], ...] = ()
    """Phase run of a Listing: (listed part, first row, row behind the last) of what the part is made of."""

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


def log_entry(done: Done) -> dict[str, Any]:
    """What the progress of a table says of a task."""
    return {
        "phase": done.phase,
        "part": done.part.number,
        "rows": done.part.rows,
        "seconds": round(done.seconds, 3),
        "fingerprint": done.part.fingerprint,
        "content": done.part.content,
        "counts": done.counts.as_json(),
    }


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
    if isinstance(stage, Listing):
        return {name: _perform_listing(store, name, stage, task)}
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


def _perform_listing(store: Store, name: str, stage: Listing, task: Task) -> Part:
    fingerprint, table = task.fingerprints[name], store.table(name)
    if task.phase == "homes":
        return store.table(f"{name}/{HOMES}").commit(
            task.part, HOME_ROWS, _homes(stage, table, task.part), fingerprint=fingerprint
        )
    if task.phase == "list":
        text: str = store.table(f"{name}/{GROUPS}").read(task.part)["text"][0].as_py()
        known = Known(table, store.table(f"{name}/{KNOWN}")) if task.known else None
        told: list[str] = []
        rows = stage.list_group(text, known, told.append)
        done = store.table(f"{name}/{LISTED}").commit(task.part, stage.listed_schema(), rows, fingerprint=fingerprint)
        write_text(store.table(f"{name}/{TOLD}"), task.part, told[0], fingerprint=fingerprint)
        return done
    listed, told_of = store.table(f"{name}/{LISTED}"), store.table(f"{name}/{TOLD}")
    pieces = [
        Piece(told_of.read(number)["text"][0].as_py(), start, stop, partial(read_rows, listed, number, start, stop))
        for number, start, stop in task.pieces
    ]
    schema, batches = stage.fill(task.part, pieces)
    return store.table(task.target).commit(task.part, schema, batches)


def _homes(stage: Listing, table: Table, part: int) -> Iterator[pa.RecordBatch]:
    """Where the rows of each container lie in one part."""
    found = np.array([digest_text(home) for home in stage.homes_of(table.read(part))], np.uint64)
    bounds = np.flatnonzero(np.r_[True, found[1:] != found[:-1], True]) if len(found) else np.zeros(0, np.int64)
    columns = [found[bounds[:-1]], np.full(len(bounds[:-1]), part, np.int32), bounds[:-1], bounds[1:]]
    yield pa.RecordBatch.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, HOME_ROWS, strict=True)], schema=HOME_ROWS
    )


def read_rows(table: Table, part: int, start: int, stop: int) -> Iterator[pa.RecordBatch]:
    """Some rows of a part, by the row groups that hold them."""
    with table.open(part) as file:
        first = 0
        for group in range(file.num_row_groups):
            after = first + file.metadata.row_group(group).num_rows
            if first < stop and after > start:
                low, high = max(start, first), min(stop, after)
                yield from file.read_row_group(group).slice(low - first, high - low).to_batches()
            first = after


def write_text(table: Table, part: int, text: str, *, fingerprint: str = "") -> None:
    """Commit a part of one row that is a text."""
    table.commit(
        part,
        TEXT,
        [pa.RecordBatch.from_arrays([pa.array([text], pa.large_string())], schema=TEXT)],
        fingerprint=fingerprint,
    )


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
            tables[name] = store.table(names[0]).read(task.part)
    return tables
