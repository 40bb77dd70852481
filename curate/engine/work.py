"""Making the tables of one step of a pipeline: what is missing, its phases, and the manifest at the end.

What makes this hard is that a run may end anywhere and must go on from there, with equal bytes, on other machines. So
nothing but files says what is done. A part is done when a file of its name carries the fingerprint that is wanted of
it (see `freshness.py`); whatever else lies under that name is made again. A table is complete when its manifest says
so, which is written last and in one step: until then `_progress.jsonl` collects the seconds of every attempt, and the
intermediate files of a Shuffle (`_scattered`, `_pieces`) and parts of a Fold (`_partials`, `_state`) lie in hidden
folders beside the parts, with fingerprints of their own, so that a phase that was finished is not done again. `auto`
values are resolved when a table is begun and kept with it: what was decided on a machine with a GPU does not change
when the rest is made without. Parts of a finished table are trusted by the manifest and their size alone; only without
one are footers read. A part with open rows (see `part_writer.py`) carries another fingerprint than the wanted one, so
each run makes it again, and a pass then reads the open rows alone; `row_reuse.py` tells which rows a pass takes from
what is there.
"""

import contextlib
import hashlib
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from curate import progress
from curate.config import digest, identity
from curate.counting import Counts, Meter, metered
from curate.engine.cleaning import CleanedRows, rows_gone
from curate.engine.executors import Executor
from curate.engine.freshness import (
    Flags,
    part_fingerprints,
    previous_resolved,
    resolved_stage,
    stage_digests,
    why_stale,
)
from curate.engine.part_writer import Part
from curate.engine.pieces import PieceFiles, holds_raw
from curate.engine.scanning import Scanning
from curate.engine.shuffle import TASK_MEMORY, Layout
from curate.engine.stage import Fold, IteratedFold, Scan, SharedMap, Shuffle, Stage
from curate.engine.store import Store
from curate.engine.table import DRIVER, Manifest, Table
from curate.engine.tasks import (
    PARTIALS,
    PIECES,
    SCATTERED,
    STATE,
    Surroundings,
    Task,
    inputs_of,
    log_entry,
    piece_files,
)
from curate.errors import TableError

logger = logging.getLogger(__name__)
Place = tuple[str, int]
"""Name of a table, hidden ones among them, and number of a part."""


@dataclass(frozen=True)
class Step:
    """One stage, or several that share one reading of their inputs: what they are, read and make."""

    stages: dict[str, Stage]
    inputs: dict[str, tuple[str, ...] | None]
    schemas: dict[str, pa.Schema]
    input_schemas: dict[str, Any]
    within: Surroundings | None = None
    """What its tasks are done within."""


