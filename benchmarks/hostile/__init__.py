"""What strangers may send: several hundred hostile inputs, and what a user sees of each.

Every input is made from a seed, in a temporary folder, of bytes of its own, and is met by the commands that a user
would call, in a child process that is watched (`watch`). An input *crashes* a command that ends by a signal or with a
traceback; it *hangs* one that takes more than 30 seconds, or that has to be killed since it fills memory or disk. A
result is *wrong* where the verdict, the exit status or the message is not one of those that are right (`case`), where a
good picture beside it is lost, or where a secret, a request or a control character gets out.
"""

import json
import sys
from typing import Annotated

import typer

from curate.cli.arguments import Json


def command(
    only: Annotated[list[str] | None, typer.Option(help="families to run; none: all")] = None,
    name: Annotated[str, typer.Option(help="inputs alone whose names hold this")] = "",
    seed: Annotated[int, typer.Option(help="seed of all inputs")] = 0,
    verbose: Annotated[bool, typer.Option("--verbose", help="tell of each run as it ends")] = False,
    json_: Json = False,
) -> None:
    """Hostile inputs (pictures, archives, tables, URLs, weights): crashes, hangs, wrong verdicts, peak memory."""
    from benchmarks.hostile.bench import Outcome, bench
    from benchmarks.hostile.families import choose
    from benchmarks.hostile.watch import Watched

    def tell(outcome: Outcome) -> None:
        if verbose:
            cost = f"{outcome.seconds:.1f} s, {outcome.peak_bytes >> 20} MiB"
            print(
                f"{outcome.family}/{outcome.name}: {outcome.how}, {cost}", *outcome.wrong, sep="\n    ", file=sys.stderr
            )

    with choose(only or [], seed=seed, name=name) as families, Watched() as watched:
        result = bench(families, seed=seed, watched=watched, tell=tell)
    print(json.dumps(result.as_json(), indent=2) if json_ else result.as_text())
    if result.crashes() or result.hangs() or result.wrong():
        raise typer.Exit(1)
