"""From a checked config to finished tables, a report and a dataset card."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from curate import updating, workdir
from curate.config import digest
from curate.engine.cleaning import Removed, clean, find_unneeded
from curate.engine.executors import Executor, start_executor
from curate.engine.freshness import Flags
from curate.engine.open_rows import OpenRows, find_open
from curate.engine.pipeline import Pipeline
from curate.engine.plan import StepPlan, plan_run
from curate.engine.stage import Scan
from curate.engine.store import MANIFEST, UPDATE, Store
from curate.engine.work import Place
from curate.errors import CurateError, DamagedPart, NothingSelected, TableError, TooManyUnavailable
from curate.interrupt import staying
from curate.recipe import RecipeConfig, find_recipe
from curate.sources.listing import list_source

PAGE = "report/index.html"
logger = logging.getLogger(__name__)

REPORT_MADE_OF = "report/made_of.json"
"""Digest of the manifests that the report tells of, and what it says to look at first."""


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    config: RecipeConfig
    changed: list[str]
    """Tables that were made or updated."""
    report: str
    """Path of the report."""
    seconds: float
    unavailable: OpenRows
    """Images that an error which may pass kept away: the next run reads exactly these again."""
    checks: tuple[str, ...] = ()
    """What a person should look at before trusting the result; the report begins with it."""


def run_config(config: RecipeConfig, flags: Flags, *, command: Sequence[str] | None = None) -> Outcome:
    """Make every table of the config's recipe, then the report and the dataset card.

    Args:
        command: what followed `curate run` on the command line, the config first: `run.json` keeps it, so that errors
            and `curate sweep` can tell the whole command that goes on.

    Raises:
        TooManyUnavailable: everything is made, but without more images than `sources.max_unavailable` allows.
    """
    start = time.monotonic()
    store = Store(config.workdir)
    pipeline = declare(config, store)
    workdir.claim(store, config.recipe, pipeline.names, update=flags.update)  # before anything is written there
    with (
        store.lock(),
        store.keeping(alone=config.executor.kind == "inprocess"),
        config.sources.network.used(),
        staying("every committed part stays"),
    ):
        updating.end_switch(store)
        damage = workdir.claim(store, config.recipe, pipeline.names, update=flags.update)
        if damage is not None:
            logger.warning("%s", damage)
        pipeline.check(flags, again=workdir.command_line(command, "--update"))
        if not flags.update:
            updating.refuse_under_way(store)
        store.remove_leftovers()
        with start_executor(config.executor) as executor:
            aside = _update(store, config, flags, executor, command=command) if flags.update else None
            flags = flags if aside is None else Flags(update=True)  # nothing as a whole twice
            record = _recorder(pipeline, config, command)
            if damage is not None or not store.exists(workdir.RUN):
                record()
            made = _run(pipeline, executor, flags, record, keep_working=config.keep == "all")
            changed = [*(aside or []), *(name for name in made if name not in (aside or []))]
            _report(pipeline, executor)
        unavailable, checks = find_open(pipeline), reported_checks(store)
    report = store.join(PAGE)
    _judge(unavailable, config, report)
    return Outcome(config, changed, report, time.monotonic() - start, unavailable, checks)


def _update(
    store: Store, config: RecipeConfig, flags: Flags, executor: Executor, *, command: Sequence[str] | None
) -> list[str] | None:
    """Make what other settings need beside what is there, then let it replace that; see `updating.py`.

    Returns the tables that changed; None: nothing is replaced, since the workdir is new or of these settings already.
    """
    if not updating.replaces(store, config, declare(config, store)):
        if updating.under_way(store) is not None:
            logger.warning("%s: what an update to other settings had made is removed", store.root)
        updating.forget(store)
        return None
    over = store.over(UPDATE)
    pipeline = declare(config, over)
    names = pipeline.names
    updating.drop_unlisted_parts(store, pipeline)
    record = _recorder(pipeline, config, command)
    updating.begin(store, record)
    updating.before_training(pipeline)
    with over.keeping():
        try:
            changed = _run(pipeline, executor, flags, record, keep_working=True)
        except BaseException:
            updating.forget_if_nothing_is_made(store, names)
            raise
        _report(pipeline, executor)
    updating.switch(store, names)
    return changed


def _recorder(pipeline: Pipeline, config: RecipeConfig, command: Sequence[str] | None) -> Callable[[], None]:
    """What marks the pipeline's workdir as one of this run."""
    pins = pipeline.pins()
    return partial(workdir.record, pipeline.store, config.recipe, config, pipeline.names, pins=pins, command=command)


def _report(pipeline: Pipeline, executor: Executor) -> None:
    """Write the report where it is behind; a damaged part that it meets is made again."""
    damaged: set[Place] = set()
    while True:
        try:
            if report_is_behind(pipeline.store):
                write_report(pipeline.store)
            return
        except DamagedPart as error:
            if (error.table, error.part) in damaged:
                raise
            damaged.add((error.table, error.part))
            pipeline.mend(executor, error)


