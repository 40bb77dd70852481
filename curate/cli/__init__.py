"""The command line, one file a group of commands. Commands parse, call and print; what they call, they import.

A command imports the modules it needs inside its function: `curate --help` and the commands that only read tables
start without torch.
"""

from collections.abc import Callable

import typer

from curate.cli import answers, inspect, models, run, samples, train, verify
from curate.cli.program import explained_errors, set_up_process

HELP = "From a messy pool of images to a curated data set, to a pretrained backbone."

COMMANDS: dict[str, Callable[..., None]] = {
    "run": run.run,
    "plan": run.plan,
    "status": inspect.status,
    "report": inspect.report,
    "sweep": inspect.sweep,
    "list": answers.list_,
    "write": answers.write,
    "explain": inspect.explain,
    "verify": verify.verify,
    "clean": inspect.clean,
    "train": train.train,
    "eval": train.evaluate,
    "visualize": train.visualize,
    "export": models.export,
    "models": models.models,
}

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=HELP)
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(samples.app, name="samples")


def main() -> None:
    """Run the command line; errors that the user can act on are printed without a traceback."""
    set_up_process()
    with explained_errors():
        app()
