"""What whole recipes cost as pools grow: every stage on faked pictures, beside what `curate plan` says of it.

Nothing but the pictures is faked: neither decoding nor networks take time, all else is what `curate run` does. A run
is made and removed for each recipe and size. Counts are those of the file systems (`curate/counting.py`), which each
table keeps in its manifest; the plan is given what the run found of images, copies and the selection.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.figures import machine
from benchmarks.scale.measure import Ran, run_recipe
from benchmarks.scale.recipes import RECIPES, Scale
from benchmarks.scale.verdicts import format_runs, growing
from curate.cli.arguments import Json

SIZES = (50_000, 200_000, 800_000)


def command(
    images: Annotated[list[int] | None, typer.Option(help="images of the pools, ascending")] = None,
    recipes: Annotated[list[str] | None, typer.Option(help=f"some of {', '.join(RECIPES)}")] = None,
    workers: Annotated[int, typer.Option(help="worker processes of Dask; 0: all in one process")] = 0,
    kill: Annotated[int, typer.Option(help="times that the driver of each run is killed and started again")] = 0,
    dim: Annotated[int, typer.Option(help="dimensions of the embeddings")] = 64,
    image_bytes: Annotated[int, typer.Option(help="bytes of an image")] = 4000,
    rows_per_part: Annotated[int, typer.Option(help="images of a part")] = 4096,
    shard_bytes: Annotated[int, typer.Option(help="bytes of a shard")] = 8 << 20,
    folder: Annotated[Path | None, typer.Option(help="where temporary folders go: about 12 kB an image")] = None,
    json_: Json = False,
) -> None:
    """Bytes, requests and CPU seconds an image of every stage as pools grow, beside what `curate plan` says."""
    scale = Scale(dim=dim, image_bytes=image_bytes, rows_per_part=rows_per_part, shard_bytes=shard_bytes)
    runs = [
        run_recipe(recipe, size, scale, folder=folder, workers=workers, kills=kill)
        for recipe in recipes or RECIPES
        for size in images or SIZES
    ]
    print(as_json(runs) if json_ else format_runs(runs))


def as_json(runs: list[Ran]) -> str:
    """Everything that was counted and planned, for programs."""
    rows = [row.as_json() for run in runs for row in run.rows]
    wholes = [
        {"recipe": run.recipe, "images": run.rows[0].images, "seconds": run.seconds}
        | {"driver_bytes": run.driver_bytes, "kills": run.kills, "compared": run.compared}
        for run in runs
    ]
    return json.dumps({"machine": machine(), "rows": rows, "runs": wholes, "growing": growing(runs)}, indent=2)
