"""The page of commands, from the tree that parses them."""

import re
import textwrap
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer.main

from curate.cli import app
from docs.generators.markdown import code, table

HEAD = """# Commands

Every command, its arguments and its options. `curate COMMAND --help` prints the same.
"""


def commands_page() -> str:
    """All commands, in the order of `curate --help`."""
    return "\n\n".join([HEAD, *(_section(name, command) for name, command in commands())])


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its words, such as `samples check`."""
    yield from _below("", typer.main.get_command(app))


def _below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    inside = getattr(command, "commands", None)
    if inside is None:
        yield name, command
        return
    for word, inner in inside.items():
        if not inner.hidden:
            yield from _below(f"{name} {word}".strip(), inner)


def _section(name: str, command: Any) -> str:
    takes = typing.get_type_hints(command.callback)
    words = [f"curate {name}", *(_usage(one) for one in command.params if one.param_type_name == "argument")]
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    if options:
        words.append("[OPTIONS]")
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    parts = [f"## curate {name}", f"```text\n{' '.join(words)}\n```", _prose(command.help or "")]
    rows = [(code(_usage(one)), "", _sentence(one.help)) for one in arguments]
    rows += [(_names(one, takes[one.name]), _default(one), _sentence(one.help)) for one in options]
    if rows:
        parts.append(table(("argument or option", "default", "meaning"), rows))
    return "\n\n".join(parts)


def _prose(text: str) -> str:
    """Help text: its paragraphs, and its examples as they stand."""
    told, _, examples = text.replace("\f", "").partition("Examples:")
    blocks = [" ".join(block.split()) for block in re.split(r"\n\s*\n", told.strip())]
    shown = textwrap.dedent(examples.strip("\n")).rstrip()
    return "\n\n".join([*blocks, *([f"```sh\n{shown}\n```"] if shown else [])])


def _usage(argument: Any) -> str:
    name = str(argument.metavar or argument.name or "").strip("[]{}.").upper()
    name = f"{name}..." if argument.nargs == -1 else name
    return name if argument.required else f"[{name}]"


def _names(option: Any, takes: Any) -> str:
    """The option's names, and what follows them."""
    named = ", ".join(code(name) for name in [*option.opts, *option.secondary_opts])
    return named if option.is_flag else f"{named} {_value(takes)}".strip()


def _value(takes: Any) -> str:
    """What a type is called on the command line; the annotation tells it in every version of typer."""
    if isinstance(takes, type) and issubclass(takes, Enum):
        return " or ".join(str(one.value) for one in takes)
    if typing.get_origin(takes) is typing.Literal:
        return " or ".join(map(str, typing.get_args(takes)))
    inside = [_value(one) for one in typing.get_args(takes) if one is not type(None)]
    return {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH"}.get(takes, inside[0] if inside else "")


def _default(option: Any) -> str:
    if option.required:
        return "required"
    shown = option.default
    return "" if option.is_flag or shown is None or callable(shown) else code(str(shown))


def _sentence(text: str | None) -> str:
    return (text or "").strip()
