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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
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


@dataclass
class _Whole:
    """Several steps of which it is known about how long each takes beside the others.

    What is expected comes from rates of some machine, so it is held against the clock: the steps that were made so far
    say how much longer everything takes here.
    """

    expected: Mapping[str, float]
    """Seconds by step."""
    worked: float = 0.0
    """Seconds that finished steps took; those that were there already do not count."""
    worked_expected: float = 0.0
    """Seconds that were expected of these."""
    current: float = 0.0
    """Seconds that are expected of the step under way."""
    after: float = 0.0
    """Seconds that are expected of those after it."""
    began: float = 0.0
    """When the step under way began."""

    def begin(self, number: int, names: Sequence[str], began: float) -> None:
        self.current, *after = [self.expected.get(name, 0.0) for name in names[number - 1 :]]
        self.after, self.began = sum(after), began

    def end(self) -> None:
        took = time.monotonic() - self.began
        if took >= _WORKED:
            self.worked, self.worked_expected = self.worked + took, self.worked_expected + self.current

    def left(self, of_work: float | None) -> float:
        """Seconds until all is done.

        Args:
            of_work: until the work under way is, which may be a part of its step; None: nobody knows.
        """
        pace = self.worked / self.worked_expected if self.worked >= _TELLING and self.worked_expected else 1.0
        of_step = pace * self.current - (time.monotonic() - self.began)
        return max(of_work or 0.0, of_step, 0.0) + pace * self.after


_WORKED = 0.2
"""Seconds from which on a step counts as one that was made."""
_TELLING = 2.0
"""Seconds of work from which on the pace of this machine is known."""


class _Shown:
    """What this process shows; there is one display at most."""

    outermost: _Work | None = None
    refresh: Callable[[], None] = staticmethod(lambda: None)
    silent: bool = False
    step: str = ""
    last: float | None = None
    """When the last line was printed, or the first work began."""
    expect: Callable[[], Mapping[str, float]] | None = None
    whole: _Whole | None = None
    begin: Callable[[], None] = staticmethod(lambda: None)
    """Begins the step under way, where `whole` is not known yet."""


def be_silent(silent: bool = True) -> None:
    """Show no progress from now on."""
    _Shown.silent = silent


@contextmanager
def expecting(find: Callable[[], Mapping[str, float]]) -> Iterator[None]:
    """Tell the time that is left of all steps of the work within, not of the one under way alone.

    Args:
        find: about how many seconds each step takes, by its name; called after the first one, which lists what there is
            to do, and only where there is work to show.
    """
    _Shown.expect = find
    try:
        yield
    finally:
        _Shown.expect = _Shown.whole = None


@contextmanager
def at_step(number: int, names: Sequence[str]) -> Iterator[None]:
    """Say which step of a whole the work within belongs to, such as the third table of 38.

    Args:
        number: from 1 on.
        names: of all steps.
    """
    _Shown.step = f"[{number}/{len(names)}] " if len(names) > 1 else ""
    _Shown.begin = partial(_begin, number, names, time.monotonic())
    if _Shown.whole is not None:
        _Shown.begin()
    try:
        yield
    finally:
        _Shown.step, _Shown.begin = "", lambda: None
        if _Shown.whole is not None:
            _Shown.whole.end()


def _begin(number: int, names: Sequence[str], began: float) -> None:
    """Begin a step of the whole; what to expect of that is asked in the first step that has work to show."""
    if _Shown.whole is None and _Shown.expect is not None and number > 1:
        _Shown.whole = _Whole(_Shown.expect())
    if _Shown.whole is not None:
        _Shown.whole.begin(number, names, began)


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
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    def text(name: str, overflow: Any = "ignore") -> Any:
        column = Column(no_wrap=True, overflow=overflow)
        return TextColumn(f"{{task.fields[{name}]}}", markup=False, table_column=column)

    width = shutil.get_terminal_size().columns
    room = max(width - _BESIDE_LABEL, 16)

    def fields() -> dict[str, Any]:
        label = _Shown.step + work.label
        label = label if len(label) <= room else f"{label[: room - 1]}…"
        return {"label": label, "count": work.shown().count(), "left": left(), "note": work.told()}

    columns: list[Any] = [text("label"), BarColumn(bar_width=12 if width >= 80 else 6), text("count")]
    columns += [TimeElapsedColumn()] if width >= 80 else []
    columns += [text("left"), text("note", "ellipsis")]
    left = _left_of(work)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=work.total or None, **fields())
        yield lambda: bars.update(task, completed=work.position(), **fields())


@contextmanager
def _lines(work: _Work) -> Iterator[Callable[[], None]]:
    """A line when a minute has passed since the last one, of whatever work it was."""
    _Shown.last = time.monotonic() if _Shown.last is None else _Shown.last
    left = _left_of(work)

    def refresh() -> None:
        now = time.monotonic()
        if _Shown.last is not None and now - _Shown.last >= PLAIN_INTERVAL:
            _Shown.last = now
            told = filter(None, [work.shown().count(), left(), work.told()])
            print(f"{_Shown.step}{work.label}: {', '.join(told)}", file=sys.stderr, flush=True)

    yield refresh


def _left_of(work: _Work) -> Callable[[], str]:
    """What tells how much time is left, of the whole where that is known; empty where nobody knows."""
    start, before = time.monotonic(), work.position()
    if _Shown.whole is None:
        _Shown.begin()

    def left() -> str:
        moved = work.position() - before
        to_go = work.total - work.position()
        alone = (time.monotonic() - start) * to_go / moved if work.total and moved > 0 else None
        if _Shown.whole is not None:
            return f"{_duration(_Shown.whole.left(alone))} left"
        return "" if alone is None else f"{_duration(alone)} left{' in this step' if _Shown.step else ''}"

    return left


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
