"""Wiring and resume: steps in straight-line order, each made, resumed or kept by the fingerprints of its parts.

A fingerprint says what a part is made of: stage, version, the fields that change results, the contents it pins
(weights), and the fingerprints of the parts it reads. Equal fingerprint: kept. Other inputs: made again, that
part alone. Another configuration: `StaleTable`, until the user asks for a rebuild.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from curate import progress
from curate.config import digest, identity
from curate.errors import ConfigError, StaleTable, TableError
from curate.executors import BUCKET, PARTIALS, PIECES, STATE, Done, Executor, Task
from curate.freshness import Flags, as_list, check_stale, part_fingerprints, previous_resolved
from curate.stage import Fold, Input, RunTogether, Scan, Shuffle, Stage
from curate.store import PROGRESS, Manifest, Part, Store, Table

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ref:
    """A table to be made: what `add` returns and later stages take as input."""

    name: str
    schema: pa.Schema


Refs = Ref | Sequence[Ref] | None


@dataclass(frozen=True)
class Step:
    """One or several stages that are made together, over one reading of their inputs."""

    stages: dict[str, Stage]
    inputs: dict[str, tuple[str, ...] | None]
    schemas: dict[str, pa.Schema]
    input_schemas: dict[str, Any]
    together: RunTogether | None = None


@dataclass
class StepPlan:
    """What a run would do for one table."""

    table: str
    stage: str
    state: str
    """kept, make, resume, update, stale or waiting."""
    parts: int | None = None
    todo: int | None = None
    note: str = ""
    auto: dict[str, Any] = field(default_factory=dict)


class Pipeline:
    """Declares steps, then makes their tables in order."""

    def __init__(self, store: Store, *, seed: int) -> None:
        self.store = store
        self.seed = seed
        self.steps: list[Step] = []
        self._refs: dict[str, Ref] = {}

    # -- declaring -------------------------------------------------------------------------------------------

    def add(self, name: str, stage: Stage, **inputs: Refs) -> Ref:
        """Declare the table `name`; the schemas of its inputs are checked here, before any compute.

        Raises:
            TableError: an input lacks a column, is missing or is unknown to the stage.
        """
        return self._declare({name: stage}, None, inputs)[0]

    def add_pass(self, together: RunTogether, stages: Mapping[str, Stage], **inputs: Refs) -> list[Ref]:
        """Declare several aligned tables that `together` makes in one reading of the inputs.

        Later stages depend on the earlier ones: the fingerprint of a table holds those before it.
        """
        return self._declare(dict(stages), together, inputs)

    def _declare(self, stages: dict[str, Stage], together: RunTogether | None, inputs: dict[str, Refs]) -> list[Ref]:
        for name in stages:
            if name in self._refs:
                raise TableError(f"{name}: declared twice in this pipeline")
        seeded = {name: self._seeded(stage) for name, stage in stages.items()}
        lead = next(iter(seeded.values()))
        _check_inputs(next(iter(seeded)), lead.inputs, inputs)
        schemas_in = {name: _schemas(ref) for name, ref in inputs.items()}
        schemas = {name: stage.output_schema(**_known(stage, schemas_in)) for name, stage in seeded.items()}
        names = {name: _names(ref) for name, ref in inputs.items()}
        self.steps.append(Step(seeded, names, schemas, schemas_in, together))
        refs = [Ref(name, schema) for name, schema in schemas.items()]
        self._refs.update({ref.name: ref for ref in refs})
        return refs

    def _seeded(self, stage: Stage) -> Stage:
        """The run's seed, where the stage has a `seed` that was not given."""
        if "seed" in type(stage).model_fields and stage.seed is None:  # type: ignore[attr-defined]
            return stage.model_copy(update={"seed": self.seed})
        return stage

    # -- running ---------------------------------------------------------------------------------------------

    def run(self, executor: Executor, flags: Flags) -> list[str]:
        """Make every table that is not there yet.

        Returns:
            Names of the tables that changed.

        Raises:
            StaleTable: a table was made with another configuration; nothing is deleted.
        """
        unknown = flags.rebuild - {"all"} - set(self._refs)
        if unknown:
            raise ConfigError(
                f"--rebuild {', '.join(sorted(unknown))}: no such table; this pipeline makes: {', '.join(self._refs)}"
            )
        for step in self.steps:  # every stale table is reported before anything is computed
            for name, stage in step.stages.items():
                check_stale(self.store.table(name), stage, flags)
        changed = []
        for step in self.steps:
            changed += _Work(self.store, step, flags).run(executor)
        return changed

    def plan(self, flags: Flags, *, num_images: int | None = None) -> list[StepPlan]:
        """What `run` would do, without doing it; `num_images` bounds the `auto` values of steps to come."""
        plans: list[StepPlan] = []
        dirty: set[str] = set()
        for step in self.steps:
            upstream = {n for names in step.inputs.values() if names for n in names}
            for name, stage in step.stages.items():
                plan = _plan_table(self.store, step, name, stage, flags, waiting=bool(upstream & dirty))
                if plan.state != "kept":
                    dirty.add(name)
                    if not plan.auto and num_images is not None:
                        plan.auto = stage.estimate(num_images)
                plans.append(plan)
        return plans


