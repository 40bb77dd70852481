"""What `--help` prints: complete, in plain words, with examples that are commands, and as wide as the terminal."""

import itertools
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from curate import __version__
from curate.cli import COMMANDS, app
from curate.cli.help import GROUPS, parts_of

ROOT: Any = typer.main.get_command(app)


def below(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from below((*words, name), inner)


EVERY = dict(below((), ROOT))


def told(*words: str, columns: int = 100) -> str:
    found = CliRunner().invoke(app, words, env={"COLUMNS": str(columns)}, catch_exceptions=False)
    assert found.exit_code == 0
    return found.output


def test_the_version_is_told() -> None:
    assert told("--version") == f"curate {__version__}\n"


def test_every_command_stands_under_one_heading() -> None:
    page = told("-h")
    assert "\nMore\n" not in page
    lines = [line.split()[0] for line in page.splitlines() if line.startswith("  ") and line[2] != " "]
    for name in (*COMMANDS, "samples"):
        assert lines.count(name) == 1
    places = [page.index(f"\n{heading}\n") for heading in GROUPS]
    assert places == sorted(places)


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_help_follows_the_terminal_and_says_all(words: tuple[str, ...]) -> None:
    command = EVERY[words]
    _, examples = parts_of(command.help)
    for columns in (60, 100):
        page = told(*words, "-h", columns=columns)
        assert page == told(*words, "--help", columns=columns)
        assert "\x1b" not in page
        assert "<" not in page.replace("curate <", "")
        prose = [line for line in page.splitlines() if line.strip() not in {one.strip() for one in examples}]
        assert max(map(len, prose)) <= columns
        for one in command.params:
            if one.param_type_name == "option":
                assert all(
                    re.search(rf"(^|\s|,){re.escape(name)}\b", page) for name in (*one.opts, *one.secondary_opts)
                )
                assert one.help
            else:
                assert one.name.upper() in page or one.metavar in page


def commands_in(examples: list[str]) -> list[list[str]]:
    lines = [line.strip() for line in examples if line.strip() and not line.strip().startswith("#")]
    words = (shlex.split(line[line.index("curate ") :])[1:] for line in lines)
    return [list(itertools.takewhile(lambda word: word not in ("|", ">", "&&"), line)) for line in words]


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_examples_are_commands_that_parse(words: tuple[str, ...]) -> None:
    of_this = []
    for arguments in commands_in(parts_of(EVERY[words].help)[1]):
        command: Any = ROOT
        while hasattr(command, "commands"):
            place = arguments[0] in command.commands
            command = command.commands[arguments.pop(0) if place else "make"]
        with command.make_context("curate", arguments):
            pass
        of_this += [command is EVERY[words] or words in ((), ("samples",))]
    assert any(of_this)


def test_completion_of_a_config_names_the_bundled_ones() -> None:
    env = {"_CURATE_COMPLETE": "complete_bash", "COMP_WORDS": "curate run hier", "COMP_CWORD": "2"}
    found = CliRunner().invoke(app, [], prog_name="curate", env=env)
    assert found.output.split() == ["hierarchical"]
