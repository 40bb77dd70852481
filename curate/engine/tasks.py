"""What runs on a worker: a task carries (stage, part), reads its inputs and commits its parts; no data travels."""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from curate.counting import Counts, metered
from curate.engine.image_ids import part_of
from curate.engine.part_writer import ROWS, Part, PartWriter
from curate.engine.pieces import PieceFiles
from curate.engine.row_reuse import MadeOf, find_earlier
from curate.engine.shuffle import (
    Condense,
    Layout,
    Scattered,
    read_bucket,
    read_coarse,
    with_bucket,
    write_coarse,
    write_fine,
)
from curate.engine.stage import Fold, Input, IteratedFold, Known, Listing, Piece, SharedMap, Shuffle, Stage, digest_text
from curate.engine.store import Store
from curate.engine.table import Table
from curate.engine.tallies import add
from curate.engine.threads import set_threads
from curate.errors import DamagedPart, TableError
from curate.logs import show_warnings_visibly
from curate.memory import release_holes
from curate.surroundings import surrounded

SCATTERED, PIECES, PARTIALS, STATE = "_scattered", "_pieces", "_partials", "_state"
"""Hidden folders of a table in the making; of a Shuffle: the first of two levels, and the last level."""
GROUPS, LISTED, TOLD, HOMES, KNOWN, CUT, REMADE = "_groups", "_listed", "_told", "_homes", "_known", "_cut", "_remade"
MOVED, DOUBTS = "_moved", "_doubts"
"""The same of a Listing, see `scanning.py`."""
LISTING = (GROUPS, LISTED, TOLD, HOMES, KNOWN, CUT, REMADE, MOVED, DOUBTS)
HIDDEN = (SCATTERED, PIECES, PARTIALS, STATE, *LISTING)

TEXT = pa.schema([pa.field("text", pa.large_string(), nullable=False)])
HOME_ROWS = pa.schema(
    [
        pa.field("home", pa.uint64()),
        pa.field("part", pa.int32()),
        pa.field("start", pa.int64()),
        pa.field("stop", pa.int64()),
    ]
)
"""Digest of a container, and where rows of it lie in a listing."""


class Surroundings(Protocol):
    """Settings of a run that are no part of any table, such as how long to wait for a server; pickled with tasks."""

    def used(self) -> AbstractContextManager[None]:
        """What is done within goes by these settings."""
        ...


@dataclass(frozen=True)
class Task:
    """One part of one step, in one phase; all that a worker needs but the store."""

    phase: Literal["run", "scatter", "regroup", "partial", "combine", "list", "homes", "move", "resolve"]
    """Phase resolve makes no part: it tells what `auto` means on the worker."""
    part: int
    """Of a Shuffle: the number of a group of input parts, of a file of the second level, or of a bucket."""
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
    num_parts: int = 0
    """Phase combine: parts of the output."""
    made_by: dict[str, str] = field(default_factory=dict)
    """Table name to the digest of all that makes its rows but the inputs; of a pass."""
    vouched: frozenset[str] = frozenset()
    """Tables of a pass that were complete, and of these stages, when the step began."""
    anew: bool = False
    """Make all rows of a part, also where an earlier run left some that are right."""
    within: Surroundings | None = None
    """What the worker does it within."""
    layout: Layout | None = None
    """How the rows of a Shuffle travel."""
    pieces: pa.Schema | None = None
    """Schema of these rows."""
    known: bool = False
    """Phase list: the table is complete, and only what it does not hold is wanted. Phase homes: it is the table whose
    containers are noted, and not what was listed."""
    target: str = ""
    """Phases run and move of a Listing: the table that takes the part."""
    moved_from: str = ""
    """The same: what the part stands for, see `Part.moved_from`."""
    cut: tuple[tuple[int, int, int], ...] = ()
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
    stage: Stage | None = None
    """Phase resolve: the stage of the table, with what `auto` means on the worker."""


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
        with (
            metered() as meter,
            surrounded(workdir=store.below or store),
            task.within.used() if task.within else nullcontext(),
        ):
            if task.phase == "resolve":
                nothing = Part(task.part, 0, "", "")
                resolved = {name: stage.resolve_on_worker() for name, stage in task.stages.items()}
                return [Done(name, task.phase, nothing, 0, stage=stage) for name, stage in resolved.items()]
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
    if task.phase in ("scatter", "regroup"):
        return _perform_shuffle(store, task)
    ((name, stage),) = task.stages.items()
    fingerprint = task.fingerprints[name]
    if isinstance(stage, Listing):
        return {name: _perform_listing(store, name, stage, task)}
    if task.phase == "partial":
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
        if stage.state_by_image:
            return {name: _commit_by_image(target, task.num_parts, task.schemas[name], rows, fingerprint)}
    else:
        target, part = store.table(name), task.part
        rows = _run(stage, name, store, task)
    counts, carried = (stage.tally, _carried(stage, name, store, task)) if task.phase == "run" else (None, None)
    done = target.commit(part, task.schemas[name], rows, fingerprint=fingerprint, tally=counts, carried=carried)
    return {name: done}


