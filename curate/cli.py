"""The command line: `curate run`, `plan`, `status`, `report`, `sweep`, `train`, `explain`, `models`, ..."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from curate.errors import CurateError
from curate.freshness import Flags

if TYPE_CHECKING:
    from curate.plan import StepPlan
    from curate.store import Store

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
bench_app = typer.Typer(no_args_is_help=True, help="Measurements, each beside its peer in the same run.")
app.add_typer(bench_app, name="bench")
console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 160)

Config = Annotated[str, typer.Argument(help="YAML file, or the name of a bundled config such as dedup")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="override fields: a.b=1")]
Workdir = Annotated[str, typer.Argument(help="folder or URL of a run")]


@app.command()
def run(
    config: Config,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the plan, make nothing")] = False,
    rebuild: Annotated[
        list[str] | None, typer.Option(help="table to make again under the current config; `all` for every one")
    ] = None,
    refit: Annotated[bool, typer.Option("--refit", help="fit centroids again")] = False,
    rescan: Annotated[bool, typer.Option("--rescan", help="list the sources again, append new images")] = False,
) -> None:
    """Run a recipe: make every table that is missing, then the report."""
    from curate.run import load_run_config
    from curate.run import plan as make_plan
    from curate.run import run as run_config

    loaded = load_run_config(config, overrides or [])
    flags = Flags(frozenset(rebuild or []), refit=refit, rescan=rescan)
    if dry_run:
        console.print(_plan_table(make_plan(loaded, flags)))
        return
    outcome = run_config(loaded, flags)
    made = ", ".join(outcome.changed) if outcome.changed else "nothing to do, every table is there"
    console.print(f"{loaded.workdir}: {made} ({outcome.seconds:.1f} s)", highlight=False)
    console.print(f"report: {outcome.report}", highlight=False, soft_wrap=True)
    if loaded.workdir.endswith("quickstart"):
        console.print(_what_next(loaded.workdir), highlight=False, soft_wrap=True)


@app.command()
def plan(
    config: Config,
    overrides: Overrides = None,
    images: Annotated[int, typer.Option(help="of the pool")] = ...,  # type: ignore[assignment]
    gpus: Annotated[int, typer.Option(help="of all machines together")] = 0,
    cpus: Annotated[int, typer.Option(help="cores of all machines together; 0: those of one machine")] = 0,
    hardware: Annotated[
        str, typer.Option(help="v100, a100, h100, cpu, or a YAML file with its rates; here: measure this machine")
    ] = "here",
    curated: Annotated[int, typer.Option(help="images of the curated sets")] = 0,
    heldout: Annotated[int, typer.Option(help="images of the held-out sets")] = 0,
    kept: Annotated[float, typer.Option(help="share of the pool that deduplication keeps")] = 0.7,
    selected: Annotated[int | None, typer.Option(help="images of the selection; none: as the config says")] = None,
    image_bytes: Annotated[int, typer.Option(help="of an encoded image")] = 100_000,
    megapixels: Annotated[float, typer.Option(help="of an image")] = 0.35,
    pairs: Annotated[float, typer.Option(help="of copies that a search finds, for each image")] = 2.0,
    json_: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Time, memory, storage and price of a recipe for many images: from rates of machines, without running it."""
    from curate.config import parse
    from curate.run import load_run_config
    from curate.scale import estimate
    from curate.scale.demand import Assumptions
    from curate.scale.hardware import load_hardware

    stated = {"images": images, "curated": curated, "heldout": heldout, "kept": kept, "selected": selected}
    stated |= {"image_bytes": image_bytes, "megapixels": megapixels, "pairs": pairs}
    given, loaded = parse(Assumptions, stated, where="plan"), load_run_config(config, overrides or [])
    profile = load_hardware(hardware)
    machines = estimate.machines(profile, cores=cpus, gpus=gpus)
    found = estimate.plan_scale(loaded, given, machines)
    if json_:
        typer.echo(estimate.as_json(found, machines, given))
        return
    table = Table(*estimate.HEAD)
    for row in estimate.cells(found, machines):
        table.add_row(*row)
    console.print(estimate.headline(given, machines), highlight=False, soft_wrap=True)
    console.print(table)