class _Work:
    """Making the tables of one step."""

    def __init__(self, store: Store, step: Step, flags: Flags) -> None:
        self.store, self.step, self.flags = store, step, flags
        self.tables = {name: store.table(name) for name in step.stages}
        self.inputs = {name: _open(store, step, name) for name in step.inputs}
        self.before = {name: table.manifest() for name, table in self.tables.items()}

    def run(self, executor: Executor) -> list[str]:
        lead = next(iter(self.step.stages.values()))
        if isinstance(lead, Scan):
            return self._run_scan(lead)
        if lead.pinned and self._pinned_holds(lead):
            return []
        stages = {
            name: stage.resolve(previous_resolved(self.before[name], stage), **_known(stage, self.inputs))
            for name, stage in self.step.stages.items()
        }
        num_parts = lead_parts = stages[next(iter(stages))].num_parts(**_known(lead, self.inputs))
        wanted = part_fingerprints(stages, self.inputs, num_parts)
        todo = {name: self._missing(name, wanted[name]) for name in stages}
        stale = [name for name in stages if todo[name] or not self._is_complete(name, lead_parts)]
        if not stale:
            return []
        for name in stale:
            self._open_manifest(name, stages[name])
        self._run_phases(executor, stages, wanted, todo)
        for name in stale:
            self._finish(name, stages[name], num_parts)
        return stale

    def _run_scan(self, stage: Scan) -> list[str]:
        ((name, table),) = self.tables.items()
        before = self.before[name]
        complete = before is not None and before.complete and not self.flags.may_rebuild(name)
        if complete and not self.flags.rescan:
            return []
        if not complete:
            self._open_manifest(name, stage)
        committed = table.parts() if complete else []
        with progress.track(name, 0, unit="parts") as advance:
            for part, rows in stage.scan(table if complete else None):
                done = table.commit(part, rows.schema, rows.to_batches())
                table.log_task(_log_entry(Done(name, "run", done, 0.0)))
                committed.append(done)
                advance(1, note=f"{done.rows} images")
        self._finish(name, stage, len(committed))
        return [name]

    def _pinned_holds(self, stage: Stage) -> bool:
        ((name, table),) = self.tables.items()
        before = self.before[name]
        if before is None or not before.complete or self.flags.refit or self.flags.may_rebuild(name):
            return False
        found, needed = table.schema(), self.step.schemas[name]
        if found.metadata != needed.metadata:
            raise StaleTable(
                f"{name}: fitted on {_vector_text(found)}, its inputs now hold {_vector_text(needed)}; "
                "run again with --refit to fit it anew"
            )
        return True

    def _is_complete(self, name: str, num_parts: int) -> bool:
        before = self.before[name]
        return before is not None and before.complete and len(before.parts) == num_parts

    def _missing(self, name: str, wanted: list[str]) -> list[int]:
        """Parts to make: absent, made of something else, or all where the user asked for a rebuild."""
        if self.flags.may_rebuild(name):
            return list(range(len(wanted)))
        table, before = self.tables[name], self.before[name]
        there = table.committed()
        known = {p["number"]: p["fingerprint"] for p in before.parts} if before and before.complete else {}
        missing = []
        for part, fingerprint in enumerate(wanted):
            if part not in there:
                missing.append(part)
                continue
            found = known.get(part)
            if found is None:
                footer = table.footer(part)
                found = footer.fingerprint if footer else None
            if found != fingerprint:
                missing.append(part)
        return missing

    def _run_phases(
        self, executor: Executor, stages: dict[str, Stage], wanted: dict[str, list[str]], todo: dict[str, list[int]]
    ) -> None:
        name, lead = next(iter(stages.items()))
        parts = sorted(set().union(*map(set, todo.values())))
        schemas = {n: s.output_schema(**_known(s, self.step.input_schemas)) for n, s in stages.items()}
        plain = Task("run", 0, stages, schemas, {}, self.step.inputs, self.step.together)
        plain = replace(plain, resources=lead.resources("auto"))
        schemas_in = _known(lead, self.step.input_schemas)
        if parts and isinstance(lead, Shuffle):
            schema = lead.piece_schema(**schemas_in)
            pieces = pa.schema([BUCKET, *schema], metadata=schema.metadata)
            count = lead.num_scatter(**_known(lead, self.inputs))
            hidden = replace(plain, phase="scatter", schemas={name: pieces})
            self._run_hidden(executor, hidden, PIECES, [count, *wanted[name]])
        if parts and isinstance(lead, Fold):
            partial = lead.partial_schema(**schemas_in)
            if partial is not None:
                count = lead.num_partials(**_known(lead, self.inputs))
                hidden = replace(plain, phase="partial", schemas={name: partial})
                self._run_hidden(executor, hidden, PARTIALS, [count, *wanted[name]])
            hidden = replace(plain, phase="combine", schemas={name: lead.state_schema(**schemas_in)})
            self._run_hidden(executor, hidden, STATE, [1, *wanted[name]])
        commit = {part: {n: wanted[n][part] for n in stages if part in todo[n]} for part in parts}
        if lead.pinned:  # such tables carry the digest of their rows instead of their origin
            commit = {part: dict.fromkeys(names, "") for part, names in commit.items()}
        tasks = [replace(plain, part=part, fingerprints=commit[part]) for part in parts]
        self._execute(executor, " + ".join(stages), tasks, max(len(w) for w in wanted.values()))

    def _run_hidden(self, executor: Executor, task: Task, folder: str, made_of: list[Any]) -> None:
        """A phase whose parts live in a hidden folder of the table until the table is finished.

        Args:
            made_of: the number of parts, then the fingerprints of the table's parts.
        """
        name, count = next(iter(task.stages)), made_of[0]
        hidden = self.store.table(f"{name}/{folder}")
        fingerprint = digest([task.phase, made_of])
        there = hidden.committed()
        hidden.drop_parts(there - set(range(count)))
        fresh = {part for part in there if (footer := hidden.footer(part)) and footer.fingerprint == fingerprint}
        task = replace(task, fingerprints={name: fingerprint})
        tasks = [replace(task, part=part) for part in range(count) if part not in fresh]
        self._execute(executor, f"{name} ({task.phase})", tasks, count)

    def _execute(self, executor: Executor, label: str, tasks: list[Task], total: int) -> None:
        if not tasks:
            return
        with progress.track(label, total, done=total - len(tasks), unit="parts") as advance:
            for done in executor.run(self.store.root, tasks):
                for one in done:
                    self.tables[one.table].log_task(_log_entry(one))
                advance(1)

    def _open_manifest(self, name: str, stage: Stage) -> None:
        declared = self.step.stages[name]
        inputs = {k: list(v) for k, v in self.step.inputs.items() if v is not None}
        self.tables[name].write_manifest(
            Manifest(
                stage=type(stage).__name__,
                version=stage.version,
                config=identity(declared),
                resolved=identity(stage),
                pins=stage.pins(),
                inputs=inputs,
            )
        )

    def _finish(self, name: str, stage: Stage, num_parts: int) -> None:
        """Drop what is left over, sum up, and publish the manifest that makes the table complete."""
        table = self.tables[name]
        table.drop_parts(table.committed() - set(range(num_parts)))
        parts = [_committed(table, number).__dict__ for number in range(num_parts)]
        log = table.task_log()
        opened = table.manifest()
        assert opened is not None
        rows = sum(p["rows"] for p in parts)
        seconds = sum(e["seconds"] for e in log)
        complete = Manifest(**{**opened.__dict__, "complete": True, "parts": parts, "rows": rows, "seconds": seconds})
        table.write_manifest(complete)
        try:
            metrics = stage.summarize(table, **_known(stage, self.inputs))
        except BaseException:
            table.write_manifest(opened)
            raise
        table.write_manifest(Manifest(**{**complete.__dict__, "metrics": metrics}))
        for hidden in (PIECES, PARTIALS, STATE, PROGRESS):
            self.store.remove(f"{name}/{hidden}")
        logger.info("%s: %d rows in %d parts, %.1f s", name, rows, num_parts, seconds)


