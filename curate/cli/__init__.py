"""The command line: `curate run`, `plan`, `status`, `report`, `sweep`, `train`, `explain`, `models`, ..."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from curate.engine.freshness import Flags
from curate.errors import CurateError, TrainingInterrupted

if TYPE_CHECKING:
    from curate.engine.plan import StepPlan
    from curate.engine.store import Store

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 160)

SIGTERM_EXIT = 128 + 15
"""Exit status of a training that SIGTERM stopped: a scheduler must not take it for one that is done."""

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
    from curate.evaluation.in_training import evaluation_for
    from curate.evaluation.settings import split_config
    from curate.trainer.config import TrainConfig
    from curate.trainer.train import train as run_training

    values, settings = split_config(apply_overrides(read_yaml(config), overrides or []), where=config)
    parsed = parse(TrainConfig, values, where=config)
    result = run_training(parsed, evaluate=evaluation_for(settings, parsed))
    console.print(f"export: {result.export}", highlight=False, soft_wrap=True)


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="model id, or the .safetensors of an export")],
    data: Annotated[
        str, typer.Option(help="folder with a subfolder a class, Parquet (folder, file, pattern), bundled or mnist5k")
    ],
    weights: Annotated[str | None, typer.Option(help="path or URL of the weights; none: packaged or hub")] = None,
    test: Annotated[str | None, typer.Option(help="set that is asked; none: held-out or left-out images")] = None,
    label: Annotated[str | None, typer.Option(help="column of the labels in Parquet files")] = None,
    measures: Annotated[
        str, typer.Option(help="some of them, with commas")
    ] = "knn,linear,logistic,retrieval,copies,splits",
    splits: Annotated[int, typer.Option(help="random 7:3 splits of the measure `splits`")] = 5,
    seed: Annotated[int, typer.Option(help="of splits, heads and edits")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16")] = "auto",
    compare: Annotated[str | None, typer.Option(help="second model or export, for paired differences")] = None,
    compare_weights: Annotated[str | None, typer.Option(help="weights of the second model")] = None,
    json_: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure a frozen backbone: k-NN, linear read-outs, retrieval, copy detection; every figure with its error."""
    from curate.evaluation import evaluate as runner
    from curate.evaluation import summary
    from curate.evaluation.labeled import open_labeled

    chosen = runner.parse_measures(measures)
    images = open_labeled(data, label=label, labeled=chosen != ("copies",))
    asked = None if test is None else open_labeled(test, label=label)
    found = []
    for name, path in ((model, weights), (compare, compare_weights)):
        if name is not None:
            backbone = runner.load(name, weights=path, device=device, precision=precision)
            found.append(runner.evaluate(backbone, images, test=asked, measures=chosen, seed=seed, num_splits=splits))
    if json_:
        typer.echo(summary.evaluation_json(*found))
        return
    console.print("\n".join(map(summary.describe_evaluation, found)), highlight=False, soft_wrap=True)
    head = summary.HEAD if compare is None else summary.COMPARED_HEAD
    table = Table(*head, box=HEAVY_HEAD if console.is_terminal else None)
    for row in summary.evaluation_rows(*found):
        table.add_row(*row)
    console.print(table)


