"""Progress of long work: one display with the time that is left on a terminal, and elsewhere a line a minute at most.

Work is nested: a table is made of parts, a part of images. The outermost `track` owns the display; what is done inside
it counts as a fraction of the step under way, so that the bar moves and the time left is told also within one long
part. A process that another one started, such as a worker of Dask, shows nothing: several displays on one terminal
would overwrite each other.
"""

import multiprocessing
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from curate.text import visible_line

PLAIN_INTERVAL = 60.0
"""Seconds between lines where there is no terminal, counted over all work of the process."""
_BESIDE_LABEL = 50
"""Characters of a terminal's line that the label leaves to the rest."""


class Advance(Protocol):
    """Reports that `steps` more steps are done; `note` is a short text that is shown beside them."""

    def __call__(self, steps: int = 1, /, *, note: str = "") -> None: ...


@dataclass
class _Work:
    """One `track` that is open."""

    label: str
    total: int
    done: float
    unit: str
    note: str = ""
    inside: "list[_Work]" = field(default_factory=list)
    """What is open within it."""
    furthest: float = 0.0

    def position(self) -> float:
        """Steps that are done, with the part of the next one that is; it never goes back."""
        under_way = sum(one.position() / one.total for one in self.inside if one.total)
        self.furthest = max(self.furthest, self.done + min(under_way, 1.0))
        return self.furthest

    def shown(self) -> "_Work":
        """What is counted for people: of a single step what is done within it."""
        return self.inside[0].shown() if self.total <= 1 and self.inside and self.inside[0].total else self

    def told(self) -> str:
        """The note of the innermost work that has one."""
        return next((note for one in reversed(self.inside) if (note := one.told())), self.note)

    def count(self) -> str:
        """`512/2,120 images`."""
        whole = f"/{self.total:,}" if self.total else ""
        return f"{int(self.done):,}{whole} {self.unit}".rstrip()


class _Shown:
    """What this process shows; there is one display at most."""

    outermost: _Work | None = None
    refresh: Callable[[], None] = staticmethod(lambda: None)
    silent: bool = False
    step: str = ""
    last: float | None = None
    """When the last line was printed, or the first work began."""


def be_silent(silent: bool = True) -> None:
    """Show no progress from now on."""
    _Shown.silent = silent


@contextmanager
def at_step(number: int, total: int) -> Iterator[None]:
    """Say which step of a whole the work within belongs to, such as the third table of 38."""
    before, _Shown.step = _Shown.step, f"[{number}/{total}] " if total > 1 else ""
    try:
        yield
    finally:
        _Shown.step = before


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
    if not show or _Shown.silent or multiprocessing.parent_process() is not None:
        yield lambda _steps=1, /, *, note="": None
        return
    work = _Work(visible_line(label), total, done, unit)

    def advance(steps: int = 1, /, *, note: str = "") -> None:
        work.done += steps
        work.note = visible_line(note) or work.note
        _Shown.refresh()

    outer = _Shown.outermost
    if outer is not None:
        outer = _innermost(outer)
        outer.inside.append(work)
        try:
            yield advance
        finally:
            outer.inside.remove(work)
        return
    _Shown.outermost = work
    try:
        with _bar(work) if sys.stderr.isatty() else _lines(work) as _Shown.refresh:
            yield advance
    finally:
        _Shown.outermost, _Shown.refresh = None, lambda: None


def _innermost(work: _Work) -> _Work:
    return _innermost(work.inside[-1]) if work.inside else work


@contextmanager
def _bar(work: _Work) -> Iterator[Callable[[], None]]:
    # Imported here, since modules that only may show progress are imported by commands that print a line and end.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Column

    def text(name: str, overflow: Any = "ignore") -> Any:
        column = Column(no_wrap=True, overflow=overflow)
        return TextColumn(f"{{task.fields[{name}]}}", markup=False, table_column=column)

    width = shutil.get_terminal_size().columns
    room = max(width - _BESIDE_LABEL, 16)

    def fields() -> dict[str, Any]:
        label = _Shown.step + work.label
        label = label if len(label) <= room else f"{label[: room - 1]}…"
        return {"label": label, "count": work.shown().count(), "note": work.told()}

    columns: list[Any] = [text("label"), BarColumn(bar_width=12 if width >= 80 else 6), text("count")]
    columns += [TimeElapsedColumn()] if width >= 80 else []
    columns += [TimeRemainingColumn(), TextColumn("left")] if work.total else []
    columns += [text("note", "ellipsis")]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=work.total or None, **fields())
        yield lambda: bars.update(task, completed=work.position(), **fields())


@contextmanager
def _lines(work: _Work) -> Iterator[Callable[[], None]]:
    """A line when a minute has passed since the last one, of whatever work it was."""
    start, before = time.monotonic(), work.position()
    _Shown.last = start if _Shown.last is None else _Shown.last

    def refresh() -> None:
        now = time.monotonic()
        if _Shown.last is not None and now - _Shown.last >= PLAIN_INTERVAL:
            _Shown.last = now
            moved = work.position() - before
            left = (now - start) * (work.total - work.position()) / moved if work.total and moved > 0 else None
            told = [work.shown().count(), *([] if left is None else [f"{_duration(left)} left"]), work.told()]
            print(f"{_Shown.step}{work.label}: {', '.join(filter(None, told))}", file=sys.stderr, flush=True)

    yield refresh


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