def _committed(table: Table, number: int) -> Part:
    footer = table.footer(number)
    if footer is None:
        raise TableError(f"{table.part_path(number)}: vanished while the table was made; run again")
    return footer


def _log_entry(done: Done) -> dict[str, Any]:
    return {
        "phase": done.phase,
        "part": done.part.number,
        "rows": done.part.rows,
        "seconds": round(done.seconds, 3),
        "fingerprint": done.part.fingerprint,
        "content": done.part.content,
    }


def _plan_table(store: Store, step: Step, name: str, stage: Stage, flags: Flags, *, waiting: bool) -> StepPlan:
    table = store.table(name)
    plan = StepPlan(name, type(stage).__name__, "make")
    found = table.manifest()
    plan.note = ", ".join(f"{k}={v}" for k, v in _auto_fields(stage).items())
    try:
        check_stale(table, stage, flags)
    except StaleTable as stale:
        plan.state, plan.note = "stale", str(stale)
        return plan
    if waiting:
        plan.state = "make" if found is None else "waiting"
        return plan
    if isinstance(stage, Scan) or stage.pinned:
        again = (isinstance(stage, Scan) and flags.rescan) or (stage.pinned and flags.refit)
        kept = found is not None and found.complete and not again and not flags.may_rebuild(name)
        plan.state = "kept" if kept else "make"
        plan.parts, plan.todo = (len(found.parts), 0) if kept and found else (None, None)
        return plan
    work = _Work(store, step, flags)
    resolved = {
        n: s.resolve(previous_resolved(work.before[n], s), **_known(s, work.inputs)) for n, s in step.stages.items()
    }
    lead = next(iter(resolved.values()))
    plan.parts = lead.num_parts(**_known(lead, work.inputs))
    wanted = part_fingerprints(resolved, work.inputs, plan.parts)
    plan.todo = len(work._missing(name, wanted[name]))
    plan.auto = {k: identity(resolved[name])[k] for k in _auto_fields(stage)}
    if plan.todo == 0 and work._is_complete(name, plan.parts):
        plan.state = "kept"
    elif found is not None:
        plan.state = "update" if found.complete else "resume"
    return plan