@app.command()
def visualize(
    model: Annotated[str, typer.Argument(help="a backbone, as in `curate models`; curate: an export of the trainer")],
    images: Annotated[list[str], typer.Argument(help="pictures, folders of pictures, or `bundled`")],
    output: Annotated[Path, typer.Option(help="folder to make; one of an earlier call is written anew")],
    weights: Annotated[str | None, typer.Option(help="path or URL of the weights")] = None,
    compare: Annotated[str | None, typer.Option(help="other weights of the same model, drawn below")] = None,
    size: Annotated[int | None, typer.Option(help="short edge in pixels; none: twice the model's own")] = None,
    block: Annotated[int, typer.Option(help="whose attention; -1: the last")] = -1,
    mass: Annotated[float, typer.Option(help="share of the attention that the masks keep")] = 0.6,
    threshold: Annotated[
        str, typer.Option(help="foreground of the patch colours: sign, or the share of patches that is background")
    ] = "sign",
    attention: Annotated[bool, typer.Option(help="--no-attention: the colours of the patches alone")] = True,
    most: Annotated[int, typer.Option(help="pictures at most, evenly spread over those given", min=1)] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
) -> None:
    """Draw what a backbone sees: attention of each head, masks of it, and its patch features as colours."""
    from curate.config import parse
    from curate.evaluation import visualize as pictured
    from curate.evaluation.drawing.output_folder import check_output
    from curate.models.backbones.load import load_backbone
    from curate.samples.pool import PHOTOS

    check_output(output)
    stated = {"size": size, "block": block, "mass": mass, "threshold": threshold, "attention": attention}
    looks = parse(pictured.Looks, stated, where="visualize")
    pictures = pictured.read_pictures([PHOTOS if place == "bundled" else place for place in images], most=most)
    given = [weights] if compare is None else [weights, compare]
    loaded = [load_backbone(model, weights=one, device=device, precision="fp32") for one in given]
    backbones = pictured.name_backbones(loaded)
    views = pictured.view(backbones, pictures, looks)
    sheet = pictured.write_views(
        output, views, title=f"{model}: {', '.join(backbones)}", notes=pictured.describe_looks(backbones, looks)
    )
    console.print(f"{sheet}: {len(pictures)} pictures", highlight=False, soft_wrap=True)


@app.command()
def export(
    source: Annotated[str, typer.Argument(help="backbone.safetensors, a folder, weights of DINOv2, or a model id")],
    to: Annotated[str, typer.Option(help="hub, timm, huggingface, safetensors or onnx")],
    output: Annotated[Path | None, typer.Option(help="file or folder; none: beside the source")] = None,
    heads: Annotated[bool, typer.Option("--heads", help="with the projection heads: hub, safetensors")] = False,
    size: Annotated[
        int | None,
        typer.Option(help="of pictures, px; positions are resampled; none: as stored, onnx: as embedded"),
    ] = None,
    opset: Annotated[int | None, typer.Option(help="of ONNX; none: 18")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an output that differs")] = False,
) -> None:
    """Convert a backbone for other libraries; what does not give equal outputs there is not written."""
    from curate.models.convert.convert import TOLERANCE, convert

    made = convert(source, to, output=output, heads=heads, size=size, opset=opset, overwrite=overwrite)
    table = Table("pictures", "largest difference", "accepted")
    for check in made.checks:
        accepted = f"{TOLERANCE * check.scale:.2g}"
        table.add_row(f"{check.images} of {check.image_size} px", f"{check.largest:.2g}", accepted)
    if made.resampled is not None:
        table.add_row(f"{made.resampled.image_size} px, resampled", f"{made.resampled.largest:.2g}", "any")
    console.print(table)
    console.print(f"{made.path}\n  {made.howto}", highlight=False, soft_wrap=True)


@app.command()
def models() -> None:
    """The known backbones: dimensions, license, whether their weights are here."""
    from curate.models.backbones.load import known_models

    table = Table("model", "dims", "input", "license")
    table.add_column("weights", overflow="fold")
    for info in known_models():
        here = "present" if info.weights_present else info.how_to_get
        table.add_row(info.model, str(info.dim), f"{info.preprocess.size} px", info.license, here)
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


def _open(workdir: str) -> "Store":
    from curate.engine.store import Store
    from curate.errors import WorkdirError
    from curate.recipe import RUN

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
    for noisy in ("distributed", "PIL", "fsspec", "asyncio", "faiss", "timm", "onnxscript", "onnx_ir"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        app()
    except CurateError as error:
        text = Text.assemble(("error: ", "bold red"), f"{type(error).__name__}: {error}", *_notes(error))
        Console(stderr=True, soft_wrap=True).print(text)
        sys.exit(SIGTERM_EXIT if isinstance(error, TrainingInterrupted) else 1)
    except OSError as error:  # a disk, a path or a network: the system's own words name it
        Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), f"{error}", *_notes(error)))
        sys.exit(1)


def _notes(error: BaseException) -> list[str]:
    """What was being made when it happened."""
    return [f"\n  {note}" for note in getattr(error, "__notes__", [])]
