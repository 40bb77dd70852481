"""What work costs below all stages: files opened, requests, bytes, CPU time and memory.

Laws of cost (`Stage.cost`) say what a stage should read and write. Whether it does can be seen only where the bytes
pass, so the counting happens in the file systems that sources and workdirs are opened by, and no stage knows of it:

    opens          files opened for reading; a whole object that is fetched at once counts as one
    requests       on an object store or web server each request sent, repeated ones too; on a disk what would be one:
                   a read that reaches the system, a file published, moved or removed, a listing, a look at a file
    bytes_read     that these reads gave
    bytes_written  of files published, and of lines added to a log

Counted are local files (`open_counted`), S3, HTTP(S) and Google Cloud; not Azure and file systems of other packages,
whose numbers stay 0. Local copies that a write to a store passes through are no work of the store and are left out.

CPU time is that of the process and of its children: those that have ended, and those that `count_children` names. Peak
memory is what the process held at most beside what it held before: the kernel's high-water mark (VmHWM), set back
through `/proc/self/clear_refs` when a meter starts. Where that cannot be written it is a lower bound, 0 for work that
took no more than other work before it. Memory of children is not in it; theirs is bounded by whoever starts them.

Meters nest, since one process may be the driver and perform the tasks: a meter does not count what one inside it does.
One process performs one task at a time, so the counters are those of the process, whatever thread reads.
"""

import io
import os
import resource
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

_PROC = Path("/proc/self")


@dataclass(frozen=True)
class Counts:
    """What some work cost."""

    opens: int = 0
    """Files opened for reading."""
    requests: int = 0
    """Requests to stores and servers, and on a disk what would be one."""
    bytes_read: int = 0
    bytes_written: int = 0
    cpu_seconds: float = 0.0
    """Of the process and its children."""
    peak_task_bytes: int = 0
    """Memory at most, beside what the process held before."""

    @classmethod
    def sum(cls, counts: "Iterable[Counts]") -> Self:
        """The counts of several tasks: sums, and of the peaks the highest."""
        total = cls()
        for one in counts:
            total = total._plus(one)
        return total

    def _plus(self, other: "Counts") -> Self:
        added = {field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)}
        added["peak_task_bytes"] = max(self.peak_task_bytes, other.peak_task_bytes)
        return type(self)(**added)

    def _minus(self, other: "Counts") -> Self:
        left = {field.name: getattr(self, field.name) - getattr(other, field.name) for field in fields(self)}
        return type(self)(**left)

    def as_json(self) -> dict[str, Any]:
        """JSON-ready, seconds to the millisecond."""
        return {**vars(self), "cpu_seconds": round(self.cpu_seconds, 3)}

    @classmethod
    def of_json(cls, found: object) -> Self:
        """What `as_json` gave; nothing where a log of another version says nothing."""
        if not isinstance(found, Mapping):
            return cls()
        known: dict[str, Any] = {}
        for field in fields(cls):
            if isinstance(value := found.get(field.name), int | float):
                known[field.name] = value
        return cls(**known)


class _Totals:
    """Of this process since it began."""

    opens = requests = bytes_read = bytes_written = 0


_totals = _Totals()
_lock = threading.Lock()


def note(*, opens: int = 0, requests: int = 0, bytes_read: int = 0, bytes_written: int = 0) -> None:
    """Add what passed a file system."""
    with _lock:
        _totals.opens += opens
        _totals.requests += requests
        _totals.bytes_read += bytes_read
        _totals.bytes_written += bytes_written


# -- local files -------------------------------------------------------------------------------------------------------


class CountedFile(io.FileIO):
    """A local file without a buffer, each read of which is counted."""

    def __init__(self, path: Any, *, opener: Callable[[Any, int], int] | None = None) -> None:
        super().__init__(path, "rb", opener=opener)
        note(opens=1)

    def readinto(self, buffer: Any) -> int:
        got = super().readinto(buffer)
        note(requests=1, bytes_read=got)
        return got

    def readall(self) -> bytes:
        data = super().readall()
        note(requests=1, bytes_read=len(data))
        return data

    def read(self, size: int | None = -1) -> bytes:
        """As many bytes as asked for, but for the end of the file: the system gives at most 2 GiB at once."""
        if size is None or size < 0:
            return self.readall()
        parts, left = [], size
        while left:
            part = super().read(left)
            note(requests=1, bytes_read=len(part))
            parts.append(part)
            left -= len(part)
            if not part:
                break
        return parts[0] if len(parts) == 1 else b"".join(parts)


def open_counted(path: Any, *, opener: Callable[[Any, int], int] | None = None) -> io.BufferedReader:
    """A local file for many small reads."""
    raw = CountedFile(path, opener=opener)
    try:
        return io.BufferedReader(raw)
    except BaseException:
        raw.close()
        raise


# -- processor and memory ----------------------------------------------------------------------------------------------

_children: list[Callable[[], list[int]]] = []


def count_children(pids: Callable[[], list[int]]) -> None:
    """Count the CPU time of these processes to this one's as long as they live; afterwards the system does."""
    _children.append(pids)


def _cpu_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used) + sum(map(_cpu_of, _living()))


def _living() -> Iterator[int]:
    for pids in _children:
        yield from pids()


def _cpu_of(pid: int) -> float:
    """Of a child and of the children that it has waited for; 0 where no `/proc` tells."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0.0
    return sum(map(int, stat.rpartition(b")")[2].split()[11:15])) / os.sysconf("SC_CLK_TCK")


def _memory(name: str) -> int:
    """A line of the process's status in bytes; 0: none says so."""
    with suppress(OSError):
        for line in (_PROC / "status").read_bytes().splitlines():
            if line.startswith(name.encode()):
                return int(line.split()[1]) << 10
    return 0


def _high_water() -> int:
    """The high-water mark of the process in bytes."""
    found = _memory("VmHWM:")
    if found:
        return found
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def _reset_peak() -> int:
    """Set the high-water mark back where that is allowed; returns the bytes that the process holds now."""
    with suppress(OSError):
        (_PROC / "clear_refs").write_bytes(b"5")
    return _memory("VmRSS:") or _high_water()


# -- meters ------------------------------------------------------------------------------------------------------------


class Meter:
    """Counts what this process does from now on, but for what meters inside it count."""

    def __init__(self) -> None:
        self._before, self._inside = _now(), Counts()
        self._held = self._most = _reset_peak()

    def counts(self) -> Counts:
        """What was done so far."""
        return replace(self._all()._minus(self._inside), peak_task_bytes=max(0, self._peak() - self._held))

    def _all(self) -> Counts:
        return _now()._minus(self._before)

    def _peak(self) -> int:
        return max(self._most, _high_water())

    def _pause(self) -> None:
        """Keep the high-water mark before a meter inside sets it back."""
        self._most = self._peak()

    def _leave_out(self, inside: Counts) -> None:
        """Go on without what a meter inside has counted."""
        self._inside = self._inside._plus(inside)
        _reset_peak()


_meters: list[Meter] = []


@contextmanager
def metered() -> Iterator[Meter]:
    """A meter for the block."""
    if _meters:
        _meters[-1]._pause()
    meter = Meter()
    _meters.append(meter)
    try:
        yield meter
    finally:
        _meters.remove(meter)
        if _meters:
            _meters[-1]._leave_out(meter._all())


def _now() -> Counts:
    with _lock:
        found = (_totals.opens, _totals.requests, _totals.bytes_read, _totals.bytes_written)
    return Counts(*found, cpu_seconds=_cpu_seconds())