@app.command()
def status(workdir: Workdir) -> None:
    """Stages of a run: parts done, rows in and out, seconds, images/s."""
    from curate.report.status import status as read_status

    rows = read_status(_open(workdir))
    table = Table("stage", "parts", "rows in", "rows out", "seconds", "images/s")
    for row in rows:
        table.add_row(*row.cells())
    console.print(table)


@app.command()
def report(workdir: Workdir) -> None:
    """Write the report and the dataset card again."""
    from curate.report.card import write_card
    from curate.report.page import write_report

    store = _open(workdir)
    if store.fs.exists(store.join("shards")):
        write_card(store)
    console.print(write_report(store), highlight=False, soft_wrap=True)


@app.command()
def sweep(workdir: Workdir, json_: Annotated[bool, typer.Option("--json")] = False) -> None:
    """What each threshold for copies would drop, with the pairs about it: a table, and WORKDIR/report/sweep.html."""
    from curate.report.sweep import as_rows, write_sweep

    found, page = write_sweep(_open(workdir))
    if json_:
        typer.echo(json.dumps(as_rows(found), indent=2))
        return
    table = Table("search", "threshold", "pairs", "images dropped", "largest group", "touch held-out")
    for row in found:
        numbers = map(str, (row.pairs, row.dropped, row.largest, row.heldout))
        table.add_row(row.search, f"{row.threshold:.4g}", *numbers)
    console.print(table)
    console.print(page, highlight=False, soft_wrap=True)


@app.command()
def explain(workdir: Workdir, image: Annotated[str, typer.Argument(help="image_id, key, path or file name")]) -> None:
    """Tell the story of one image: where it came from, what kept or dropped it, and why."""
    from curate.report.explain import explain as tell
    from curate.sources.uri import encode_uri

    undecodable = any("\udc80" <= letter <= "\udcff" for letter in image)
    named = encode_uri(os.fsencode(image)) if undecodable else image
    console.print(tell(_open(workdir), named), soft_wrap=True)


@app.command()
def train(config: Config, overrides: Overrides = None) -> None:
    """Pretrain a backbone on curated shards; a killed run resumes."""
    from curate.config import apply_overrides, parse, read_yaml
    from curate.trainer.config import TrainConfig
    from curate.trainer.train import train as run_training

    values = apply_overrides(read_yaml(config), overrides or [])
    result = run_training(parse(TrainConfig, values, where=config))
    console.print(f"export: {result.export}", highlight=False, soft_wrap=True)


@app.command()
def models() -> None:
    """The known backbones: dimensions, licence, whether their weights are here."""
    from curate.models.load import known_models

    table = Table("model", "dims", "input", "licence")
    table.add_column("weights", overflow="fold")
    for info in known_models():
        here = "present" if info.weights_present else info.how_to_get
        table.add_row(info.model, str(info.dim), f"{info.preprocess.size} px", info.licence, here)
    console.print(table)


@app.command()
def samples(
    out: Annotated[Path, typer.Argument(help="folder to make")],
    num_images: Annotated[int, typer.Option("-n", help="images of the pool")] = 2000,
    seed: Annotated[int, typer.Option(help="of the pool")] = 0,
) -> None:
    """Make a crawl-like pool of the bundled pictures: long-tailed, with copies, video frames and junk."""
    from curate.samples.pool import make_pool

    make_pool(out, num_images=num_images, seed=seed)
    console.print(f"{out}: pool/ curated/ heldout/ truth.csv", highlight=False)


