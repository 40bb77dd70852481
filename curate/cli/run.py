"""`curate run` and `curate plan`: make the tables of a recipe, or say what making them will cost."""

from typing import TYPE_CHECKING, Annotated

import typer

from curate.cli.arguments import Config, Json, Overrides
from curate.cli.consoles import say, say_json, show_table

if TYPE_CHECKING:
    from curate.engine.plan import StepPlan


def run(
    config: Config,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the plan, make nothing")] = False,
    rebuild: Annotated[
        list[str] | None, typer.Option(help="table to make again under the current config; `all` for every one")
    ] = None,
    refit: Annotated[bool, typer.Option("--refit", help="fit centroids again")] = False,
    rescan: Annotated[bool, typer.Option("--rescan", help="list the sources again, append new images")] = False,
    update: Annotated[
        bool,
        typer.Option(
            "--update", help="make again what changed settings need; the old results stay until the new are complete"
        ),
    ] = False,
) -> None:
    """Run a recipe: make every table that is missing, then the report.

    Exit status: 0 all is made; 1 an error stopped the run; 2 a wrong command line; 3 all is made, but more images than
    sources.max_unavailable could not be had (a busy server, a broken connection): the same command reads these again.
    """
    from curate.engine.freshness import Flags
    from curate.engine.store import Store
    from curate.recipe import load_config
    from curate.running import plan_config as make_plan
    from curate.running import run_config
    from curate.workdir import read_record

    loaded = load_config(config, overrides or [])
    flags = Flags(frozenset(rebuild or []), refit=refit, rescan=rescan, update=update)
    if update and read_record(Store(loaded.workdir)) is not None:
        from curate.scale.change import HEAD, cost_of_change

        change = cost_of_change(loaded, make_plan(loaded, flags))
        if change.steps:
            show_table(HEAD, change.cells())
        say(change.describe())
        if dry_run:
            return
    if dry_run:
        show_table(
            ("table", "stage", "state", "parts to do", "auto", "note"), map(_plan_cells, make_plan(loaded, flags))
        )
        return
    outcome = run_config(loaded, flags, command=(config, *(overrides or [])))
    made = ", ".join(outcome.changed) if outcome.changed else "nothing to do, every table is there"
    say(f"{loaded.workdir}: {made} ({outcome.seconds:.1f} s)")
    say(f"report: {outcome.report}")
    if loaded.workdir.endswith("quickstart"):
        say(_what_next(loaded.workdir))


def plan(
    config: Config,
    overrides: Overrides = None,
    images: Annotated[int, typer.Option(help="images of the pool")] = ...,  # type: ignore[assignment]
    gpus: Annotated[int, typer.Option(help="GPUs of all machines together")] = 0,
    cpus: Annotated[int, typer.Option(help="cores of all machines together; 0: those of one machine")] = 0,
    hardware: Annotated[
        str, typer.Option(help="v100, a100, h100, cpu, or a YAML file with its rates; here: measure this machine")
    ] = "here",
    curated: Annotated[int, typer.Option(help="images of the curated sets")] = 0,
    heldout: Annotated[int, typer.Option(help="images of the held-out sets")] = 0,
    kept: Annotated[float, typer.Option(help="share of the pool that deduplication keeps")] = 0.7,
    selected: Annotated[int | None, typer.Option(help="images of the selection; none: as the config says")] = None,
    image_bytes: Annotated[int, typer.Option(help="bytes of an encoded image")] = 100_000,
    megapixels: Annotated[float, typer.Option(help="megapixels of an image")] = 0.35,
    pairs: Annotated[float, typer.Option(help="pairs of copies that a search finds, for each image")] = 2.0,
    hash_pairs: Annotated[float, typer.Option(help="pairs of near perceptual hashes, for each image")] = 1.0,
    file_images: Annotated[float, typer.Option(help="images of a file of the sources; 1: no tars")] = 1,
    json_: Json = False,
) -> None:
    """Time, memory, storage and price of a recipe for many images: from rates of machines, without running it."""
    from curate.config import parse
    from curate.engine.cost import Assumptions
    from curate.recipe import load_config
    from curate.scale import estimate
    from curate.scale.hardware import load_hardware

    stated: dict[str, float | None] = {"images": images, "curated": curated, "heldout": heldout, "kept": kept}
    stated |= {"selected": selected, "image_bytes": image_bytes, "megapixels": megapixels, "pairs": pairs}
    loaded = load_config(config, overrides or [])
    stated |= {"hash_pairs": hash_pairs, "file_images": file_images, "task_memory": loaded.executor.task_bytes}
    given = parse(Assumptions, stated, where="plan")
    profile = load_hardware(hardware)
    machines = estimate.machines(profile, cores=cpus, gpus=gpus)
    found = estimate.plan_scale(loaded, given, machines)
    if json_:
        say_json(estimate.as_json(found, machines, given))
        return
    say(estimate.describe_assumptions(given, machines))
    show_table(estimate.HEAD, estimate.cells(found, machines))


def _plan_cells(step: "StepPlan") -> tuple[str, ...]:
    todo = "?" if step.todo is None else f"{step.todo} of {step.parts}"
    auto = ", ".join(f"{name} = {value}" for name, value in step.auto.items())
    at_most = "at most " if auto and step.at_most else ""
    return step.table, step.stage, step.state, todo, at_most + auto, step.note


def _what_next(workdir: str) -> str:
    return f"""
Next, with pictures of your own:
  curate run configs/dedup.yaml sources.pool=FOLDER workdir=runs/mine            remove near-duplicates
  curate run configs/hierarchical.yaml sources.pool=FOLDER workdir=runs/mine2    and balance what is left
  curate run configs/lvd142m.yaml sources.pool=FOLDER sources.curated=SEEDS sources.heldout=BENCHMARKS workdir=...
  curate train configs/train/tiny.yaml shards={workdir}/shards/data output=runs/tiny
  curate explain {workdir} NAME_OF_AN_IMAGE                                      why an image was kept or dropped"""
