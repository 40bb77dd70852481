"""From a config to finished tables: what `curate run` does, as a function."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from curate.config import apply_overrides, digest, parse, read_yaml
from curate.engine.executors import start_executor
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline
from curate.engine.plan import StepPlan, plan_run
from curate.engine.store import MANIFEST, Store
from curate.errors import ConfigError
from curate.recipe import RecipeConfig, find_recipe
from curate.report.card import write_card
from curate.report.page import write_report
from curate.sources.listing import list_source
from curate.workdir import claim_workdir, record_run

REPORT_MADE_OF = "report/made_of.json"


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    config: RecipeConfig
    changed: list[str]
    """Tables that were made or updated."""
    report: str
    """Path of the report."""
    seconds: float


def load_run_config(name: str | Path, overrides: Iterable[str] = ()) -> RecipeConfig:
    """The config of a run, of the type that its recipe declares.

    Raises:
        ConfigError: unreadable, without a recipe, or with keys or values the recipe does not take.
    """
    values = apply_overrides(read_yaml(name), overrides, shorthand={"sources": "pool"})
    if "recipe" not in values:
        raise ConfigError(f"{name}: has no `recipe`; is it a config for `curate train`?")
    return parse(find_recipe(values["recipe"]).config, values, where=str(name))


def run(config: RecipeConfig, flags: Flags) -> Outcome:
    """Make every table of the config's recipe, then the report and the dataset card."""
    start = time.monotonic()
    store = Store(config.workdir)
    pipeline = declare(config, store)
    claim_workdir(store, config.recipe)  # before anything is written there
    with store.lock():
        claim_workdir(store, config.recipe)
        pipeline.check(flags)
        record_run(store, config.recipe, config.model_dump(mode="json"))
        store.remove_leftovers()
        with start_executor(config.executor) as executor:
            changed = pipeline.run(executor, flags)
        _report(store)
    return Outcome(config, changed, store.join("report/index.html"), time.monotonic() - start)


def _report(store: Store) -> None:
    """Write card and report, unless those that are there tell of the same tables."""
    made_of = digest([store.read_json(f"{name}/{MANIFEST}") for name in store.table_names()])
    if store.read_json(REPORT_MADE_OF) != made_of:
        write_card(store)
        write_report(store)
        store.write_json(REPORT_MADE_OF, made_of)


def plan(config: RecipeConfig, flags: Flags) -> list[StepPlan]:
    """What `run` would do; sources that were never listed are counted, to bound what `auto` will be."""
    store = Store(config.workdir)
    pipeline = declare(config, store)
    listed = store.table("catalog").manifest()
    if listed is not None and listed.complete:
        num_images = listed.rows
    else:
        num_images = sum(1 for source in config.sources.pool for _ in list_source(source))
    return plan_run(pipeline, flags, num_images=num_images)


def declare(config: RecipeConfig, store: Store) -> Pipeline:
    """The pipeline that the config's recipe declares."""
    pipeline = Pipeline(store, seed=config.seed)
    find_recipe(config.recipe).declare(pipeline, config)
    return pipeline
