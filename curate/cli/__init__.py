"""The command line, one file a group of commands. Commands parse, call and print; what they call, they import.

A command imports the modules it needs inside its function: `curate --help` and the commands that only read tables
start without torch.
"""

from collections.abc import Callable
from typing import Annotated

import typer

from curate.cli import answers, configs, doctor, evaluating, inspect, models, review, run, samples, train, verify
from curate.cli.help import Command, Group
from curate.cli.program import explained_errors, set_up_process

HELP = """From a messy pool of images to a curated data set, to a pretrained backbone.

Exit status of every command: 0 it is done; 1 an error that is told; 2 a wrong command line; others are told by the help
of the command.

Examples:
    # near-duplicates in a folder, and what to do next
    curate run dedup --pool photos
    # a balanced sample of what is left
    curate run hierarchical --pool photos
    # every key of a config, and what it means
    curate config dedup
    # whether this machine is fit for a run
    curate doctor
"""

COMMANDS: dict[str, Callable[..., None]] = {
    "run": run.run,
    "plan": run.plan,
    "status": inspect.status,
    "report": inspect.report,
    "sweep": inspect.sweep,
    "list": answers.list_,
    "write": answers.write,
    "explain": inspect.explain,
    "review": review.review,
    "verify": verify.verify,
    "sign": verify.sign,
    "clean": inspect.clean,
    "config": configs.config,
    "init": configs.init,
    "doctor": doctor.doctor,
    "train": train.train,
    "eval": evaluating.evaluate,
    "visualize": train.visualize,
    "export": models.export,
    "models": models.models,
}

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=HELP,
)
for name, command in COMMANDS.items():
    app.command(name, cls=Command)(command)
app.add_typer(samples.app, name="samples")


def _say_version(wanted: bool) -> None:
    from curate import __version__

    if wanted:
        typer.echo(f"curate {__version__}")
        raise typer.Exit


@app.callback()
def _of_all_commands(
    version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Options that stand before a command."""


def main() -> None:
    """Run the command line; errors that the user can act on are printed without a traceback."""
    set_up_process()
    with explained_errors():
        app()
