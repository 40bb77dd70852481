"""Wiring: a recipe adds stages in straight-line order; each table is then made, resumed or kept.

Schemas are checked when a stage is added, before anything is computed: an input that lacks a column is an error of the
recipe, not of its third hour.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curate import progress
from curate.engine.cleaning import CleanedRows, clean, find_unneeded
from curate.engine.executors import Executor
from curate.engine.freshness import Flags, stale_message, why_stale
from curate.engine.shuffle import TASK_MEMORY
from curate.engine.stage import Input, Scan, SharedMap, Shuffle, Stage, as_list
from curate.engine.store import Store
from curate.engine.table import REMOVE_AND_RUN
from curate.engine.tasks import HIDDEN, Surroundings, inputs_of
from curate.engine.work import Place, Step, Work, known_inputs
from curate.errors import ConfigError, DamagedPart, StaleTable, TableError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ref:
    """A table to be made: what `add` returns and later stages take as input."""

    name: str
    schema: pa.Schema


Refs = Ref | Sequence[Ref] | None


class Pipeline:
    """Declares steps, then makes their tables in order."""

    def __init__(
        self,
        store: Store,
        *,
        seed: int,
        with_schemas: bool = True,
        within: Surroundings | None = None,
        task_memory: int = TASK_MEMORY,
        recorded: Collection[str] | None = None,
    ) -> None:
        """A pipeline without steps.

        Args:
            seed: for stages whose own `seed` is not given.
            with_schemas: False to look at what a recipe declares without asking for schemas, which may need weights;
                such a pipeline cannot run.
            within: what its tasks are done within, on whatever worker; the caller enters it in this process.
            task_memory: bytes that a task of a Shuffle may use, about; tables do not depend on it.
            recorded: tables of the run that is looked at: a recipe that makes some only where there is a file, asks
                here; None: a run is declared.
        """
        self.store = store
        self.task_memory = task_memory
        self.seed = seed
        self.recorded = recorded
        self.steps: list[Step] = []
        self._with_schemas = with_schemas
        self._within = within
        self._refs: dict[str, Ref] = {}

    # -- declaring -------------------------------------------------------------------------------------------

    def add(self, name: str, stage: Stage, **inputs: Refs) -> Ref:
        """Declare the table `name`; the schemas of its inputs are checked here, before any compute.

        Raises:
            TableError: an input lacks a column, is missing or is unknown to the stage.
        """
        return self._declare({name: stage}, inputs)[0]

    def add_pass(self, stages: Mapping[str, SharedMap], **inputs: Refs) -> list[Ref]:
        """Declare several aligned tables that are made in one reading of the inputs.

        Later stages depend on the earlier ones: the fingerprint of a table holds those before it.

        Raises:
            TableError: as in `add`, or the stages are of different kinds.
        """
        kinds = {stage.run_together.__func__ for stage in stages.values()}  # type: ignore[attr-defined]
        if len(kinds) > 1:
            raise TableError(f"{' + '.join(stages)}: stages of different kinds cannot share a reading")
        return self._declare(dict(stages), inputs)

    def _declare(self, stages: dict[str, Stage], inputs: dict[str, Refs]) -> list[Ref]:
        for name in stages:
            if name in self._refs:
                raise TableError(f"{name}: declared twice in this pipeline")
        seeded = {name: self._seeded(stage) for name, stage in stages.items()}
        schemas_in = {name: _schemas(ref) for name, ref in inputs.items()}
        schemas = dict.fromkeys(seeded, pa.schema([]))
        if self._with_schemas:
            _check_inputs(" + ".join(seeded), inputs_of(seeded), inputs)
            schemas = {name: stage.output_schema(**known_inputs(stage, schemas_in)) for name, stage in seeded.items()}
        names = {name: _names(ref) for name, ref in inputs.items()}
        self.steps.append(Step(seeded, names, schemas, schemas_in, self._within))
        refs = [Ref(name, schema) for name, schema in schemas.items()]
        self._refs.update({ref.name: ref for ref in refs})
        return refs

    def _seeded(self, stage: Stage) -> Stage:
        """The run's seed, where the stage has a `seed` that was not given."""
        if "seed" in type(stage).model_fields and stage.seed is None:  # type: ignore[attr-defined]
            return stage.model_copy(update={"seed": self.seed})
        return stage

    @property
    def names(self) -> list[str]:
        """Tables in the order in which they are made."""
        return list(self._refs)

    def pins(self) -> dict[str, dict[str, str]]:
        """By table: contents that it depends on beside its inputs, where there are any."""
        stages = [one for step in self.steps for one in step.stages.items()]
        return {name: pins for name, stage in stages if (pins := stage.pins())}

    # -- running ---------------------------------------------------------------------------------------------

    def run(
        self, executor: Executor, flags: Flags, *, listed: Callable[[], None] | None = None, keep_working: bool = True
    ) -> list[str]:
        """Make every table that is not there yet.

        A part that turns out to be damaged while it is read is made again, with a warning, and the run goes on; so are
        parts that were cleaned and whose rows something needs that is to be made.

        Args:
            listed: called when the sources are listed: from then on the workdir is one of this configuration.
            keep_working: False cleans each working table as soon as nothing needs its rows, see `cleaning.py`.

        Returns:
            Names of the tables that changed.

        Raises:
            StaleTable: a table was made with another configuration; nothing is deleted.
            ConfigError: a stage cannot work with as many images as were listed.
            DamagedPart: no step makes the damaged part, it is damaged again, or its stage takes rows from it.
        """
        self.check(flags)
        return self._make(executor, flags, listed=listed, keep_working=keep_working)

    def mend(self, executor: Executor, error: DamagedPart) -> None:
        """Make a part again that turned out to be damaged after the run.

        Raises:
            DamagedPart: as in `run`.
        """
        self._make(executor, Flags(), error=error)

    def _make(
        self,
        executor: Executor,
        flags: Flags,
        *,
        listed: Callable[[], None] | None = None,
        error: DamagedPart | None = None,
        keep_working: bool = True,
    ) -> list[str]:
        changed: list[str] = []
        restore: dict[int, dict[str, set[int]]] = {}  # by number of the step that makes the tables
        place, done, mended = 0, 0, set[Place]()
        damaged: dict[int, set[Place]] = {}  # by number of the step that makes the part
        if listed is not None and not any(isinstance(s, Scan) for step in self.steps for s in step.stages.values()):
            listed()
        while error is not None or place < len(self.steps):
            if error is not None:
                place, error = self._note_damage(error, damaged, mended), None
            step, allowed = self.steps[place], flags if place >= done else Flags()  # nothing as a whole twice
            try:
                lost = damaged.get(place, ())
                work = Work(
                    self.store, step, allowed, damaged=lost, restore=restore.get(place), task_memory=self.task_memory
                )
                with progress.at_step(place + 1, [next(iter(one.stages)) for one in self.steps]):
                    made = work.run(executor)
            except DamagedPart as found:
                error = found
                continue
            except CleanedRows as found:
                place = self._note_cleaned(found, restore)
                continue
            if any(isinstance(stage, Scan) for stage in step.stages.values()):
                if listed is not None:
                    listed()
                self.check_sizes(sum(self.store.table(name).num_rows() for name in step.stages))
            changed += [name for name in made if name not in changed]
            damaged.pop(place, None)
            restore.pop(place, None)
            place += 1
            if not keep_working:
                current = {name for step in self.steps[:place] for name in step.stages}
                clean(map(self.store.table, find_unneeded(self.steps, self.store, current)))
            done = max(done, place)
        return changed

    def _note_cleaned(self, needed: CleanedRows, restore: dict[int, dict[str, set[int]]]) -> int:
        """Add parts to those that are made again; returns the number of the first step that makes some.

        Raises:
            TableError: no step makes them, so that they cannot be had.
        """
        places: list[int] = []
        for name, parts in needed.wanted.items():
            place = self._maker(name)
            if place is None:
                raise TableError(f"{name}: its rows were removed, and this recipe does not make them; {needed.reader}")
            logger.info("%s: its rows were removed, %s needs %d parts of them again", name, needed.reader, len(parts))
            restore.setdefault(place, {}).setdefault(name, set()).update(parts)
            places.append(place)
        return min(places)

    def check_sizes(self, num_images: int) -> None:
        """Ask every stage whether it can work with so many images, now that they are counted and none is read yet.

        Raises:
            ConfigError: a stage cannot.
        """
        for step in self.steps:
            for stage in step.stages.values():
                stage.check_size(num_images, **known_inputs(stage, step.input_schemas))

    def _note_damage(self, error: DamagedPart, damaged: dict[int, set[Place]], mended: set[Place]) -> int:
        """Add a part to those that are made again; returns the number of the step that makes it.

        Raises:
            DamagedPart: it was made again already, or nothing can make it without a loss.
        """
        part, maker = (error.table, error.part), self._maker(error.table)
        if maker is None or part in mended or (self._reuses(maker) and error.table in self._refs):
            raise error
        logger.warning("%s", str(error).replace(REMOVE_AND_RUN, "; it is made again"))
        mended.add(part)
        damaged.setdefault(maker, set()).add(part)
        return maker

    def _reuses(self, place: int) -> bool:
        """Whether a step makes its parts out of their earlier ones, so that damage costs more than time."""
        lead = next(iter(self.steps[place].stages.values()))
        return isinstance(lead, Shuffle) and lead.reuses

    def _maker(self, table: str) -> int | None:
        """Number of the step that makes a table or hidden folder; None: no step does."""
        owner = table.rsplit("/", 1)[0] if table.rsplit("/", 1)[-1] in HIDDEN else table
        return next((place for place, step in enumerate(self.steps) if owner in step.stages), None)

    def stale(self, flags: Flags) -> dict[str, list[str]]:
        """By table: what differs, where it was made with another configuration and no flag allows to replace it."""
        stages = ((step, name, stage) for step in self.steps for name, stage in step.stages.items())
        found = (
            (name, why_stale(self.store.table(name), one, step.schemas[name], flags, inputs=step.inputs))
            for step, name, one in stages
        )
        return {name: why for name, why in found if why}

    def check(self, flags: Flags, *, again: str = "") -> None:
        """Raise if a flag names no table, or a table was made with another configuration; reads manifests only.

        Args:
            again: the command that makes the tables again, for the error.

        Raises:
            ConfigError: a flag names a table that this pipeline does not make, or a stage cannot work there.
            StaleTable: every stale table; what differs, once each.
        """
        unknown = flags.rebuild - {"all"} - set(self._refs)
        if unknown:
            raise ConfigError(
                f"--rebuild {', '.join(sorted(unknown))}: no such table; this pipeline makes: {', '.join(self._refs)}"
            )
        for step in self.steps if not self.store.is_local else ():
            for name, stage in step.stages.items():
                if stage.needs_local:
                    raise ConfigError(f"workdir={self.store.root}: {name}: {stage.needs_local}")
        stale = self.stale(flags)
        if stale:
            listings = {name for step in self.steps for name, stage in step.stages.items() if isinstance(stage, Scan)}
            raise StaleTable(stale_message(stale, listings=listings, again=again))


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