def _run(
    pipeline: Pipeline, executor: Executor, flags: Flags, listed: Callable[[], None], *, keep_working: bool
) -> list[str]:
    """Make the tables; an error says also what is open, which may be its reason.

    Where nothing was selected, the report is written, which tells why.

    Args:
        listed: called when the sources are listed.
    """
    try:
        return pipeline.run(executor, flags, listed=listed, keep_working=keep_working)
    except CurateError as error:
        if isinstance(error, NothingSelected):
            _report(pipeline, executor)
            error.add_note(f"the report: {pipeline.store.join(PAGE)}")
        found = find_open(pipeline)
        if found.images:
            error.add_note(f"{found.describe()}; the same command reads exactly these again")
        raise


def _judge(found: OpenRows, config: RecipeConfig, report: str) -> None:
    """Warn of images that could not be had; raise where they are too many."""
    if not found.images:
        return
    again = "The same command reads exactly these again"
    if found.images > config.sources.max_unavailable * found.listed:
        raise TooManyUnavailable(
            f"{found.describe()}, more than sources.max_unavailable={config.sources.max_unavailable:g} allows. Every "
            f"table and the report {report} are there, without these images. {again}"
        )
    logger.warning("%s. %s", found.describe(), again)


def report_is_behind(store: Store) -> bool:
    """Whether the tables have changed since report and card were written, or one of these is missing."""
    from curate.report.papers import papers_are_behind

    known = _reported(store).get("tables") == _made_of(store) and store.exists(PAGE)
    return not known or papers_are_behind(workdir.find_tables(store))


def write_report(store: Store) -> str:
    """Write the report and the dataset card of a workdir; returns the report's path.

    Raises:
        TableError: no table is finished.
    """
    from curate.report.page import SCORE_SWEEPS, SWEEP_FILE, write_page
    from curate.report.papers import write_papers
    from curate.report.sections import warnings

    made_of = _made_of(store)
    if _reported(store).get("tables") != made_of:
        for pages in (SWEEP_FILE, SCORE_SWEEPS):
            store.remove(pages)  # thresholds of tables that are gone
    found = workdir.open_tables(store)
    write_papers(found)
    page = write_page(found)
    store.write_json(REPORT_MADE_OF, {"tables": made_of, "checks": warnings(found)})
    return page


def reported_checks(store: Store) -> tuple[str, ...]:
    """What the report says that a person should look at before trusting the result."""
    return tuple(_reported(store).get("checks", ()))


def _reported(store: Store) -> dict[str, Any]:
    """What the report tells of; empty: there is none, or nobody knows."""
    try:
        found = store.read_json(REPORT_MADE_OF)
    except TableError:  # damaged: the report is written again
        return {}
    return found if isinstance(found, dict) else {}


def _made_of(store: Store) -> str:
    """Digest of all that report and card tell of; they read no table that is ever cleaned."""
    names = workdir.open_record(store).tables
    manifests = [store.read_json(f"{name}/{MANIFEST}") for name in names]
    return digest([None if one is None else {**one, "cleaned": []} for one in manifests])


def clean_workdir(store: Store, *, dry_run: bool = False) -> list[Removed]:
    """Remove the rows of working tables that no table of the workdir's recipe needs any more; see `cleaning.py`.

    Raises:
        WorkdirError: it holds no run, or another process works on it.
        ConfigError: its recipe is not known here.
    """
    with nullcontext() if dry_run else store.lock():
        if dry_run:
            store = workdir.current(store)
        else:
            updating.end_switch(store)  # whose tables must not be cleaned while their files move
        found, steps = workdir.find_tables(store), workdir.declared_steps(store)
        unneeded = find_unneeded(steps, store, [one.name for one in found.tables])
        return clean(map(store.table, unneeded), dry_run=dry_run)


def plan_config(config: RecipeConfig, flags: Flags) -> list[StepPlan]:
    """What `run_config` would do; sources that were never listed are counted, to bound what `auto` will be."""
    workdir_store = Store(config.workdir)
    store = updating.laid_over(workdir_store) if flags.update else workdir.current(workdir_store)
    pipeline = declare(config, store)
    workdir.claim(workdir.current(workdir_store), config.recipe, pipeline.names, update=flags.update)
    listed = next(store.table(n) for step in pipeline.steps for n, s in step.stages.items() if isinstance(s, Scan))
    if listed.is_complete():
        num_images = listed.num_rows()
    else:
        with config.sources.network.used():
            num_images = sum(1 for source in config.sources.pool for _ in list_source(source))
    return plan_run(pipeline, flags, num_images=num_images)


def declare(config: RecipeConfig, store: Store) -> Pipeline:
    """The pipeline that the config's recipe declares."""
    memory = config.executor.task_bytes
    pipeline = Pipeline(store, seed=config.seed, within=config.sources.network, task_memory=memory)
    find_recipe(config.recipe).declare(pipeline, config)
    return pipeline
