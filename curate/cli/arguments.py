"""Arguments and options that several commands share."""

from typing import Annotated

import typer

from curate.config import bundled_configs


def complete_config(typed: str) -> list[str]:
    """Bundled configs whose name begins so, for the completion of a shell."""
    return [name for name in bundled_configs() if name.startswith(typed)]


Config = Annotated[
    str,
    typer.Argument(
        help="YAML file, or the name of a bundled config such as dedup; `curate config` lists these",
        autocompletion=complete_config,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE", help="keys of the config to change, such as seed=1 or copies.hashes=false; `curate config`"
    ),
]
Model = Annotated[
    str, typer.Argument(help="id (`curate models`), export of the trainer, ONNX file, or the folder of one of these")
]
Weights = Annotated[
    str | None, typer.Option("--weights", metavar="FILE", help="file or URL of weights that do not tell their model")
]
CompareWeights = Annotated[
    str | None, typer.Option("--compare-weights", metavar="FILE", help="the same of the model to compare with")
]
Pool = Annotated[
    list[str] | None,
    typer.Option(
        "--pool", metavar="PATH", help="images to choose from: folder, tars, Parquet, list, table of URLs, URL"
    ),
]
Heldout = Annotated[
    list[str] | None,
    typer.Option("--heldout", metavar="PATH", help="benchmark whose images must not be in the result; may be repeated"),
]
Curated = Annotated[
    list[str] | None,
    typer.Option("--curated", metavar="PATH", help="trusted images, the queries of retrieval; may be repeated"),
]
NewWorkdir = Annotated[
    str | None, typer.Option("--workdir", metavar="DIR", help="folder or URL of the run; none: runs/RECIPE-POOL")
]
Workdir = Annotated[str, typer.Argument(help="folder or URL of a run")]
Json = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N", metavar="DEVICE")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="print warnings, errors and the result alone")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="log every table, phase and part as it is made")]
