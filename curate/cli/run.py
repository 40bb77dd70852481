"""`curate run` and `curate plan`: make the tables of a recipe, or say what making them will cost."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from curate import progress
from curate.cli.arguments import Config, Curated, Heldout, Json, NewWorkdir, Overrides, Pool, Quiet, Verbose
from curate.cli.consoles import say, say_json, show_table
from curate.cli.expecting import seconds_by_table
from curate.cli.loading import load_run, words_of
from curate.cli.program import listen
from curate.cli.summary import say_outcome

if TYPE_CHECKING:
    from curate.engine.freshness import Flags
    from curate.engine.plan import StepPlan
    from curate.recipe import RecipeConfig


DryRun = Annotated[bool, typer.Option("--dry-run", help="show the plan, make nothing")]
Rebuild = Annotated[
    list[str] | None,
    typer.Option(metavar="TABLE", help="table to make again under the current config; `all` for every one"),
]
Refit = Annotated[bool, typer.Option("--refit", help="fit centroids and thresholds again")]
Rescan = Annotated[bool, typer.Option("--rescan", help="list the sources again, append new images")]
Update = Annotated[
    bool,
    typer.Option(
        "--update", help="make again what changed settings need; the old results stay until the new are complete"
    ),
]


def run(
    config: Config,
    overrides: Overrides = None,
    pool: Pool = None,
    heldout: Heldout = None,
    curated: Curated = None,
    workdir: NewWorkdir = None,
    dry_run: DryRun = False,
    rebuild: Rebuild = None,
    refit: Refit = False,
    rescan: Rescan = False,
    update: Update = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run a recipe: make every table that is missing, then the report.

    A run that was stopped goes on where it was, and one that is done says so. Where the images lie is said by --pool,
    --heldout and --curated, or by keys of the config (`sources.pool=PATH`), which win.

    Exit status: 0 all is made; 1 an error stopped the run; 2 a wrong command line; 3 all is made, but more images than
    sources.max_unavailable could not be had (a busy server, a broken connection): the same command reads these again.

    Examples:
        # near-duplicates in a folder; tables and report in runs/dedup-photos
        curate run dedup --pool photos
        # none that resembles a benchmark
        curate run dedup --pool photos --heldout imagenet/val --heldout cub200
        # what it would do
        curate run dedup --pool photos --dry-run
        # a balanced sample of what is left, in a workdir of your own
        curate run hierarchical --pool photos --workdir runs/even select.balance.target=10000
        # another threshold: makes again what it changes, and says first what that is
        curate run dedup --pool photos copies.threshold=0.9 --update
        # a config of your own (`curate init hierarchical` writes one)
        curate run hierarchical.yaml seed=1
    """
    from curate.engine.freshness import Flags
    from curate.running import run_config

    listen(quiet=quiet, verbose=verbose)
    sources = {"pool": pool, "heldout": heldout, "curated": curated}
    loaded = load_run(config, overrides, sources, workdir)
    flags = Flags(frozenset(rebuild or []), refit=refit, rescan=rescan, update=update)
    if update or dry_run:
        _say_plan(loaded, flags, dry_run=dry_run)
    if dry_run:
        return
    anew = bool(rebuild) or refit or rescan or update
    with progress.expecting(partial(seconds_by_table, loaded, anew=anew)):
        outcome = run_config(loaded, flags, command=words_of(config, overrides, sources, workdir))
    say_outcome(outcome, quiet=quiet, verbose=verbose)


def _say_plan(loaded: "RecipeConfig", flags: "Flags", *, dry_run: bool) -> None:
    """What an update of a workdir will cost; and what any other dry run would make."""
    from curate.engine.store import Store
    from curate.running import plan_config
    from curate.workdir import read_record

    if flags.update and read_record(Store(loaded.workdir)) is not None:
        from curate.scale.change import HEAD, cost_of_change

        change = cost_of_change(loaded, plan_config(loaded, flags))
        if change.steps:
            show_table(HEAD, change.cells())
        say(change.describe())
    elif dry_run:
        head = ("table", "stage", "state", "parts to do", "auto", "note")
        show_table(head, map(_plan_cells, plan_config(loaded, flags)))


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
    """Say what a recipe will take for many images: time, memory, storage and price, without running it.

    Examples:
        # 100 million images on this machine
        curate plan dedup --images 100000000
        # the same on 64 A100
        curate plan lvd142m --images 1000000000 --gpus 64 --hardware a100
    """
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
