"""What `curate run` says at its end: what became of the images, where the result lies, what to do next."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from curate import command
from curate.cli.consoles import say, show_facts

if TYPE_CHECKING:
    from curate.engine.finished import Finished
    from curate.running import Outcome

MAX_REASONS = 5
"""Reasons and kinds of evidence that are named on their line."""
SPOKEN = {"heldout": "held-out"}


def say_outcome(outcome: "Outcome", *, quiet: bool, verbose: bool) -> None:
    """Print what a run has made.

    Args:
        quiet: the path of the report alone.
        verbose: also the names of the tables that changed.
    """
    from curate.engine.store import Store
    from curate.workdir import open_tables

    if quiet:
        say(near(outcome.report))
        return
    run = open_tables(Store(outcome.config.workdir))
    workdir = near(outcome.config.workdir)
    say(workdir if outcome.changed else f"{workdir}: nothing to do, every table is there")
    show_facts([*_images(run), *_results(run, outcome)])
    if verbose and outcome.changed:
        say(f"made: {', '.join(outcome.changed)}")
    if outcome.checks:
        say("Look at this first:")
        for text in outcome.checks:
            say(f"- {text}")
    say("Next:")
    for line, does in next_commands(run, workdir):
        say(f"  {line}  # {does}")


def next_commands(run: "Finished", workdir: str) -> Iterator[tuple[str, str]]:
    """(command, what it does) of what a person does after such a run, of the commands that there are."""
    from curate.cli import COMMANDS
    from curate.stages.copies.deduplicate import Deduplicate
    from curate.stages.selection.write_shards import WriteShards

    def known(name: str, *words: str, does: str) -> Iterator[tuple[str, str]]:
        if name in COMMANDS:
            yield command.line(name, workdir, *words), does

    yield from known("report", "--open", does="the report, in a browser")
    if run.only(Deduplicate) is not None:
        yield from known("list", "--dropped", does="which images were kept out, why, and as copies of which")
        yield from known("review", does="look at the groups side by side and decide otherwise")
        yield from known("sweep", does="what other thresholds would keep out")
    if run.only(WriteShards) is not None:
        output = f"runs/tiny-{workdir.rstrip('/').rpartition('/')[2]}"
        yield command.line("train", "train/tiny", "--shards", workdir, "--output", output), "pretrain on the shards"
    if run.recipe == "pretrain":
        yield command.line("run", "dedup", "--pool", "FOLDER"), "the same with pictures of your own"


def _images(run: "Finished") -> Iterator[tuple[str, str]]:
    """What became of the images of the pool."""
    from curate.engine.numbers import count, plural
    from curate.stages.copies.deduplicate import EVIDENCE, Deduplicate, DeduplicateFigures
    from curate.stages.images.inspect import Inspect, InspectFigures
    from curate.stages.screening.screen import Screen, ScreenFigures
    from curate.stages.screening.telling import WITH_COPIES, kept_out
    from curate.stages.selection.select import Select
    from curate.tables import ROLES

    counts = [(SPOKEN.get(role, role), run.parts.num_images([role])) for role in ROLES[1:]]
    others = ", ".join(f"{count(number)} {role}" for role, number in counts if number)
    yield "listed", f"{plural(run.parts.num_images(['pool']), 'image')} of the pool{f'; {others}' if others else ''}"
    if (inspected := run.only(Inspect)) is not None:
        found = InspectFigures.of(inspected[1])
        away = sum(found.unavailable.values())
        yield "unavailable", f"{count(away)}; the same command reads these again" if away else "none"
        yield "rejected", _counted(found.rejected_of("pool").most_common())
    if (screened := run.only(Screen)) is not None:
        by_rule = kept_out(ScreenFigures.of(screened[1]).rejected, run)
        spoken = {WITH_COPIES: "with a copy of theirs"}
        yield "screened", _counted([(spoken.get(reason, reason), number) for reason, number in by_rule.items()])
    if (deduplicated := run.only(Deduplicate)) is not None:
        verdicts = DeduplicateFigures.of(deduplicated[1])
        kinds: dict[str, int] = {}
        for evidence in verdicts.copies_by_evidence.values():
            for kind, number in evidence.items():
                kinds[EVIDENCE.get(kind, kind)] = kinds.get(EVIDENCE.get(kind, kind), 0) + number
        yield "copies", _counted(sorted(kinds.items(), key=lambda one: -one[1]))
        if run.parts.num_images(["heldout"]):
            yield "contaminated", f"{count(verdicts.benchmark)} kept out: their groups touch a held-out image"
        yield "kept", plural(verdicts.kept, "image")
    if (selected := run.only(Select)) is not None:
        yield "selected", plural(selected[1].num_rows(), "image")


def _results(run: "Finished", outcome: "Outcome") -> Iterator[tuple[str, str]]:
    """Where the result lies, and how long it took."""
    from curate.engine.numbers import plural, seconds, size
    from curate.stages.selection.write_shards import ShardFigures, WriteShards

    if (written := run.only(WriteShards)) is not None:
        parts, num_bytes = written[1].parts(), ShardFigures.of(written[1]).num_bytes
        place = near(run.store.join(written[1].name))
        yield "shards", f"{plural(len(parts), 'file')}, {size(num_bytes)}: {place}"
    yield "report", near(outcome.report)
    yield "time", seconds(outcome.seconds)


def near(path: str) -> str:
    """A path as it is written from here: without the current directory before it."""
    found = Path(path)
    return os.path.relpath(path) if found.is_absolute() and found.is_relative_to(Path.cwd()) else path


def _counted(reasons: Sequence[tuple[str, int]]) -> str:
    """How many, and of each reason."""
    if not reasons:
        return "none"
    named = [f"{number:,} {reason.replace('_', ' ')}" for reason, number in reasons[:MAX_REASONS]]
    more = [f"{sum(number for _, number in reasons[MAX_REASONS:]):,} more"] if len(reasons) > MAX_REASONS else []
    return f"{sum(number for _, number in reasons):,} ({'; '.join([*named, *more])})"
