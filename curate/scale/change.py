"""What a change of settings costs in a workdir that holds a run: tables to make, images to read, minutes.

A table that the run has made before takes about as long again: its manifest tells the seconds. Of one that it has not
made, the stage's law says what it takes, and the run's own tables say how fast this machine is beside the law: those
that read pictures apart from the others, since the one depends on a model and the other on disks and searches.

How many images a change lets through is known when it is made. So numbers of tables and images are bounds: what turns
out equal is not made again, an image that a table holds is not read for it again, and where copies are judged anew all
images might stay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from curate.engine.cost import Assumptions, Demand
from curate.engine.image_ids import Parts
from curate.engine.numbers import count, plural
from curate.engine.plan import StepPlan
from curate.engine.stage import Scan
from curate.engine.store import Store
from curate.engine.table import Manifest
from curate.engine.work import Step
from curate.recipe import RecipeConfig, find_recipe
from curate.scale.estimate import duration, estimate_step, machines, plan_demands
from curate.scale.hardware import Hardware, load_hardware
from curate.stages.copies.deduplicate import Deduplicate, DeduplicateFigures
from curate.stages.images.embed import Embed
from curate.stages.images.inspect import Inspect
from curate.tables import ROLES

REFERENCE = "cpu"
"""Profile by which laws become seconds, before the run's own tables correct them."""
MAX_WHY = 60
"""Characters of a reason that the table shows."""


@dataclass(frozen=True)
class Making:
    """One step that is to be made: a table, or those of one pass."""

    tables: tuple[str, ...]
    why: str
    parts: int | None
    """At most; None: only known once its inputs are there."""
    images: int
    """Images that are read and decoded, at most."""
    seconds: float
    """About, if all of these images are read."""


@dataclass(frozen=True)
class Change:
    """All that is to be made."""

    steps: tuple[Making, ...]

    @property
    def images(self) -> int:
        """Images that are read and decoded, at most; of several passes those of each."""
        return sum(one.images for one in self.steps)

    @property
    def seconds(self) -> float:
        """About, if all of these images are read."""
        return sum(one.seconds for one in self.steps)

    def describe(self) -> str:
        """In a sentence or two."""
        number = sum(len(one.tables) for one in self.steps)
        if not number:
            return "Nothing is to be made: every table is there."
        read = f"at most {plural(self.images, 'image')} are read" if self.images else "no image is read"
        return (
            f"To be made: at most {plural(number, 'table')}; {read}; about {duration(self.seconds)}. What is there "
            "stays until all is complete."
        )

    def cells(self) -> list[tuple[str, str, str, str, str]]:
        """Tables, reason, parts, images and time as text."""
        return [
            (
                " + ".join(one.tables),
                one.why if len(one.why) <= MAX_WHY else f"{one.why[: MAX_WHY - 3]}...",
                "?" if one.parts is None else str(one.parts),
                count(one.images) if one.images else "",
                duration(one.seconds),
            )
            for one in self.steps
        ]


HEAD = ("table", "why", "parts", "images", "time")


def cost_of_change(config: RecipeConfig, plans: Sequence[StepPlan]) -> Change:
    """What a run of this config costs in its workdir.

    Args:
        plans: what the run would do, see `plan_run`.
    """
    store = Store(config.workdir)
    pipeline = find_recipe(config.recipe).outline(store, config)
    given = _assumptions(store, pipeline.steps, plans)
    hardware = load_hardware(REFERENCE)
    steps = [(step, demand, _law_seconds(step, demand, hardware)) for step, demand, _ in plan_demands(pipeline, given)]
    workers = 1 if config.executor.kind == "inprocess" else config.executor.workers or 2
    costing = _Costing(store, {plan.table: plan for plan in plans}, given, _corrections(store, steps), workers)
    found = (costing.step(*one) for one in steps)
    return Change(tuple(one for one in found if one is not None))


@dataclass(frozen=True)
class _Costing:
    """What the steps cost of one run."""

    store: Store
    plans: Mapping[str, StepPlan]
    given: Assumptions
    corrections: Mapping[bool, float]
    workers: int

    def step(self, step: Step, demand: Demand, law: float) -> Making | None:
        """Of one step, by its demand and the seconds that its law says; None: nothing is to be made."""
        todo = [self.plans[name] for name in step.stages if self.plans[name].state != "kept"]
        if not todo:
            return None
        manifests = [self.store.table(plan.table).manifest() for plan in todo]
        made = [one for one in manifests if one is not None and one.complete]
        share = max((1.0 if plan.todo is None or not plan.parts else plan.todo / plan.parts) for plan in todo)
        images = min(self.given.num_images(ROLES), round(demand.megapixels / self.given.megapixels))
        seconds = law * self.corrections[_reads(demand)]
        if len(made) == len(todo):
            seconds = max(one.seconds for one in made)
            known = _read_before(step, made)
            if images and known:
                held = 0 if any(plan.note for plan in todo) else known  # with other settings none is right
                images = max(0, images - held)
                seconds *= images / known
        return Making(
            tables=tuple(plan.table for plan in todo),
            why=next((plan.note for plan in todo if plan.note), _reason(todo[0])),
            parts=None if any(plan.todo is None for plan in todo) else max(plan.todo or 0 for plan in todo),
            images=round(images * share),
            seconds=seconds * share / self.workers,
        )


def _reason(plan: StepPlan) -> str:
    return {"make": "not made yet", "resume": "begun", "stale": "another configuration"}.get(
        plan.state, "what it reads changes"
    )


def _read_before(step: Step, made: Sequence[Manifest]) -> int:
    """Images that a pass has read; 0: it does not tell."""
    if not all(isinstance(stage, Embed | Inspect) for stage in step.stages.values()):
        return 0
    return max(one.rows_in or 0 for one in made)


def _reads(demand: Demand) -> bool:
    """Whether a step reads and decodes pictures."""
    return demand.megapixels > 0


def _law_seconds(step: Step, demand: Demand, hardware: Hardware) -> float:
    return estimate_step(step.stages, demand, 0, machines(hardware, cores=1, gpus=0)).seconds


def _corrections(store: Store, steps: Sequence[tuple[Step, Demand, float]]) -> dict[bool, float]:
    """Seconds of the run's own tables for a second of the law: of steps that read pictures (True), and of others."""
    found: dict[bool, list[float]] = {False: [0.0, 0.0], True: [0.0, 0.0]}
    for step, demand, law in steps:
        manifest = store.table(next(iter(step.stages))).manifest()
        if manifest is not None and manifest.complete:
            sums = found[_reads(demand)]
            sums[0] += manifest.seconds
            sums[1] += law
    return {reads: took / law if took and law else 1.0 for reads, (took, law) in found.items()}


def _assumptions(store: Store, steps: Sequence[Step], plans: Sequence[StepPlan]) -> Assumptions:
    """What the run knows of its images; where copies are judged anew, all of them may stay."""
    stay = {plan.table for plan in plans if plan.state == "kept"}
    counted, kept = dict.fromkeys(ROLES, 0), None
    for name, stage in (one for step in steps for one in step.stages.items()):
        table = store.table(name)
        if isinstance(stage, Scan) and table.is_complete():
            parts = Parts.of(table)
            counted = {role: parts.num_images([role]) for role in ROLES}
        if isinstance(stage, Deduplicate) and name in stay:
            kept = DeduplicateFigures.of(table).kept
    known = Assumptions(**{"images": max(1, counted.pop("pool")), **counted})
    return known.model_copy(update={"kept": 1.0 if kept is None else min(1.0, max(1, kept) / known.images)})
