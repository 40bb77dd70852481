"""`curate samples`: make a pool whose copies and junk are known, and check a run against that truth."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from curate.cli.arguments import Json
from curate.cli.consoles import say, say_json
from curate.cli.help import Command, Group


class MakeByDefault(Group):
    """A group whose first word may be left out: `curate samples FOLDER` is `curate samples make FOLDER`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `make` before arguments that begin with no command of the group."""
        if args and args[0] not in (*self.commands, "--help", "-h"):
            args = ["make", *args]
        return super().parse_args(ctx, args)


HELP = """Make a pool of the bundled pictures (`curate samples FOLDER`), or check a run against what is in one.

Examples:
    curate samples runs/samples
    curate run quickstart
    curate samples check runs/quickstart runs/samples/truth.csv
"""
app = typer.Typer(cls=MakeByDefault, no_args_is_help=True, help=HELP)


@app.command(cls=Command)
def make(
    folder: Annotated[Path, typer.Argument(help="folder to make")],
    num_images: Annotated[int, typer.Option("-n", help="images of the pool")] = 2000,
    seed: Annotated[int, typer.Option(help="seed of the pool")] = 0,
) -> None:
    """Make a crawl-like pool of the bundled pictures: long-tailed, with copies, video frames and junk.

    Examples:
        # 2,000 images, then the quickstart over them
        curate samples runs/samples
        curate run quickstart
        # another, larger pool
        curate samples more -n 5000 --seed 1
    """
    from curate.samples.pool import make_pool

    make_pool(folder, num_images=num_images, seed=seed)
    say(f"{folder}: pool/ curated/ heldout/ truth.csv")


@app.command(cls=Command)
def check(
    workdir: Annotated[Path, typer.Argument(help="folder of a run over the pool")],
    truth: Annotated[Path, typer.Argument(help="truth.csv of the pool")],
    json_: Json = False,
) -> None:
    """Compare a run over a sample pool with what was planted in it.

    Examples:
        curate samples check runs/quickstart runs/samples/truth.csv
    """
    from curate.samples.check import check_against_truth, format_check

    found = check_against_truth(workdir, truth)
    if json_:
        say_json(json.dumps(found, indent=2))
    else:
        say(format_check(found))