class Work:
    """Making the tables of one step."""

    _meter: Meter
    """What the driver does for the step, while it runs."""

    def __init__(
        self,
        store: Store,
        step: Step,
        flags: Flags,
        *,
        damaged: Collection[Place] = (),
        restore: Mapping[str, Collection[int]] | None = None,
        task_memory: int = TASK_MEMORY,
    ) -> None:
        """Work on the tables of one step.

        Args:
            damaged: parts that are there and do not hold what was written: they are made again.
            restore: by table parts that were cleaned and whose rows are needed again.
            task_memory: bytes that a task of a Shuffle may use, about.
        """
        self.store, self.step, self.flags, self.damaged = store, step, flags, frozenset(damaged)
        self.restore, self.task_memory = dict(restore or {}), task_memory
        self.tables = {name: store.table(name) for name in step.stages}
        self.inputs = {name: open_input(store, step, name) for name in step.inputs}
        self.before = {name: table.manifest() for name, table in self.tables.items()}

    def run(self, executor: Executor) -> list[str]:
        """Make what is missing; returns the names of the tables that changed."""
        with metered() as self._meter:
            return self._run(executor)

    def _run(self, executor: Executor) -> list[str]:
        lead = next(iter(self.step.stages.values()))
        if isinstance(lead, Scan):
            return Scanning(self, lead, executor).run()
        if lead.pinned and self._pinned_holds():
            return []
        kept = self.as_before()
        if kept is not None:
            if self.restore:
                self._restore(executor, kept)
            for name in kept:
                self._settle(name)
            return []
        regroups = isinstance(lead, Shuffle | Fold)
        if regroups or any(type(stage).resolve is not Stage.resolve for stage in self.step.stages.values()):
            self.need_rows(None)
        stages = {
            name: stage.resolve(previous_resolved(self.before[name], stage), **known_inputs(stage, self.inputs))
            for name, stage in self.step.stages.items()
        }
        if not all(stage.is_resolved() for stage in stages.values()):
            stages = self._resolve_on_worker(executor, stages)
        num_parts = stages[next(iter(stages))].num_parts(**known_inputs(lead, self.inputs))
        wanted = part_fingerprints(stages, self.inputs, num_parts)
        todo = {name: self.missing(name, wanted[name]) for name in stages}
        stale = [name for name in stages if todo[name] or not self.is_told(name, num_parts)]
        if not stale:
            return []
        self.need_rows(set().union(*todo.values()))
        if isinstance(lead, Shuffle) and lead.reuses:
            stages = {name: self._look_back(name, stage) for name, stage in stages.items()}
        for name in stale:
            self.open_manifest(name, stages[name], num_parts, cleaned=self._cleaned(name, todo[name]))
        self._run_phases(executor, stages, wanted, todo)
        for name in stale:
            by_content = lead.pinned and not isinstance(lead, Shuffle)
            self.finish(name, stages[name], None if by_content else wanted[name], num_parts)
        return stale

    def _resolve_on_worker(self, executor: Executor, stages: dict[str, Stage]) -> dict[str, Stage]:
        """The stages with what `auto` means where they will run, told by one worker for all of them."""
        resources = next(iter(stages.values())).resources()
        task = Task("resolve", 0, stages, {}, {}, {}, resources=resources, within=self.step.within)
        found = {one.table: one.stage for done in executor.run(self.store.root, [task]) for one in done}
        return {name: found[name] or stage for name, stage in stages.items()}

    def need_rows(self, parts: Collection[int] | None) -> None:
        """Raise CleanedRows where rows of the inputs were removed.

        Args:
            parts: numbers of the parts to make; None: all rows may be read.
        """
        regroups = isinstance(next(iter(self.step.stages.values())), Shuffle | Fold)
        specs = inputs_of(self.step.stages)
        read = {
            key: (self.inputs[key], spec.how == "each" and not regroups)
            for key, spec in specs.items()
            if key in self.inputs
        }
        gone = rows_gone(read, parts)
        if gone and (parts is None or parts):
            raise CleanedRows(gone, " + ".join(self.step.stages))

    def _restore(self, executor: Executor, stages: dict[str, Stage]) -> None:
        """Make parts of complete tables again that were cleaned; they get the fingerprints that they had."""
        wanted = {name: [part.fingerprint for part in self.tables[name].parts()] for name in stages}
        todo = {name: sorted(self.tables[name].absent() & set(self.restore.get(name, ()))) for name in stages}
        self.need_rows(set().union(*todo.values()))
        self._run_phases(executor, stages, wanted, todo)
        for name, parts in todo.items():
            table = self.tables[name]
            for number, footer in table.footers(parts).items():
                if footer.fingerprint != wanted[name][number]:
                    raise TableError(
                        f"{table.part_path(number)}: cannot be made again as it was, since some data could not be had "
                        "this time; run the same command again"
                    )

    def _settle(self, name: str) -> None:
        """End the restoring of parts, also one that was killed: parts that are there are not cleaned any more."""
        table, manifest = self.tables[name], self.tables[name].complete_manifest()
        left = table.absent() if manifest.cleaned else set()
        if len(left) < len(manifest.cleaned):
            self.store.remove_folders(name, (PIECES, PARTIALS, STATE))
            table.end_log()
            table.write_manifest(replace(manifest, cleaned=sorted(left)))

    def _cleaned(self, name: str, todo: Collection[int]) -> list[dict[str, Any]]:
        """What is told of the parts of a table that were cleaned and stay so."""
        before = self.before[name]
        gone = self.tables[name].absent() - set(todo) if before is not None else set()
        return [part for part in before.parts if part["number"] in gone] if before is not None else []

    def _look_back(self, name: str, stage: Stage) -> Stage:
        assert isinstance(stage, Shuffle)
        return stage.look_back(self.tables[name], **known_inputs(stage, self.inputs))

    def as_before(self) -> dict[str, Stage] | None:
        """The stages with the `auto` values of the tables that are there, if these are complete and still fresh.

        What `auto` becomes depends on the inputs, so where no input has changed nothing has to be resolved again, which
        for some stages means to read vectors.
        """
        stages: dict[str, Stage] = {}
        for name, stage in self.step.stages.items():
            before = self.before[name]
            if before is None or not before.complete or previous_resolved(before, stage) is None:
                return None
            stages[name] = resolved_stage(stage, before)
        name, lead = next(iter(stages.items()))
        if isinstance(
            lead, Shuffle | Fold
        ):  # each part depends on all inputs, so their fingerprints answer for the number
            num_parts = len(self.tables[name].parts())
        else:
            num_parts = lead.num_parts(**known_inputs(lead, self.inputs))
        wanted = part_fingerprints(stages, self.inputs, num_parts)
        fresh = all(
            self.is_complete(name, num_parts) and not self.missing(name, wanted[name], restoring=False)
            for name in stages
        )
        return stages if fresh else None

    def _pinned_holds(self) -> bool:
        """Whether a table that is known by its content is there and may stay."""
        ((name, before),) = self.before.items()
        kept = before is not None and before.complete and not self.flags.refit and not self.flags.may_rebuild(name)
        if kept and self.flags.update:  # of other settings, or other vectors: fitted again
            kept = not why_stale(self.tables[name], self.step.stages[name], self.step.schemas[name], Flags())
        return kept and not self.lost(name)

    def lost(self, name: str) -> set[int]:
        """Parts of a complete table that are gone, or damaged."""
        there = self.tables[name].committed().keys() - {number for table, number in self.damaged if table == name}
        return {part.number for part in self.tables[name].parts()} - there

    def is_complete(self, name: str, num_parts: int) -> bool:
        before = self.before[name]
        return before is not None and before.complete and len(before.parts) == num_parts

    def is_told(self, name: str, num_parts: int) -> bool:
        """Whether the table is complete, and its manifest tells the settings of now.

        A value that is given may be what `auto` became: then the parts stay, and the manifest alone is written anew.
        """
        stage, schema = self.step.stages[name], self.step.schemas[name]
        return self.is_complete(name, num_parts) and not why_stale(self.tables[name], stage, schema, Flags())

    def missing(self, name: str, wanted: list[str], *, restoring: bool = True) -> list[int]:
        """Parts to make: absent, made of something else, or all where the user asked for a rebuild.

        Args:
            restoring: whether parts that were cleaned count as absent where their rows are needed again.
        """
        if self.flags.may_rebuild(name):
            return list(range(len(wanted)))
        table, before = self.tables[name], self.before[name]
        there = {n: size for n, size in table.committed().items() if (name, n) not in self.damaged}
        known = {part["number"]: Part(**part) for part in before.parts} if before else {}
        # A finished table's manifest is trusted, where the file still has the size that it tells.
        found = {n: part for n, part in known.items() if n in there and part.num_bytes in (0, there[n])}
        found |= table.whole_footers(n for n in there if n not in known and n < len(wanted))
        if before is not None:  # where rows are gone, what they were made of is known
            again = {n for damaged, n in self.damaged if damaged == name}
            again |= set(self.restore.get(name, ())) if restoring else set()
            found |= {n: known[n] for n in set(before.cleaned) - again - there.keys()}
        return [n for n, fingerprint in enumerate(wanted) if n not in found or found[n].fingerprint != fingerprint]

    def _run_phases(
        self, executor: Executor, stages: dict[str, Stage], wanted: dict[str, list[str]], todo: dict[str, list[int]]
    ) -> None:
        name, lead = next(iter(stages.items()))
        parts = sorted(set().union(*map(set, todo.values())))
        schemas = {n: s.output_schema(**known_inputs(s, self.step.input_schemas)) for n, s in stages.items()}
        plain = Task("run", 0, stages, schemas, {}, self.step.inputs, self._manifests())
        anew = any(map(self.flags.may_rebuild, stages))
        plain = replace(plain, resources=lead.resources(), within=self.step.within)
        if parts and isinstance(lead, Shuffle):
            plain = self._shuffle(executor, plain, wanted[name], parts)
        if parts and isinstance(lead, Fold):
            plain = replace(plain, number=self._run_rounds(executor, plain, wanted[name]))
        commit = {part: {n: wanted[n][part] for n in stages if part in todo[n]} for part in parts}
        if lead.pinned and not isinstance(lead, Shuffle):  # they carry the digest of their rows, not their origin
            commit = {part: dict.fromkeys(names, "") for part, names in commit.items()}
        if isinstance(lead, SharedMap):
            vouched = frozenset(n for n in stages if (before := self.before[n]) is not None and before.complete)
            plain = replace(plain, made_by=stage_digests(stages), vouched=vouched)
        damaged = {part for table, part in self.damaged if table in stages}
        tasks = [replace(plain, part=part, fingerprints=commit[part], anew=anew or part in damaged) for part in parts]
        self.execute(executor, " + ".join(stages), tasks, max(len(w) for w in wanted.values()))

    def _shuffle(self, executor: Executor, plain: Task, wanted: list[str], parts: list[int]) -> Task:
        """Bring the rows of a Shuffle to the buckets `parts`; returns the task that such a bucket then is.

        What both levels hold depends on the layout, so that a run with other memory starts them anew. Where the last
        level is whole, the first one is gone and not asked for.
        """
        ((name, stage),) = plain.stages.items()
        assert isinstance(stage, Shuffle)
        known = known_inputs(stage, self.inputs)
        schema = stage.piece_schema(**known_inputs(stage, self.step.input_schemas))
        layout = Layout.plan(
            inputs=stage.num_scatter(**known),
            buckets=len(wanted),
            num_bytes=stage.scattered_bytes(schema, **known),
            raw=holds_raw(schema),
            task_memory=self.task_memory,
        )
        made_of = [list(layout), hashlib.sha256(schema.serialize().to_pybytes()).hexdigest(), wanted]
        task = replace(plain, layout=layout, pieces=schema)
        first, last = piece_files(self.store, name, schema)
        scatter = replace(task, phase="scatter", fingerprints={name: digest(["scatter", made_of])})
        if not layout.coarse:
            self._run_pieces(executor, scatter, last, range(layout.groups), layout.groups)
            return task
        regroup = replace(task, phase="regroup", fingerprints={name: digest(["regroup", made_of])})
        files = sorted({file for part in parts for file in layout.regrouping(part)})
        missing = self._missing_pieces(regroup, last, files)
        groups = sorted({group for file in missing for group in layout.regrouped(file)[1]})
        self._run_pieces(executor, scatter, first, groups, layout.groups)
        self._run_pieces(executor, regroup, last, files, layout.coarse * layout.slices)
        self.store.remove(first.name)
        return task

    def _run_pieces(self, executor: Executor, task: Task, files: PieceFiles, wanted: Iterable[int], total: int) -> None:
        """Make the files of one level of a Shuffle that are not there."""
        tasks = [replace(task, part=number) for number in self._missing_pieces(task, files, wanted)]
        self.execute(executor, _label(task), tasks, total)

    def _missing_pieces(self, task: Task, files: PieceFiles, wanted: Iterable[int]) -> list[int]:
        (fingerprint,) = task.fingerprints.values()
        fresh = files.keep_fresh(fingerprint, damaged={part for table, part in self.damaged if table == files.name})
        return [number for number in wanted if number not in fresh]

    def _manifests(self) -> dict[str, str]:
        """Input table to the digest of its manifest."""
        names = {name for names in self.step.inputs.values() for name in names or ()}
        digests = {name: self.store.table(name).manifest_digest() for name in sorted(names)}
        return {name: digest for name, digest in digests.items() if digest is not None}

    def _run_rounds(self, executor: Executor, plain: Task, wanted: list[str]) -> int:
        """All rounds of a Fold (a plain one has one), after the newest state that is there; returns the last one."""
        ((name, lead),) = plain.stages.items()
        assert isinstance(lead, Fold)
        states = self.store.table(f"{name}/{STATE}")
        limit = lead.max_rounds() if isinstance(lead, IteratedFold) else 1
        there = {n for n in states.committed() if (states.name, n) not in self.damaged}
        if lead.state_by_image:  # one process makes all parts of it
            number = 0 if _made_of(states, there, 0, wanted) >= set(range(len(wanted))) else -1
        else:
            number = max((n for n in there if _made_of(states, {n}, n, wanted)), default=-1)
        while number < 0 or (number + 1 < limit and not states.read(number, ["finished"])["finished"][0].as_py()):
            number += 1
            self._run_round(executor, replace(plain, number=number), lead, wanted)
            made = set(range(len(wanted))) if lead.state_by_image else {number}
            states.drop_parts(states.committed().keys() - made)
        return number

    def _run_round(self, executor: Executor, plain: Task, lead: Fold, wanted: list[str]) -> None:
        name = next(iter(plain.stages))
        schemas = known_inputs(lead, self.step.input_schemas)
        number = (plain.number,) if isinstance(lead, IteratedFold) else ()
        partial = lead.partial_schema(*number, **schemas)
        if partial is not None:
            count = lead.num_partials(**known_inputs(lead, self.inputs))
            hidden = replace(plain, phase="partial", schemas={name: partial})
            self._run_hidden(executor, hidden, PARTIALS, [count, *wanted])
        fingerprint = _state_fingerprint(plain.number, wanted)
        combine = replace(plain, phase="combine", schemas={name: lead.state_schema(**schemas)})
        task = replace(combine, fingerprints={name: fingerprint}, num_parts=len(wanted))
        self.execute(executor, _label(task), [task], 1)

    def _run_hidden(self, executor: Executor, task: Task, folder: str, made_of: list[Any]) -> None:
        """A phase whose parts live in a hidden folder of the table until the table is finished.

        Args:
            made_of: the number of parts, then the fingerprints of the table's parts.
        """
        name, count = next(iter(task.stages)), made_of[0]
        hidden = self.store.table(f"{name}/{folder}")
        fingerprint = digest([task.phase, task.number, made_of])
        there = hidden.committed()
        hidden.drop_parts(there.keys() - set(range(count)))
        found = hidden.whole_footers(there.keys() & set(range(count)))
        fresh = {part for part, footer in found.items() if footer.fingerprint == fingerprint}
        fresh -= {part for table, part in self.damaged if table == hidden.name}
        task = replace(task, fingerprints={name: fingerprint})
        tasks = [replace(task, part=part) for part in range(count) if part not in fresh]
        self.execute(executor, _label(task), tasks, count)

    def execute(
        self, executor: Executor, label: str, tasks: list[Task], total: int, *, unit: str = "parts", counted: str = ""
    ) -> None:
        """Run tasks, and log what they commit.

        Args:
            total: of the tasks that were wanted, those included that are done.
            unit: what a task makes, for the progress.
            counted: what the rows are, where the progress tells their number.
        """
        if not tasks:
            return
        with progress.track(label, total, done=total - len(tasks), unit=unit) as advance:
            try:
                rows = 0
                for done in executor.run(self.store.address, tasks):
                    for one in done:
                        self.tables[one.table].log_task(log_entry(one))
                        rows += one.part.rows
                    advance(1, note=f"{rows:,} {counted}" if counted else "")
            except BaseException:
                for table in self.tables.values():
                    with contextlib.suppress(Exception):  # the error that ends the run is told, not this one
                        table.publish_log()
                raise

    def open_manifest(
        self, name: str, stage: Stage, num_parts: int | None, *, cleaned: Sequence[dict[str, Any]] = ()
    ) -> None:
        """Say what makes the table, which is not complete from now on."""
        declared = self.step.stages[name]
        if self.before[name] is None:
            self.tables[name].start_log()
        stage.before_making(self.tables[name])
        inputs = {k: list(v) for k, v in self.step.inputs.items() if v is not None}
        self.tables[name].write_manifest(
            Manifest(
                stage=type(stage).__name__,
                version=stage.version,
                config=identity(declared),
                resolved=identity(stage),
                pins=stage.pins(),
                inputs=inputs,
                num_parts=num_parts,
                parts=list(cleaned),
                cleaned=[part["number"] for part in cleaned],
            )
        )

    def finish(
        self, name: str, stage: Stage, wanted: list[str] | None, num_parts: int, *, opened: Manifest | None = None
    ) -> None:
        """Drop what is left over, sum up, and publish the one manifest that makes the table complete.

        Args:
            wanted: fingerprints that the parts must have; None: tables known by their content.
            opened: what the manifest says so far; None: as it was written when the table was begun.
        """
        table = self.tables[name]
        sizes = table.committed()
        table.drop_parts(sizes.keys() - set(range(num_parts)))
        opened, log = opened or table.manifest(), table.task_log()
        assert opened is not None
        gone = {part["number"]: Part(**part) for part in opened.parts if part["number"] not in sizes}
        made = _committed(table, [number for number in range(num_parts) if number not in gone])
        made = {number: replace(part, num_bytes=sizes[number]) for number, part in made.items()}
        parts = [made[number] if number in made else gone[number] for number in range(num_parts)]
        if wanted is not None and not all(part.fulfills(w) for part, w in zip(parts, wanted, strict=True)):
            raise TableError(f"{name}: changed while it was made, by another run on {self.store.root}? run again")
        complete = replace(
            opened,
            complete=True,
            num_parts=num_parts,
            parts=[part.__dict__ for part in parts],
            cleaned=sorted(gone),
            rows=sum(part.rows for part in parts),
            seconds=round(opened.seconds + sum(entry["seconds"] for entry in log), 3),
        )
        known = known_inputs(stage, self.inputs)
        figures = stage.summarize(Table(self.store, name, complete), **known)
        if isinstance(stage, Shuffle | Fold):
            self.store.remove_folders(name, (SCATTERED, PIECES, PARTIALS, STATE))
        table.write_manifest(
            replace(
                complete,
                figures=figures.model_dump(mode="json"),
                rows_in=stage.rows_in(figures, **known),
                made_with=[other for other in self.step.stages if other != name],
                counted=_counted(log) | {DRIVER: self._meter.counts()},
            )
        )
        table.end_log()
        logger.info("%s: %d rows in %d parts, %.1f s", name, complete.rows, num_parts, complete.seconds)


