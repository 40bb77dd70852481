"""Every command of the documents is one that the program takes, with keys that its config has."""

import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest
import typer.main

from curate.api import AUTO
from curate.cli import app
from curate.config import apply_overrides, parse, read_yaml
from curate.evaluation.settings import split_config
from curate.recipe import load_config
from curate.trainer.config import TrainConfig
from tests.docs.blocks import Block, blocks, commands

NEEDS = {"OpenSSH", "a checkout", "a Dask cluster", "docker", "GPUs", "kubernetes", "network", "slurm"}
SHELL = blocks("sh")
ROLES = ("pool", "curated", "heldout")


def name_of(block: Block) -> str:
    return f"{block.page}:{block.line}"


def leaves(command: Any) -> Iterator[Any]:
    inside = getattr(command, "commands", None)
    if inside is None:
        yield command
    else:
        for one in inside.values():
            yield from leaves(one)


@cache
def program() -> tuple[Any, list[tuple[str, Mapping[str, Any]]]]:
    """The tree of commands, none of which does anything, and what each was called with."""
    tree, seen = typer.main.get_command(app), list[tuple[str, Mapping[str, Any]]]()
    for leaf in leaves(tree):
        leaf.callback = lambda name=leaf.name, **values: seen.append((name, values))
    return tree, seen


def given(words: list[str]) -> tuple[str, Mapping[str, Any]] | None:
    """What the program would do with these words: its command, with its parameters; None: it only tells."""
    assert "--install-completion" not in words, "parsing it changes the shell of whoever runs the tests"
    tree, seen = program()
    seen.clear()
    tree.main(words, prog_name="curate", standalone_mode=False)
    return seen[0] if seen else None


def check_config(command: str, values: Mapping[str, Any]) -> None:
    """Read the config of a command with all that it sets."""
    overrides = [*(values.get("overrides") or [])]
    if command == "run":
        overrides += [f"sources.{role}={path}" for role in ROLES for path in values.get(role) or ()]
    if command in {"run", "plan"} and not values["config"].startswith("my-"):
        load_config(values["config"], overrides)
    elif command == "train":
        overrides += [f"{key}={values[key]}" for key in ("shards", "output") if values.get(key)]
        begun = {} if values["config"] == AUTO else read_yaml(values["config"])
        settings, _ = split_config(apply_overrides(begun, overrides), where=command)
        parse(TrainConfig, settings, where=command)


def test_every_block_of_shell_says_how_it_is_tested() -> None:
    untold = [name_of(b) for b in SHELL if not (b.is_run or b.marker == "parse" or b.marker.startswith("needs: "))]
    assert untold == []
    assert {b.marker.removeprefix("needs: ") for b in SHELL if b.marker.startswith("needs: ")} <= NEEDS


@pytest.mark.parametrize("block", SHELL, ids=name_of)
def test_block_is_shell_and_its_commands_are_accepted(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    found = [words for line in block.lines for words in commands(line)]
    for words in found:
        asked = given([word.replace("...", "PATH") for word in words])
        if asked is not None:
            check_config(*asked)


def test_a_key_that_does_not_exist_would_be_found() -> None:
    asked = given(["run", "dedup", "sources.pool=POOL", "copies.treshold=auto"])
    assert asked is not None
    with pytest.raises(Exception, match=r"copies\.treshold: unknown key; did you mean 'threshold'"):
        check_config(*asked)


def test_commands_are_found_behind_pipes_variables_and_containers() -> None:
    assert commands("HOME=/tmp curate list R --paths0 | xargs -0 ls") == [["list", "R", "--paths0"]]
    assert commands("docker run --rm curate:cpu run dedup && .venv/bin/curate status R") == [
        ["run", "dedup"],
        ["status", "R"],
    ]
    assert commands("torchrun --nproc-per-node 8 --no-python curate train C a='{b: 1}'") == [["train", "C", "a={b: 1}"]]
    assert commands("make install") == []


@pytest.mark.parametrize("block", blocks("python"), ids=name_of)
def test_block_is_python(block: Block) -> None:
    compile(block.text, name_of(block), "exec")
