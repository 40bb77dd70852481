"""`curate doctor`: is this machine fit for a run, and are its sources and weights there?"""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from curate.cli.arguments import Curated, Heldout, Json, NewWorkdir, Overrides, Pool
from curate.cli.consoles import console, fold, say_json, width
from curate.cli.loading import load_run
from curate.text import visible_line

COLORS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    config: Annotated[
        str | None, typer.Argument(help="config of the run that is meant; none: the machine alone")
    ] = None,
    overrides: Overrides = None,
    pool: Pool = None,
    heldout: Heldout = None,
    curated: Curated = None,
    workdir: NewWorkdir = None,
    json_: Json = False,
) -> None:
    """Look whether a run would work here: versions, processor, GPU, memory, disk, sources, weights.

    Exit status: 0 a run would work; 1 something would stop it.

    Examples:
        curate doctor
        # also sources, weights and workdir of a run
        curate doctor dedup --pool photos
        curate doctor my.yaml
    """
    from curate.doctor import examine

    sources = {"pool": pool, "heldout": heldout, "curated": curated}
    loaded = None if config is None else load_run(config, overrides, sources, workdir)
    findings = []
    for found in examine(loaded):
        findings.append(found)
        if not json_:
            _show(found.topic, found.state, found.text, found.advice)
    if json_:
        say_json(json.dumps([asdict(one) for one in findings], indent=2))
    if any(one.state == "fail" for one in findings):
        raise typer.Exit(1)


def _show(topic: str, state: str, text: str, advice: str) -> None:
    """A line of what was found, and one of what to do; on a narrow terminal more."""
    from rich.text import Text

    lines = fold(visible_line(text), max(width() - 28, 30))
    lines += [f"-> {line}" if number == 0 else f"   {line}" for number, line in enumerate(_advised(advice))]
    head = Text.assemble((f"{state:<5}", COLORS[state]), f" {topic:<20} ")
    for number, line in enumerate(lines):
        console().print(head + Text(line) if number == 0 else Text(f"{'':<27}{line}"), soft_wrap=True)


def _advised(advice: str) -> list[str]:
    return fold(visible_line(advice), max(width() - 31, 30)) if advice else []
