"""`python -m benchmarks NAME [options]`: a file or package with a function `command` is a measurement of its name.

The function's parameters are the options, as typer reads them. Only the file of the measurement that was asked for is
imported: the others may need libraries that are not here.
"""

import ast
import inspect
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import typer

from curate.cli.program import explained_errors, set_up_process

PROGRAM = "python -m benchmarks"


def main(arguments: Sequence[str]) -> None:
    """Run one measurement, or list them all.

    Raises:
        SystemExit: always, as command lines do; 0 where nothing failed.
    """
    known = measurements()
    if not arguments or arguments[0] not in known:
        asked = not arguments or arguments[0] in ("-h", "--help")
        width = max(map(len, known))
        lines = [f"  {name:<{width}}  {line}" for name, line in known.items()]
        print("\n".join([f"{PROGRAM} NAME [--json] [--help]", *lines]), file=sys.stdout if asked else sys.stderr)
        sys.exit(0 if asked else f"{arguments[0]}: no such measurement")
    name, *options = arguments
    set_up_process()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command = import_module(f"benchmarks.{name}").command
    app.command()(command)
    with explained_errors():
        app(spread(command, options), prog_name=f"{PROGRAM} {name}")


def spread(command: Callable[..., None], options: Sequence[str]) -> list[str]:
    """Options that take several values, each value with its name: `--images 1 2` as `--images 1 --images 2`."""
    lists = {
        f"--{parameter.name.replace('_', '-')}"
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        if "list[" in str(parameter.annotation)
    }
    found: list[str] = []
    name = ""
    for word in options:
        if word.startswith("-"):
            name = word if word in lists else ""
            found += [] if name else [word]
        else:
            found += [name, word] if name else [word]
    return found


def measurements() -> dict[str, str]:
    """What can be measured: the names, each with the first line that its `command` says of itself."""
    found = {}
    folder = Path(__file__).parent
    files = {path.stem: path for path in folder.glob("*.py")}
    files |= {path.parent.name: path for path in folder.glob("*/__init__.py")}
    for name, path in sorted(files.items()):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name == "command":
                found[name] = (ast.get_docstring(node) or "").split("\n")[0]
    return found