def _perform_shuffle(store: Store, task: Task) -> dict[str, Part]:
    """The rows of a group of input parts, or of a coarse bucket, on their way."""
    ((name, stage),) = task.stages.items()
    layout, schema = task.layout, task.pieces
    assert isinstance(stage, Shuffle)
    assert layout is not None
    first, last = piece_files(store, name, schema)
    rows: Iterator[Scattered]
    if task.phase == "regroup":
        rows = read_coarse(first, layout, task.part)
    else:
        tasks = (replace(task, part=part) for part in layout.parts_of(task.part))
        rows = (one for each in tasks for one in stage.scatter(each.part, **_read(store, each)))
    fingerprint = task.fingerprints[name]
    target = first if task.phase == "scatter" and layout.coarse else last
    with target.begin(task.part, fingerprint) as file:
        if target is first:
            write_coarse(file, rows, last.schema, layout)
        else:
            write_fine(file, rows, last.schema, layout, _condense(stage))
        content = file.close()
    return {name: Part(task.part, file.rows, fingerprint, content)}


def piece_files(store: Store, name: str, schema: pa.Schema) -> tuple[PieceFiles, PieceFiles]:
    """The files of a Shuffle: of the first of two levels, and of the last level.

    Args:
        name: of the table.
        schema: of the scattered rows.
    """
    first = PieceFiles(store, f"{name}/{SCATTERED}", with_bucket(schema))
    return first, PieceFiles(store, f"{name}/{PIECES}", schema)


def _condense(stage: Shuffle) -> Condense | None:
    """What a stage condenses rows with; None: all of them stay."""
    return None if type(stage).condense is Shuffle.condense else stage.condense


def _carried(stage: Stage, name: str, store: Store, task: Task) -> dict[str, Any]:
    """What `combine` added to the figures: it stays with part 0."""
    total: dict[str, Any] = {}
    if isinstance(stage, Fold) and stage.tally is not None and task.part == 0:
        states = store.table(f"{name}/{STATE}")
        footers = states.footers(states.committed() if stage.state_by_image else [task.number])
        for _, footer in sorted(footers.items()):
            add(total, footer.tally, most=stage.tally.most)
    return total


def _commit_by_image(
    states: Table, num_parts: int, schema: pa.Schema, rows: Iterator[pa.RecordBatch], fingerprint: str
) -> Part:
    """Commit a state by the parts that its images lie in; returns what the whole of it is."""
    pieces = _by_part(rows)
    waiting, found = next(pieces, None), 0
    for part in range(num_parts):
        with states.begin(part, schema, fingerprint=fingerprint) as writer:
            while waiting is not None and waiting[0] == part:
                writer.write(waiting[1])
                waiting = next(pieces, None)
        found += writer.done().rows
    if waiting is not None:
        raise TableError(f"{states.name}: part {waiting[0]} after {num_parts} parts; its images must ascend")
    return Part(0, found, fingerprint, "")


