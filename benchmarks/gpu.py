"""Whether the lines for a GPU are right and fast, in one command for whoever has a card for a few minutes.

    python -m benchmarks gpu --part faiss     searches, k-means, the join of inverted lists
    python -m benchmarks gpu --part torch     network, training step, resumed run, FSDP; rates and memory

Each part has two halves. The checks compare results with a reference that does not run on the GPU. The figures are
rates and times. Without a GPU the same checks run on the CPU, on small data, against other code for the same
mathematics, so that a fault of the checks themselves shows before anyone borrows a card.

A check or a measurement that raises is a fault like any other and stops none of those after it: one run tells of all
faults. What would begin after the time that a part may take is left out, and the output says so.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.figures import Figure, format_figures
from curate.cli.arguments import Json
from curate.errors import ConfigError
from curate.models.device import resolve_device

ROOT = f"{Path(__file__).parents[1]}/"
SECONDS = 330.0
"""Time after which a part begins no further measurement."""

PARTS = {"faiss": "benchmarks.gpu_faiss", "torch": "benchmarks.gpu_torch"}
"""A module for each part, imported alone: what one of them needs may be missing where the other runs."""


@dataclass(frozen=True)
class Check:
    """One comparison with a reference."""

    name: str
    largest_difference: float | None
    """None: the check could not be carried out."""
    tolerance: float
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the difference is a number within the tolerance."""
        return self.largest_difference is not None and self.largest_difference <= self.tolerance


@dataclass
class Findings:
    """What a part found on a device, in the order in which it was found."""

    device: torch.device
    part: str
    seconds: float = SECONDS
    checks: list[Check] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """What there was no time or no GPU for."""
    start: float = field(default_factory=time.monotonic)

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    @property
    def device_name(self) -> str:
        """The name of the card, or cpu."""
        return torch.cuda.get_device_name(self.device) if self.on_gpu else "cpu"

    @property
    def faults(self) -> list[str]:
        """A line for each check that failed."""
        return [
            f"{check.name}: largest difference {_number(check.largest_difference)}, tolerance {check.tolerance:g}"
            + (f"; {check.note}" if check.note else "")
            for check in self.checks
            if not check.ok
        ]

    @contextmanager
    def guarded(self, name: str, tolerance: float = 0.0) -> Iterator[None]:
        """Record an error of the block as a check that failed, and go on after it."""
        try:
            yield
        except Exception as error:
            ours = [place for place in traceback.extract_tb(error.__traceback__) if place.filename.startswith(ROOT)]
            place = f"{ours[-1].filename.removeprefix(ROOT)}, line {ours[-1].lineno}"
            self.checks.append(Check(name, None, tolerance, f"{type(error).__name__}: {error} ({place})"))

    def check(self, name: str, difference: Callable[[], float], *, tolerance: float) -> None:
        """Carry out one comparison; `difference` gives the largest difference from its reference."""
        with self.guarded(name, tolerance):
            self.checks.append(Check(name, float(difference()), tolerance))

    def measure(self, name: str, figures: Callable[[], Sequence[Figure]]) -> None:
        """Take some figures, if there is time left."""
        if time.monotonic() - self.start > self.seconds:
            self.left_out.append(f"{name}: no time left")
            return
        with self.guarded(name):
            self.figures += figures()

    def as_json(self) -> str:
        """The findings for programs."""
        checks = [{**asdict(check), "ok": check.ok} for check in self.checks]
        figures = [asdict(figure) | {"ratio": figure.ratio} for figure in self.figures]
        told = {
            "device": self.device_name,
            "part": self.part,
            "torch": torch.__version__,
            "seconds": round(time.monotonic() - self.start, 1),
            "checks": checks,
            "figures": figures,
            "left_out": self.left_out,
        }
        return json.dumps(told, indent=2)

    def as_text(self) -> str:
        """The findings as text."""
        lines = [f"part {self.part} on {self.device_name}, torch {torch.__version__}"]
        if not self.on_gpu:
            lines.append("no GPU here: the checks ran on the CPU, and the figures are those of the CPU")
        width = max((len(check.name) for check in self.checks), default=0)
        lines += [
            f"  {'ok   ' if check.ok else 'FAULT'} {check.name:<{width}}  "
            f"difference {_number(check.largest_difference)}, tolerance {check.tolerance:g}"
            for check in self.checks
        ]
        lines += [f"  left out: {reason}" for reason in self.left_out]
        return "\n".join([*lines, format_figures(self.figures)] if self.figures else lines)


def _number(value: float | None) -> str:
    return "none, it could not be measured" if value is None else f"{value:.3g}"


def median_seconds(work: Callable[[], object], device: torch.device, *, repeats: int = 3) -> float:
    """Seconds of a run of `work`, the median of some after one to warm up; what was queued on a GPU is waited for."""
    seconds = []
    for _ in range(1 + repeats):
        wait_for(device)
        start = time.perf_counter()
        work()
        wait_for(device)
        seconds.append(time.perf_counter() - start)
    return sorted(seconds[1:])[repeats // 2]


def wait_for(device: torch.device) -> None:
    """Return when everything that was queued on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def libraries_print_to_stderr() -> Iterator[None]:
    """Keep standard output for the findings: gloo, below torch, prints its connections there, past `sys.stdout`."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


def command(
    part: Annotated[str, typer.Option(help="faiss: searches, k-means, the join; torch: network, trainer")],
    seconds: Annotated[float, typer.Option(help="time after which no further measurement begins")] = SECONDS,
    json_: Json = False,
) -> None:
    """Results on a GPU beside those of the CPU, and rates and memory there; fails with a list of the faults."""
    if part not in PARTS:
        raise ConfigError(f"--part {part}: needed is one of {', '.join(PARTS)}")
    findings = Findings(resolve_device("auto"), part, seconds)
    with libraries_print_to_stderr():
        import_module(PARTS[part]).examine(findings)
    typer.echo(findings.as_json() if json_ else findings.as_text())
    for fault in findings.faults:
        typer.echo(f"fault: {fault}", err=True)
    if findings.faults:
        sys.exit(1)
