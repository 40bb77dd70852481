"""What `--help` prints: plain text that follows the width of the terminal, with headings in bold on one.

The docstring of a command is its help: the first paragraph is what `curate --help` says of it, and the indented lines
under `Examples:` are shown as they stand, so that they can be copied.
"""

import os
import shutil
import sys
import textwrap
import typing
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

WIDTH = 100
"""Characters of a line at most, and where the output is no terminal."""
_NARROW = 32
"""Characters of the first column at most; what is longer has its text below."""
EXAMPLES = "Examples:"
GROUPS = {
    "Find and look": ("run", "list", "review", "report", "explain", "status"),
    "Change": ("sweep", "write", "clean", "config", "init"),
    "Train": ("train", "eval", "visualize", "export", "models"),
    "Check": ("doctor", "plan", "verify", "sign", "samples"),
}
"""Headings of `curate --help`; a command that stands nowhere comes last."""
_WORDS: dict[Any, str] = {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH"}


class Command(TyperCommand):
    """A command whose help is ours."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        formatter.write(_page(ctx, self))


class Group(TyperGroup):
    """A group of commands whose help is ours."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        formatter.write(_page(ctx, self))


def parts_of(text: str) -> tuple[list[str], list[str]]:
    """Paragraphs of a command's help, and the lines of its examples."""
    told, _, examples = text.replace("\f", "").partition(EXAMPLES)
    lines = textwrap.dedent(examples.strip("\n")).splitlines()
    return [" ".join(part.split()) for part in told.strip().split("\n\n") if part.strip()], lines


def _page(ctx: Any, command: Any) -> str:
    width = min(shutil.get_terminal_size((WIDTH, 0)).columns, WIDTH)
    paragraphs, examples = parts_of(command.help or "")
    shown = [one for one in command.get_params(ctx) if not getattr(one, "hidden", False)]
    arguments = [one for one in shown if one.param_type_name == "argument"]
    options = [one for one in shown if one.param_type_name == "option"]
    lines = ["", *_wrapped(" ".join([_bold("Usage:"), ctx.command_path, *_usage(command, arguments, options)]), width)]
    for text in paragraphs:
        lines += ["", *_wrapped(text, width)]
    if examples:
        lines += ["", _bold("Examples"), *(f"  {line}".rstrip() for line in examples)]
    inside: dict[str, Any] = getattr(command, "commands", {})
    for heading, names in _grouped(inside):
        lines += ["", _bold(heading), *_columns(((name, _first(inside[name])) for name in names), width)]
    if arguments:
        lines += ["", _bold("Arguments"), *_columns(((_metavar(one), _meaning(one)) for one in arguments), width)]
    if options:
        takes = typing.get_type_hints(command.callback) if command.callback else {}
        lines += ["", _bold("Options"), *_columns(((_names(one, takes), _meaning(one)) for one in options), width)]
    return "\n".join([*lines, ""])


def _usage(command: Any, arguments: list[Any], options: list[Any]) -> Iterator[str]:
    for one in arguments:
        name = _metavar(one)
        many = "..." if one.nargs == -1 else ""
        yield f"{name}{many}" if one.required else f"[{name}]{many}"
    if options:
        yield "[OPTIONS]"
    if hasattr(command, "commands"):
        yield "COMMAND ..."


def _grouped(commands: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    there = [name for name, one in commands.items() if not one.hidden]
    placed = {name for names in GROUPS.values() for name in names}
    if not placed & set(there):
        yield from [("Commands", there)] if there else []
        return
    for heading, names in GROUPS.items():
        yield heading, [name for name in names if name in there]
    others = [name for name in there if name not in placed]
    yield from [("More", others)] if others else []


def _first(command: Any) -> str:
    """What a command does, in one line of its help."""
    return next(iter(parts_of(command.help or "")[0]), "")


def _metavar(argument: Any) -> str:
    return str(argument.metavar or argument.name or "").upper()


def _names(option: Any, takes: dict[str, Any]) -> str:
    names = [*sorted(option.opts, key=len), *option.secondary_opts]
    value = "" if option.is_flag or option.is_eager else option.metavar or _word(takes.get(option.name))
    return f"{', '.join(names)} {value}".rstrip()


def _word(kind: Any) -> str:
    """What stands for a value of this type."""
    if kind in _WORDS:
        return _WORDS[kind]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(one.value) for one in kind)
    if typing.get_origin(kind) is typing.Literal:
        return "|".join(map(str, typing.get_args(kind)))
    return next((word for one in typing.get_args(kind) if (word := _word(one))), "")


def _meaning(param: Any) -> str:
    text = str(param.help or "").strip()
    text = f"{text[:1].upper()}{text[1:]}" if text[:1].islower() and text.split()[0].isalpha() else text
    text = text if text.endswith((".", ")", ":")) or not text else f"{text}."
    default = None if param.param_type_name == "argument" or param.is_flag or param.is_eager else param.default
    if param.required and param.param_type_name == "option":
        return f"{text} [required]"
    return text if default in (None, "", ()) or callable(default) else f"{text} [default: {default}]"


def _columns(rows: Iterable[tuple[str, str]], width: int) -> Iterator[str]:
    """Names, and beside them what they mean; on a narrow terminal below them."""
    told = list(rows)
    left = max((len(name) for name, _ in told if len(name) <= _NARROW), default=0) + 2
    left = left if width >= 72 else 4
    for name, meaning in told:
        lines = textwrap.wrap(meaning, max(width - left - 2, 20), break_on_hyphens=False, break_long_words=False) or [
            ""
        ]
        if len(name) + 2 <= left:
            yield f"  {_colored(name)}{' ' * (left - len(name))}{lines[0]}".rstrip()
            lines = lines[1:]
        else:
            yield f"  {_colored(name)}"
        yield from (f"  {' ' * left}{line}" for line in lines)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False, subsequent_indent="")


def _bold(text: str) -> str:
    return typer.style(text, bold=True) if _styled() else text


def _colored(text: str) -> str:
    return typer.style(text, fg="cyan") if _styled() else text


def _styled() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
