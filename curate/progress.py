"""Progress of long work: a rich bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from curate.text import visible_line

if TYPE_CHECKING:
    from rich.progress import Progress

PLAIN_INTERVAL = 10.0
"""Seconds between plain lines."""


class Advance(Protocol):
    """Reports that `steps` more steps are done; `note` is a short text that is shown beside the bar."""

    def __call__(self, steps: int = 1, /, *, note: str = "") -> None: ...


_shown: "Progress | None" = None
"""The bars on the terminal; a `track` inside another one adds a bar to them."""


@contextmanager
def track(label: str, total: int, *, done: int = 0, unit: str = "", show: bool = True) -> Iterator[Advance]:
    """Show the progress of some work while the context is open.

    Args:
        label: what is being done.
        total: steps of the whole work; 0: unknown.
        done: steps that an earlier run has done.
        unit: what is counted, such as `images`.
        show: False in all processes but the one that reports.
    """
    if not show:
        yield lambda _steps=1, /, *, note="": None
        return
    if sys.stderr.isatty():
        with _bars() as bars:
            task = bars.add_task(visible_line(label), total=total or None, completed=done, unit=unit, note="")

            def advance(steps: int = 1, /, *, note: str = "") -> None:
                bars.update(task, advance=steps, note=visible_line(note))

            yield advance
            if bars.tasks[0].id != task:
                bars.remove_task(task)
        return
    yield _PlainProgress(label, total, done, unit)


@contextmanager
def _bars() -> "Iterator[Progress]":
    global _shown  # noqa: PLW0603  # a terminal shows one set of bars
    if _shown is not None:
        yield _shown
        return
    # Imported here, since modules that only may show progress are imported by commands that print a line and end.
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns) as _shown:
        try:
            yield _shown
        finally:
            _shown = None


class _PlainProgress:
    """Prints a line now and then, for log files and pipes."""

    def __init__(self, label: str, total: int, done: int, unit: str) -> None:
        self.label, self.total, self.done, self.unit = visible_line(label), total, done, unit
        self.last = time.monotonic()

    def __call__(self, steps: int = 1, /, *, note: str = "") -> None:
        self.done += steps
        now = time.monotonic()
        if now - self.last >= PLAIN_INTERVAL or (self.total and self.done >= self.total and steps):
            self.last = now
            count = f"{self.done}/{self.total}" if self.total else f"{self.done}"
            text = f"{self.label}: {count} {self.unit}".rstrip()
            print(f"{text}  {visible_line(note)}".rstrip(), file=sys.stderr, flush=True)
