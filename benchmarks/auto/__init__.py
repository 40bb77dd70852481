"""Is what `curate train auto` picks any good on small sets? k-NN before and after its trainings on five of them.

Each seed trains on one half of a set, without labels, and asks for the classes of the other half: each picture's by
its nearest others there, none of which was trained on (`running.py`). From scratch the trained backbone stands beside
its own initialization; going on from a backbone, beside that backbone as it was (`table.py`). All is as `auto` picks it
but the number of iterations, which options bound so that a CPU ends. What the same pictures tell without any learning
is in `plain.py`.
"""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.auto.plain import format_plain, plain_figures
from benchmarks.auto.running import MOST_ASKED, Route, bench_auto
from benchmarks.auto.sets import EMOJI, NAMES, open_small_set
from benchmarks.auto.table import as_figures, format_table
from benchmarks.curation.sets import CLIP_ART
from benchmarks.figures import show
from curate.cli.arguments import Json
from curate.config import apply_overrides


def command(
    workdir: Annotated[Path, typer.Argument(help="folder for results and trainings")],
    sets: Annotated[str, typer.Option(help="some of the sets, with commas")] = ",".join(NAMES),
    num_seeds: Annotated[int, typer.Option("--seeds", help="halves and trainings of each set")] = 4,
    first_seed: Annotated[int, typer.Option(help="the others follow")] = 0,
    iterations: Annotated[int, typer.Option(help="from scratch, at most; 0: not from scratch")] = 1000,
    init: Annotated[str | None, typer.Option(help="backbone to go on from; none: only from scratch")] = None,
    continued: Annotated[int, typer.Option(help="iterations of going on, at most")] = 100,
    asked: Annotated[int, typer.Option(help="pictures of a half whose classes are asked for, at most")] = MOST_ASKED,
    training: Annotated[list[str] | None, typer.Option(help="KEY=VALUE settings not to be picked, several")] = None,
    clip_art: Annotated[Path, typer.Option(help="folder png of the package openclipart-png")] = CLIP_ART,
    emoji: Annotated[Path, typer.Option(help="the npm package emoji-datasource-twitter, unpacked")] = EMOJI,
    plain: Annotated[bool, typer.Option("--plain", help="also what colors and pixels alone tell")] = False,
    json_: Json = False,
) -> None:
    """What trainings by `curate train auto` gain on five small sets, from scratch and going on from a backbone."""
    given = apply_overrides({}, training or [])
    routes = [Route("scratch", iterations, given)] if iterations else []
    routes += [] if init is None else [Route("continued", continued, {**given, "init_from": init})]
    cells, beside = [], []
    for name in sets.split(","):
        chosen = open_small_set(name, clip_art=clip_art, emoji=emoji, kept=workdir / "openclipart.npz")
        seeds = range(first_seed, first_seed + num_seeds)
        cells += bench_auto(workdir, chosen, routes=routes, seeds=seeds, most_asked=asked)
        beside += plain_figures(chosen, seeds, most_asked=asked) if plain else []
    told = format_table(cells) + (format_plain(beside) if plain else "")
    show([*as_figures(cells), *beside], json_, text=told)