def _auto_fields(stage: Stage) -> dict[str, Any]:
    return {k: v for k, v in identity(stage).items() if v == "auto"}


# -- inputs --------------------------------------------------------------------------------------------------


def _check_inputs(name: str, specs: dict[str, Input], inputs: dict[str, Refs]) -> None:
    unknown = inputs.keys() - specs.keys()
    if unknown:
        raise TableError(f"{name}: has no input {', '.join(sorted(unknown))}; its inputs are {', '.join(specs)}")
    for key, spec in specs.items():
        refs = inputs.get(key)
        if refs is None and not spec.optional:
            raise TableError(f"{name}: input {key!r} is missing")
        if isinstance(refs, Sequence) and not spec.many:
            raise TableError(f"{name}: input {key!r} takes one table, {len(refs)} were given")
        for ref in as_list(refs):
            _check_columns(name, key, spec, ref)


def _check_columns(name: str, key: str, spec: Input, ref: Ref) -> None:
    for column in spec.schema:
        place = ref.schema.get_field_index(column.name)
        if place < 0:
            raise TableError(f"{name}: input {key!r} = {ref.name} has no column {column.name!r}")
        found = ref.schema.field(place).type
        if not pa.types.is_null(column.type) and found != column.type:
            raise TableError(f"{name}: input {key!r} = {ref.name}: {column.name} is {found}, needed is {column.type}")


def _names(refs: Refs) -> tuple[str, ...] | None:
    return None if refs is None else tuple(ref.name for ref in as_list(refs))


def _schemas(refs: Refs) -> Any:
    if refs is None:
        return None
    return [ref.schema for ref in refs] if isinstance(refs, Sequence) else refs.schema


def _open(store: Store, step: Step, key: str) -> Any:
    """The input tables of `key`: a Table, a list where the stage takes many, None where left out."""
    names = step.inputs[key]
    if names is None:
        return None
    tables = [store.table(name) for name in names]
    return tables if next(iter(step.stages.values())).inputs[key].many else tables[0]


def _known(stage: Stage, values: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs this stage declares; stages of one pass may declare fewer than the pass reads."""
    return {key: values.get(key) for key in stage.inputs}


def _vector_text(schema: pa.Schema) -> str:
    meta = schema.metadata or {}
    return f"{meta.get(b'curate.model', b'?').decode()} ({meta.get(b'curate.dim', b'?').decode()} dims)"
