"""What a run would do, without doing it: `curate run --dry-run`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from curate.config import differences, identity
from curate.engine.cleaning import CleanedRows
from curate.engine.freshness import Flags, part_fingerprints, previous_resolved, why_stale
from curate.engine.pipeline import Pipeline
from curate.engine.stage import Scan, Stage
from curate.engine.store import Store
from curate.engine.table import Manifest
from curate.engine.work import Step, Work, known_inputs


@dataclass
class StepPlan:
    """What a run would do for one table."""

    table: str
    stage: str
    state: str
    """kept, make, resume, update (some parts), restore (parts that were cleaned), waiting (for inputs that change), or
    stale (an error)."""
    parts: int | None = None
    """Of the table; None: only known once its inputs are there."""
    todo: int | None = None
    """Parts to make."""
    note: str = ""
    """Why it is stale, or what is open."""
    open: int = 0
    """Rows that could not be had in an earlier run."""
    auto: dict[str, Any] = field(default_factory=dict)
    """Fields given as auto, and what they become."""
    at_most: bool = False
    """The values of `auto` are bounds: the images that reach the stage are not known yet."""


def plan_run(pipeline: Pipeline, flags: Flags, *, num_images: int) -> list[StepPlan]:
    """One entry a table, in order; `num_images` of the pool bound the `auto` values of steps to come.

    Raises:
        ConfigError: a stage cannot work with so many images.
    """
    pipeline.check_sizes(num_images)
    plans: list[StepPlan] = []
    dirty: set[str] = set()
    for step in pipeline.steps:
        upstream = {name for names in step.inputs.values() if names for name in names}
        for name, stage in step.stages.items():
            plan = _plan_table(pipeline.store, step, name, flags, waiting=bool(upstream & dirty))
            if plan.state != "kept" and plan.todo != 0:
                dirty.add(name)
            if plan.state != "kept" and not plan.auto:
                plan.auto = _auto(identity(stage), identity(stage.model_copy(update=stage.estimate(num_images))))
                plan.at_most = True
            plans.append(plan)
    _plan_restored(pipeline, plans)
    return plans


def _plan_restored(pipeline: Pipeline, plans: list[StepPlan]) -> None:
    """Note which cleaned tables are made again, for those that will read them."""
    by_name = {plan.table: plan for plan in plans}
    for step in reversed(pipeline.steps):
        if all(by_name[name].state == "kept" for name in step.stages):
            continue
        for name in {name for names in step.inputs.values() for name in names or ()}:
            plan, absent = by_name.get(name), pipeline.store.table(name).absent()
            if plan is not None and plan.state == "kept" and absent:
                plan.state, plan.todo, plan.note = "restore", len(absent), "cleaned; its rows are needed again"


def _plan_table(store: Store, step: Step, name: str, flags: Flags, *, waiting: bool) -> StepPlan:
    stage, table = step.stages[name], store.table(name)
    plan, found = StepPlan(name, type(stage).__name__, "make"), table.manifest()
    stale = why_stale(table, stage, step.schemas[name], flags, inputs=step.inputs)
    if stale:
        plan.state, plan.note = "stale", "; ".join(stale)
        return plan
    replaced = why_stale(table, stage, step.schemas[name], Flags()) if flags.update else []
    if replaced:
        plan.note = "; ".join(replaced)
    if isinstance(stage, Scan) or stage.pinned:
        return _plan_pinned(plan, found, stage, Work(store, step, flags))
    if waiting:
        plan.state = "make" if found is None or replaced else "waiting"
        return plan
    return _plan_parts(plan, found, Work(store, step, flags))


def _plan_pinned(plan: StepPlan, found: Manifest | None, stage: Stage, work: Work) -> StepPlan:
    """Of a table that is known by its content: there it is kept, whatever its inputs became."""
    flags = work.flags
    again = flags.rescan if isinstance(stage, Scan) else flags.refit
    if isinstance(stage, Scan) and found is not None and found.complete and found.config != identity(stage):
        plan.state, plan.note = "update", "sources lie elsewhere by now, or were added: they are listed"
        return plan
    if found is not None and found.complete and not again and not flags.may_rebuild(plan.table) and not plan.note:
        plan.parts, plan.todo = len(found.parts), len(work.lost(plan.table))
        plan.state = "update" if plan.todo else "kept"
        plan.auto = _auto(found.config, found.resolved)
    return plan


def _plan_parts(plan: StepPlan, found: Manifest | None, work: Work) -> StepPlan:
    """Of a table whose inputs are there: which of its parts are missing or made of something else."""
    kept = work.as_before()
    if kept is not None and found is not None:
        plan.state, plan.parts, plan.todo = "kept", len(found.parts), 0
        plan.auto = _auto(found.config, found.resolved)
        plan.note = "cleaned" if found.cleaned else ""
        return plan
    try:
        work.need_rows(None)
    except CleanedRows as needed:  # `auto` may be decided by them
        plan.state = "make" if found is None else "update"
        plan.note = f"needs rows of {', '.join(needed.wanted)}, which were cleaned"
        return plan
    stages = {
        name: stage.resolve(previous_resolved(work.before[name], stage), **known_inputs(stage, work.inputs))
        for name, stage in work.step.stages.items()
    }
    lead = next(iter(stages.values()))
    plan.parts = lead.num_parts(**known_inputs(lead, work.inputs))
    wanted = part_fingerprints(stages, work.inputs, plan.parts)
    plan.todo = len(work.missing(plan.table, wanted[plan.table]))
    plan.auto = _auto(identity(work.step.stages[plan.table]), identity(stages[plan.table]))
    if plan.todo == 0 and work.is_told(plan.table, plan.parts):
        plan.state = "kept"
    elif found is not None:
        plan.state = "update" if found.complete else "resume"
        plan.open = sum(part.get("open", 0) for part in found.parts)
        if plan.open:
            plan.note = f"{plan.open:,} rows are open: they are read again"
    return plan


def _auto(given: Mapping[str, Any], resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Fields given as auto (or auto_flat), nested ones by their path, and what they became."""
    return {path: new for path, old, new in differences(given, resolved) if str(old).startswith("auto")}