def _by_part(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(part, rows) of batches in ascending order of images; a batch without rows goes with those before it."""
    part = 0
    for batch in batches:
        if batch.num_rows == 0:
            yield part, batch
            continue
        parts = part_of(batch["image_id"].to_numpy())
        for start, stop in itertools.pairwise(np.flatnonzero(np.diff(parts, prepend=-1, append=-1)).tolist()):
            part = int(parts[start])
            yield part, batch.slice(start, stop - start)


def _perform_listing(store: Store, name: str, stage: Listing, task: Task) -> Part:
    fingerprint, table = task.fingerprints[name], store.table(name)
    listed, told_of = store.table(f"{name}/{LISTED}"), store.table(f"{name}/{TOLD}")
    if task.phase == "homes":
        if task.known:
            found = stage.homes_of(table.read(task.part))
        else:
            found = stage.homes_of(listed.read(task.part), read_text(told_of, task.part))
        rows = _homes(found, task.part)
        return store.table(f"{name}/{HOMES}").commit(task.part, HOME_ROWS, rows, fingerprint=fingerprint)
    told: list[str] = []
    if task.phase == "list":
        text = read_text(store.table(f"{name}/{GROUPS}"), task.part)
        known = Known(table, store.table(f"{name}/{KNOWN}")) if task.known else None
        rows = stage.list_group(text, known, told.append)
        done = listed.commit(task.part, stage.listed_schema(), rows, fingerprint=fingerprint)
        write_text(told_of, task.part, told[0], fingerprint=fingerprint)
        return done
    if task.phase == "move":
        known = Known(listed, store.table(f"{name}/{KNOWN}"))
        schema, batches = stage.move(table.read(task.part), known, told.append)
        write_text(store.table(f"{name}/{DOUBTS}"), task.part, told[0])
    else:
        pieces = [
            Piece(read_text(told_of, number), start, stop, partial(read_rows, listed, number, start, stop))
            for number, start, stop in task.cut
        ]
        schema, batches = stage.fill(task.part, pieces)
    return store.table(task.target).commit(task.part, schema, batches, moved_from=task.moved_from)


def _homes(homes: Sequence[str], part: int) -> Iterator[pa.RecordBatch]:
    """Where the rows of each container lie in one part."""
    found = np.array([digest_text(home) for home in homes], np.uint64)
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


def read_text(table: Table, part: int) -> str:
    """What `write_text` committed."""
    text: str = table.read(part)["text"][0].as_py()
    return text


def _run(stage: Stage, name: str, store: Store, task: Task) -> Iterator[pa.RecordBatch]:
    if isinstance(stage, Shuffle):
        assert task.layout is not None
        _, files = piece_files(store, name, task.pieces)
        pieces = read_bucket(files, task.layout, task.part, _condense(stage))
        before = {"before": store.table(name)} if stage.reuses else {}
        return stage.run(task.part, pieces=pieces, **before, **_read(store, task, only="whole"))
    if isinstance(stage, Fold):
        return stage.run(task.part, state=_state(stage, store.table(f"{name}/{STATE}"), task), **_read(store, task))
    return stage.run(task.part, **_read(store, task))


def _state(stage: Fold, states: Table, task: Task) -> pa.Table:
    """As much of the state as a part of the output is made of."""
    return states.read(task.part if stage.state_by_image else task.number)


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
    inputs = _read(store, task)
    blocks = tuple(lead.contents(task.part, **inputs))
    made_of = {name: MadeOf(task.made_by[name], blocks) for name in task.fingerprints}
    with ExitStack() as stack:
        for name, fingerprint in task.fingerprints.items():
            table, counts = store.table(name), task.stages[name].tally
            writing = table.begin(task.part, task.schemas[name], fingerprint=fingerprint, tally=counts)
            writers[name] = stack.enter_context(writing)
            if blocks:
                writers[name].notes[ROWS] = made_of[name].text()
        for name, batch in _rows_together(lead, store, task, inputs, made_of):
            if name in writers:
                writers[name].write(batch)
    return {name: writer.done() for name, writer in writers.items()}


def _needed(task: Task) -> dict[str, Stage]:
    """The stages of a pass whose rows are made: where one leads, it and those of the tables to commit."""
    if not any(isinstance(stage, SharedMap) and stage.leads for stage in task.stages.values()):
        return task.stages
    return {
        name: stage
        for name, stage in task.stages.items()
        if name in task.fingerprints or (isinstance(stage, SharedMap) and stage.leads)
    }


def _rows_together(
    lead: SharedMap, store: Store, task: Task, inputs: Mapping[str, Any], made_of: Mapping[str, MadeOf]
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """The rows of a pass: all of them, or beside those that an earlier run left, the others."""
    tables = {name: store.table(name) for name in task.fingerprints}
    stages: Any = _needed(task)
    with ExitStack() as stack:
        earlier = None
        if not task.anew:
            with suppress(DamagedPart):  # what is there is not what was written: all rows anew
                wanted, vouched = task.fingerprints, task.vouched
                earlier = find_earlier(tables, task.part, wanted=wanted, made_of=made_of, vouched=vouched, stack=stack)
        if earlier is None:
            yield from lead.run_together(stages, task.part, **inputs)
        else:
            yield from lead.run_again(stages, task.part, earlier=earlier, **inputs)


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
        elif spec.many and spec.how == "each":
            tables[name] = [store.table(one).read(task.part) for one in names]
        elif spec.many:
            tables[name] = [Table(store, n, digest=task.manifests.get(n)) for n in names]
        elif spec.how == "whole" or spec.as_table:
            tables[name] = Table(store, names[0], digest=task.manifests.get(names[0]))
        else:
            tables[name] = store.table(names[0]).read(task.part, spec.schema.names)
    return tables
