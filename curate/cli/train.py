"""`curate train` and `visualize`: pretrain a backbone, draw what one sees."""

from pathlib import Path
from typing import Annotated, Any

import typer

from curate import command
from curate.cli.arguments import (
    CompareWeights,
    Device,
    Model,
    Overrides,
    Quiet,
    Verbose,
    Weights,
    complete_config,
)
from curate.cli.consoles import say
from curate.cli.program import listen
from curate.cli.summary import near
from curate.errors import ConfigError

ConfigOrAuto = Annotated[
    str,
    typer.Argument(
        help="YAML file, or the name of a bundled config such as train/small; auto: all that is not given is picked by "
        "images and machine",
        autocompletion=complete_config,
    ),
]
Shards = Annotated[
    str | None,
    typer.Option(metavar="PLACE", help="workdir of a run, its folder shards, or a folder, file or pattern"),
]
Output = Annotated[str | None, typer.Option(metavar="DIR", help="folder for checkpoints, the log and the exports")]
Init = Annotated[
    str | None, typer.Option(metavar="MODEL", help="backbone to go on from, as init_from=MODEL: an id or a file")
]
Plan = Annotated[bool, typer.Option("--plan", help="say phases, schedules, tokens and memory, and write nothing")]
Processes = Annotated[int, typer.Option(min=1, help="with --plan: processes that are to share the training")]
Images = Annotated[
    int | None, typer.Option(min=1, help="with --plan: number of images, where the shards are not at hand")
]


def train(
    config: ConfigOrAuto,
    overrides: Overrides = None,
    shards: Shards = None,
    output: Output = None,
    init: Init = None,
    plan: Plan = False,
    processes: Processes = 1,
    images: Images = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Pretrain a backbone on curated shards; a training that was stopped goes on where it was.

    Exit status: 0 it is trained; 1 an error stopped it; 2 a wrong command line; 143 SIGTERM or 130 Ctrl-C stopped it,
    and a checkpoint is written: the same command goes on. A second Ctrl-C ends it at once. torchrun kills its processes
    30 seconds after it was told to go, or as many as TORCH_ELASTIC_SHUTDOWN_TIMEOUT says (torch 2.12 and later), and
    ends itself with 1.

    Examples:
        # a tiny ViT, in about a minute on two cores
        curate train train/tiny --shards runs/dedup-photos --output runs/tiny
        # the same, longer
        curate train train/tiny --shards runs/dedup-photos --output runs/longer iterations=2000
        # every key
        curate config train/small
        # phases, schedules and memory on 8 GPUs, before anything is written
        curate train train/small --shards runs/even --output runs/small --plan --processes 8
        # settings picked by the images and this machine, each with its reason
        curate train auto --shards runs/even --output runs/auto
        # the same, going on from a released backbone
        curate train auto --shards runs/even --init dinov2_vits14 --output runs/continued iterations=2000
        # on 8 GPUs
        TORCH_ELASTIC_SHUTDOWN_TIMEOUT=600 torchrun --nproc-per-node 8 --no-python \
            curate train train/small --shards runs/even --output runs/small
    """
    from curate.api import AUTO, plan_auto, plan_values, train_auto, train_values
    from curate.config import apply_overrides, merge, read_yaml

    listen(quiet=quiet, verbose=verbose)
    given: dict[str, Any] = {"shards": shards, "output": output, "init_from": init}
    begun = {} if config == AUTO else read_yaml(config)
    values = merge(begun, {name: value for name, value in given.items() if value is not None})
    values = apply_overrides(values, overrides or [])
    if plan:
        asked: dict[str, Any] = {"processes": processes, "images": images}
        say("\n".join(plan_auto(values, **asked) if config == AUTO else plan_values(values, where=config, **asked)))
        return
    if processes != 1 or images is not None:
        raise ConfigError("--processes and --images say for what to plan; add --plan, or leave them out")
    result = train_auto(values) if config == AUTO else train_values(values, where=config)
    _say_export(near(str(result.export)), quiet=quiet)


def _say_export(export: str, *, quiet: bool) -> None:
    """Where the product lies and, unless `quiet`, what to do with it."""
    say(f"export: {export}")
    if not quiet:
        say("Next:")
        say(f"  {command.line('eval', export, '--data', 'FOLDER')}  # how good it is, by a subfolder a class")
        say(f"  {command.line('visualize', export, 'FOLDER', '--output', 'looks')}  # what it sees")


def visualize(
    model: Model,
    images: Annotated[list[str], typer.Argument(help="pictures, folders of pictures, or `bundled`")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="folder to make; one of an earlier call is written anew")],
    weights: Weights = None,
    compare: Annotated[str | None, typer.Option(metavar="MODEL", help="another model, drawn below")] = None,
    compare_weights: CompareWeights = None,
    size: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="short edge in pixels; none: twice the model's own")
    ] = None,
    block: Annotated[int, typer.Option(help="whose attention; -1: the last")] = -1,
    mass: Annotated[float, typer.Option(help="share of the attention that the masks keep")] = 0.6,
    threshold: Annotated[
        str, typer.Option(help="foreground of the patch colors: sign, or the share of patches that is background")
    ] = "sign",
    attention: Annotated[bool, typer.Option(help="--no-attention: the colors of the patches alone")] = True,
    most: Annotated[int, typer.Option(help="pictures at most, evenly spread over those given", min=1)] = 8,
    device: Device = "auto",
) -> None:
    """Draw what a backbone sees: attention of each head, masks of it, and its patch features as colors.

    Examples:
        curate visualize runs/tiny photos --output looks
        # two trainings of one model, on pictures that come with curate
        curate visualize runs/tiny bundled --output looks --compare runs/longer
    """
    from curate.config import parse
    from curate.evaluation import visualize as pictured
    from curate.evaluation.drawing.output_folder import check_output
    from curate.models.backbones.load import load_backbone
    from curate.samples.bundled import PHOTOS

    check_output(output)
    stated = {"size": size, "block": block, "mass": mass, "threshold": threshold, "attention": attention}
    looks = parse(pictured.Looks, stated, where="visualize")
    pictures = pictured.gather_pictures([PHOTOS if place == "bundled" else place for place in images], most=most)
    given = [(model, weights), *([] if compare is None else [(compare, compare_weights)])]
    loaded = [load_backbone(name, weights=file, device=device, precision="fp32") for name, file in given]
    backbones = pictured.name_backbones(loaded)
    views = pictured.view(backbones, pictures, looks)
    sheet = pictured.write_views(
        output, views, title=f"{model}: {', '.join(backbones)}", notes=pictured.describe_looks(backbones, looks)
    )
    say(f"{sheet}: {len(pictures)} pictures")