def _label(task: Task) -> str:
    """Of a hidden phase, for the progress."""
    iterated = isinstance(next(iter(task.stages.values())), IteratedFold)
    return f"{next(iter(task.stages))} ({task.phase}{f', round {task.number}' if iterated else ''})"


def _state_fingerprint(number: int, wanted: list[str]) -> str:
    return digest(["state", number, wanted])


def _made_of(states: Table, parts: Collection[int], number: int, wanted: list[str]) -> set[int]:
    """Those parts of the state of round `number` that are made of what is wanted."""
    fingerprint = _state_fingerprint(number, wanted)
    return {part for part, footer in states.whole_footers(parts).items() if footer.fingerprint == fingerprint}


def _committed(table: Table, numbers: Sequence[int]) -> dict[int, Part]:
    """What the footers say, by number."""
    found = table.footers(numbers)
    for number in numbers:
        if number not in found:
            raise TableError(f"{table.part_path(number)}: vanished while the table was made; run again")
    return found


def _counted(log: Iterable[Mapping[str, Any]]) -> dict[str, Counts]:
    """What tasks cost, by phase, as their log tells."""
    by_phase: dict[str, list[Counts]] = {}
    for entry in log:
        counts = Counts.of_json(entry.get("counts"))
        if counts != Counts():  # what the driver listed is in its own
            by_phase.setdefault(entry["phase"], []).append(counts)
    return {phase: Counts.sum(counts) for phase, counts in by_phase.items()}


def open_input(store: Store, step: Step, key: str, opened: Mapping[str, Table] | None = None) -> Any:
    """The input tables of `key`: a Table, a list where the stage takes many, None where left out.

    Args:
        opened: tables that are taken as they are known here, by name.
    """
    names = step.inputs[key]
    if names is None:
        return None
    known = opened or {}
    tables = [known[name] if name in known else store.table(name) for name in names]
    return tables if inputs_of(step.stages)[key].many else tables[0]


def known_inputs(stage: Stage, values: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs this stage declares; stages of one pass may declare fewer than the pass reads."""
    return {key: values.get(key) for key in stage.inputs}
