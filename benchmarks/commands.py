"""What the light commands cost: CPU seconds and memory of those that only look, beside the imports that all need."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.figures import PEAK_UNIT, Figure, show
from curate.cli.arguments import Json

BASE = "import pyarrow.parquet, pydantic, typer"
"""What every command needs; the figures stand beside it."""
LAUNCH = """
import resource, subprocess, sys
ended = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(ended.returncode)
"""
"""Starts a command and tells what it took: Linux counts the memory of whoever starts a process as that process's own
peak, so a small one must start it."""
CURATE = "import sys; sys.argv[0] = 'curate'; from curate.cli import main; main()"


def bench_commands(config: str, workdir: Path, *, repeats: int = 3) -> list[Figure]:
    """The least CPU seconds of some calls of each command, each in a process of its own.

    Args:
        config: that of the finished run in `workdir`.
    """
    peer = _least([sys.executable, "-c", BASE], repeats)
    commands = {
        "--help": ["--help"],
        "status": ["status", str(workdir)],
        "explain": ["explain", str(workdir), "0"],
        "run --dry-run": ["run", config, f"workdir={workdir}", "--dry-run"],
        "run, nothing to do": ["run", config, f"workdir={workdir}"],
    }
    figures = []
    for name, arguments in commands.items():
        seconds, peak = _least([sys.executable, "-c", CURATE, *arguments], repeats)
        figures.append(Figure(name, seconds, "CPU s", peer=BASE, peer_value=peer[0], better="lower", peak_bytes=peak))
    return figures


def _least(command: list[str], repeats: int) -> tuple[float, int]:
    """CPU seconds and peak memory in bytes of the cheapest of `repeats` calls.

    Raises:
        CalledProcessError: a call failed.
    """
    found: list[tuple[float, int]] = []
    for _ in range(repeats):
        ran = subprocess.run([sys.executable, "-c", LAUNCH, *command], capture_output=True, check=False)
        if ran.returncode:
            raise subprocess.CalledProcessError(ran.returncode, command, stderr=ran.stderr)
        seconds, peak = ran.stdout.split()
        found.append((float(seconds), int(peak) * PEAK_UNIT))
    return min(found)


def command(
    workdir: Annotated[Path, typer.Argument(help="folder of a finished run")],
    config: Annotated[str, typer.Option(help="config of that run")] = "quickstart",
    repeats: Annotated[int, typer.Option(help="calls of each command, of which the cheapest counts")] = 3,
    json_: Json = False,
) -> None:
    """CPU seconds and memory of help, status, explain and dry runs, beside the imports that all commands need."""
    show(bench_commands(config, workdir, repeats=repeats), json_)
