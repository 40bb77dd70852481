"""Does curating pay? Trainings on four sets of equal size from one crawl-like pool, read out on a balanced test set.

A labeled set becomes a pool with a long tail of classes, many copies of what is frequent, and junk (`crawl.py`). From
it come four training sets (`arms.py`): at random, at random without copies, balanced by `hierarchical`, and retrieved;
and beside them the ideal one, that only who knows the truth can draw.
Each is trained on by one config, from the same initial weights, for the same number of iterations, and again for twice
as many (`cells.py`). k-NN and a linear classifier then read the frozen features (`intervals.py`).
"""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.curation.arms import ARMS
from benchmarks.curation.letters import FONTS
from benchmarks.curation.running import LENGTHS, Setting, bench_curation
from benchmarks.curation.sets import CLIP_ART, open_set
from benchmarks.curation.table import as_figures, format_table
from benchmarks.figures import show
from curate.cli.arguments import Json


def command(
    workdir: Annotated[Path, typer.Argument(help="folder for results, pools, runs and trainings")],
    set_: Annotated[
        str,
        typer.Option("--set", help="mnist, digits, letters, photos, openclipart, or a folder with a subfolder a class"),
    ] = "mnist",
    objective: Annotated[str, typer.Option(help="of the trainings: diet or dinov2")] = "diet",
    num_seeds: Annotated[int, typer.Option("--seeds", help="pools, each with its own trainings")] = 5,
    first_seed: Annotated[int, typer.Option(help="the others follow")] = 0,
    target: Annotated[int | None, typer.Option("--images", help="of each training set; none: by the pool")] = None,
    iterations: Annotated[int | None, typer.Option(help="of the shorter training; none: by the set")] = None,
    arms: Annotated[str, typer.Option(help="some of the training sets, with commas")] = ",".join(ARMS),
    once: Annotated[bool, typer.Option("--once", help="not at twice the iterations too")] = False,
    curation: Annotated[list[str] | None, typer.Option(help="[RECIPE:]KEY=VALUE changes of recipes, several")] = None,
    training: Annotated[list[str] | None, typer.Option(help="KEY=VALUE changes of the trainings, several")] = None,
    clip_art: Annotated[Path, typer.Option(help="folder png of the package openclipart-png")] = CLIP_ART,
    fonts: Annotated[Path, typer.Option(help="folder of the package fonts-aenigma")] = FONTS,
    json_: Json = False,
) -> None:
    """Pretrain on curated and random sets of a crawl-like pool, and compare them on a balanced test set."""
    chosen = open_set(set_, objective=objective, clip_art=clip_art, fonts=fonts, kept=workdir / "openclipart.npz")
    setting = Setting(target, iterations, tuple(curation or ()), tuple(training or ()))
    seeds = range(first_seed, first_seed + num_seeds)
    lengths = LENGTHS[:1] if once else LENGTHS
    cells = bench_curation(workdir, chosen, seeds=seeds, arms=arms.split(","), lengths=lengths, setting=setting)
    show(as_figures(cells), json_, text=format_table(chosen.name, cells))
