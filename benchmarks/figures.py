"""Figures of a benchmark, each beside its peer: one table for people, the same as JSON for programs."""

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

PEAK_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes of one `ru_maxrss`."""


@dataclass(frozen=True)
class Figure:
    """One measured number, and what it stands beside in the same run."""

    name: str
    value: float
    unit: str
    peer: str = ""
    """What was measured beside it; empty: nothing."""
    peer_value: float | None = None
    """In the same unit."""
    better: Literal["higher", "lower"] = "higher"
    cpu_seconds: float | None = None
    peak_bytes: int | None = None
    """Largest resident memory of the process that did it."""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer; below 1: worse."""
        if self.peer_value is None or not self.value or not self.peer_value:
            return None
        return self.value / self.peer_value if self.better == "higher" else self.peer_value / self.value


@dataclass(frozen=True)
class Measured:
    """What a call returned, and what it cost."""

    result: Any
    seconds: float
    cpu_seconds: float
    """Of all threads and of finished child processes."""
    peak_bytes: int
    """Largest resident memory of the process, imports included."""


def measured(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Measured:
    """Call a module-level function in a process of its own, so that its memory is its own too."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, function, args, kwargs).result()


def _measure(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Measured:
    before, start = cpu_seconds(), time.perf_counter()
    result = function(*args, **kwargs)
    seconds = time.perf_counter() - start
    return Measured(result, seconds, cpu_seconds() - before, peak_memory())


def peak_memory() -> int:
    """Bytes of this process's largest resident memory so far."""
    status = Path("/proc/self/status")
    if status.exists():  # `ru_maxrss` of a fresh process may still be its parent's
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT


def cpu_seconds() -> float:
    """Of all threads of this process and of finished child processes, so far."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {"processor": processor(), "cores": os.cpu_count(), "python": platform.python_version()}


def processor() -> str:
    """Its name as Linux tells it, and where products may use AVX-512: ratios differ by both."""
    told = Path("/proc/cpuinfo")
    if not told.exists():
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in told.read_text().splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in facts.items()}
    name = named.get("model name", platform.machine())
    return f"{name} with AVX-512" if "avx512f" in named.get("flags", "") else name


def as_json(figures: Sequence[Figure]) -> str:
    """The figures and the machine, for programs such as `curate plan`."""
    rows = [asdict(figure) | {"ratio": figure.ratio} for figure in figures]
    return json.dumps({"machine": machine(), "figures": rows}, indent=2)


def format_figures(figures: Sequence[Figure]) -> str:
    """The figures as a table, one a line."""
    head = ("figure", "value", "unit", "peer", "its value", "ratio", "CPU s", "peak MiB", "note")
    rows = [head, *map(_cells, figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _cells(figure: Figure) -> tuple[str, ...]:
    peak = "" if figure.peak_bytes is None else f"{figure.peak_bytes / 2**20:,.0f}"
    numbers = (figure.peer_value, figure.ratio, figure.cpu_seconds)
    return (
        figure.name,
        f"{figure.value:,.4g}",
        figure.unit,
        figure.peer,
        *("" if number is None else f"{number:,.4g}" for number in numbers),
        peak,
        figure.note,
    )


def show(figures: Sequence[Figure], json_: bool, *, text: str | None = None) -> None:
    """Print the figures: as JSON for programs, else as `text`, or as their table where there is none."""
    print(as_json(figures) if json_ else f"{text or format_figures(figures)}\n\n{processor()}, {os.cpu_count()} cores")