@bench_app.command("embed")
def bench_embed(
    model: Annotated[str, typer.Option(help="model id; vit_small: ViT-S/14 with random weights")] = "vit_small",
    num_images: Annotated[int, typer.Option("-n", help="JPEG files")] = 256,
    side: Annotated[int, typer.Option(help="pixels of their short side")] = 512,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Images per second of the embedding pass, a plain loop and the bare forward, in one run."""
    from curate.bench import embed, figures

    found = embed.bench_embed(model=model, num_images=num_images, side=side)
    typer.echo(figures.as_json(found) if as_json else figures.format_figures(found))


@bench_app.command("kmeans")
def bench_kmeans(
    num_seeds: Annotated[int, typer.Option("--seeds", help="seeds of the trees")] = 10,
    threads: Annotated[int, typer.Option(help="of every peer")] = 2,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """k-means and trees beside faiss and scikit-learn: time, memory, inertia, entropy of balanced samples."""
    from curate.bench import figures, kmeans

    found = kmeans.bench_kmeans(num_seeds=num_seeds, threads=threads)
    typer.echo(figures.as_json(found) if as_json else figures.format_figures(found))


@bench_app.command("copies")
def bench_copies(
    folder: Annotated[Path | None, typer.Option(help="pictures to plant copies of; none: the bundled ones")] = None,
    num_pictures: Annotated[int, typer.Option("-n", help="pictures at most")] = 338,
    seed: Annotated[int, typer.Option(help="of the edits")] = 0,
    swap: Annotated[bool, typer.Option("--swap", help="judge on the first half of the pictures")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Precision and recall of copy-detection methods on planted chains of web edits."""
    from curate.bench import copies

    scores = copies.measure_copies(folder or copies.PHOTOS, num_pictures=num_pictures, seed=seed, swap=swap)
    typer.echo(copies.as_json(scores) if as_json else copies.format_copies(scores))


@bench_app.command("join")
def bench_join(
    num_vectors: Annotated[int, typer.Option("-n", help="vectors")] = 1_000_000,
    compare_size: Annotated[int, typer.Option(help="a second size, without faiss; 0: none")] = 0,
    dim: Annotated[int, typer.Option(help="dimensions")] = 256,
    probes: Annotated[int, typer.Option(help="lists that a vector looks into")] = 4,
    threads: Annotated[int | None, typer.Option(help="of every phase and of faiss; none: all cores")] = None,
    workdir: Annotated[Path | None, typer.Option(help="folder to keep the tables in; none: a temporary one")] = None,
    json_: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Self-join of planted vectors from disk, beside faiss's inverted lists, in one run."""
    from curate.bench import figures
    from curate.bench.join import bench_join as measure

    found = []
    for size in filter(None, (num_vectors, compare_size)):
        found += measure(
            size,
            dim=dim,
            num_probes=probes,
            threads=threads or os.cpu_count() or 1,
            workdir=workdir and workdir / str(size),
            with_faiss=size == num_vectors,
        )
    typer.echo(figures.as_json(found) if json_ else figures.format_figures(found))


@bench_app.command("components")
def bench_components(
    num_images: Annotated[int, typer.Option("-n", help="images of the pool")] = 10_000_000,
    edges: Annotated[float, typer.Option(help="pairs for each image")] = 1.0,
    json_: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Components and verdicts of streamed pairs, beside scipy: images per second, memory an image."""
    from curate.bench import figures
    from curate.bench.components import bench_components as measure

    found = measure(num_images, edges_per_image=edges)
    typer.echo(figures.as_json(found) if json_ else figures.format_figures(found))


@bench_app.command("junk")
def bench_junk(
    num_each: Annotated[int, typer.Option("-n", help="generated pictures of each kind")] = 20,
    seed: Annotated[int, typer.Option(help="of pictures and run")] = 0,
    json_: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Share of generated pictures in a pool of photographs, in a balanced draw, and with screening before it."""
    from curate.bench import figures
    from curate.bench.junk import bench_junk as measure

    found = measure(num_each=num_each, seed=seed)
    typer.echo(figures.as_json(found) if json_ else figures.format_figures(found))


@bench_app.command("parts")
def bench_parts(
    num_parts: Annotated[int, typer.Option("-n", help="parts of every table; 18,000 are 1.2 billion images")] = 20_000,
    json_: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """What many parts cost the framework: tables of two rows a part made, resumed, planned, listed."""
    from curate.bench import figures
    from curate.bench.parts import bench_parts as measure

    found = measure(num_parts)
    typer.echo(figures.as_json(found) if json_ else figures.format_figures(found))


@bench_app.command("incremental")
def bench_incremental(
    num_images: Annotated[int, typer.Option("-n", help="images of the grown pool")] = 400,
    seed: Annotated[int, typer.Option(help="of the pool")] = 0,
    json_: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """A pool that grows by a quarter: what the second run reuses, and how its result differs from a full run's."""
    from curate.bench import figures
    from curate.bench.incremental import bench_incremental as measure

    found = measure(num_images, seed=seed)
    typer.echo(figures.as_json(found) if json_ else figures.format_figures(found))


@bench_app.command("mnist")
def bench_mnist(
    workdir: Annotated[Path, typer.Argument(help="folder for shards, checkpoints and exports")],
    json_: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Pretrain a tiny ViT on MNIST-5k and compare it by k-NN with its own initialisation."""
    from curate.bench import figures, mnist

    found = mnist.bench_mnist(workdir)
    typer.echo(figures.as_json(mnist.as_figures(found)) if json_ else mnist.format_table(found))


@bench_app.command("select")
def bench_select(
    num_images: Annotated[int, typer.Option("-n", help="images in the pool")] = 1_000_000,
    leaves: Annotated[int, typer.Option(help="leaf clusters")] = 10_000,
    workdir: Annotated[Path | None, typer.Option(help="folder for the tables, removed at the end")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """A balanced draw from synthetic clusters, beside numpy and DuckDB: images per second, memory an image."""
    from curate.bench import figures
    from curate.bench.select import bench_select as measure

    found = measure(num_images, leaves, workdir=workdir)
    typer.echo(figures.as_json(found) if as_json else figures.format_figures(found))


@bench_app.command("retrieve")
def bench_retrieve(
    num_queries: Annotated[int, typer.Option("-n", help="curated images that ask")] = 100_000,
    k: Annotated[int, typer.Option(help="images a query")] = 32,
    pool: Annotated[int, typer.Option(help="images in the pool")] = 2_000_000,
    workdir: Annotated[Path | None, typer.Option(help="folder for the tables, removed at the end")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """From the edges of a search to the retrieved rows, beside numpy and DuckDB: edges per second, memory."""
    from curate.bench import figures
    from curate.bench.retrieve import bench_retrieve as measure

    found = measure(num_queries, k, pool, workdir=workdir)
    typer.echo(figures.as_json(found) if as_json else figures.format_figures(found))


@bench_app.command("truth")
def bench_truth(
    workdir: Workdir,
    truth: Annotated[Path, typer.Argument(help="truth.csv of `curate samples`")],
    json_: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Compare a run over a sample pool with what was planted in it."""
    from curate.bench.truth import evaluate_against_truth, format_truth

    found = evaluate_against_truth(Path(workdir), truth)
    typer.echo(json.dumps(found, indent=2) if json_ else format_truth(found))


def _open(workdir: str) -> "Store":
    from curate.errors import WorkdirError
    from curate.recipe import RUN
    from curate.store import Store

    store = Store(workdir)
    if store.read_json(RUN) is None:
        raise WorkdirError(f"{workdir}: no run of curate here; make one with `curate run CONFIG workdir={workdir}`")
    return store


def _plan_table(plans: "list[StepPlan]") -> Table:
    table = Table("table", "stage", "state", "parts to do", "auto", "note")
    for plan in plans:
        todo = "?" if plan.todo is None else f"{plan.todo} of {plan.parts}"
        auto = ", ".join(f"{name} = {value}" for name, value in plan.auto.items())
        table.add_row(
            plan.table, plan.stage, plan.state, todo, f"at most {auto}" if auto and plan.at_most else auto, plan.note
        )
    return table


def _what_next(workdir: str) -> str:
    return f"""
Next, with pictures of your own:
  curate run configs/dedup.yaml sources.pool=FOLDER workdir=runs/mine            remove near-duplicates
  curate run configs/hierarchical.yaml sources.pool=FOLDER workdir=runs/mine2    and balance what is left
  curate run configs/lvd142m.yaml sources.pool=FOLDER sources.curated=SEEDS sources.heldout=BENCHMARKS workdir=...
  curate train configs/train/tiny.yaml shards={workdir}/shards/data output=runs/tiny
  curate explain {workdir} NAME_OF_AN_IMAGE                                      why an image was kept or dropped"""


def main() -> None:
    """Entry point: errors that the user can act on are printed without a traceback."""
    # Threads that wait for the next product must not spin: decoding runs beside them, and machines are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("distributed", "PIL", "fsspec", "asyncio", "faiss"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        app()
    except CurateError as error:
        text = Text.assemble(("error: ", "bold red"), f"{type(error).__name__}: {error}", *_notes(error))
        Console(stderr=True, soft_wrap=True).print(text)
        sys.exit(1)
    except OSError as error:  # a disk, a path or a network: the system's own words name it
        Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), f"{error}", *_notes(error)))
        sys.exit(1)


def _notes(error: BaseException) -> list[str]:
    """What was being made when it happened."""
    return [f"\n  {note}" for note in getattr(error, "__notes__", [])]
