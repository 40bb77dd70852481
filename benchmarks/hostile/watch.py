"""Commands in a child process that is watched: how long they take, how much memory they and their children hold, how
much they write; one that breaks a bound is killed.

Time that other programs took the cores away for does not count, so that a busy machine makes no input hang: Linux tells
for each thread how long it was ready to run and had to wait. Of a command's threads the one that waited longest counts.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import psutil  # type: ignore[import-untyped]

LIMIT = 30.0
"""Seconds after which an input counts as one that hangs; those that it waited for a core do not count."""
KILL_BYTES = 5 << 30
"""Memory of a command and its children above which it is killed: the machine is not ours alone."""
KILL_WRITTEN = 512 << 20
"""Bytes in the folder of an input above which its command is killed."""
REST_BYTES = 768 << 20
"""Memory that a worker may hold when a command has ended; one with more gives way to a fresh one, so that what an input
leaves behind does not count for the next."""
INTERVAL = 0.05
"""Seconds between two looks at the memory."""
WORKER = ("-m", "benchmarks.hostile.worker")
ROOT = Path(__file__).parents[2]

End = Literal["ended", "crashed", "hung", "grew"]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    how: End
    exit: int
    """Its exit status, where it ended."""
    output: str
    """What it printed and logged."""
    seconds: float
    peak_bytes: int
    detail: str = ""
    """The last line of a traceback, or the signal."""


@dataclass
class Watched:
    """Runs commands, a worker process at a time; a context."""

    command: Sequence[str] = (sys.executable, *WORKER)
    limit: float = LIMIT
    _worker: subprocess.Popen[str] | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def run(self, arguments: Sequence[str], folder: Path, *, limit: float | None = None) -> Ended:
        """Run one command; `folder` is where it writes."""
        with tempfile.NamedTemporaryFile(dir=folder.parent, suffix=".out") as output:
            worker = self._worker or self._start()
            assert worker.stdin is not None
            assert worker.stdout is not None
            start, peak, how = time.monotonic(), 0, "ended"
            worker.stdin.write(json.dumps({"arguments": list(arguments), "output": output.name}) + "\n")
            worker.stdin.flush()
            with selectors.DefaultSelector() as selector:
                selector.register(worker.stdout, selectors.EVENT_READ)
                looked, waited, waits = start, 0.0, core_waits(worker.pid)
                while not selector.select(INTERVAL):
                    peak = max(peak, tree_bytes(worker.pid))
                    now = time.monotonic()
                    if now - looked > 1:
                        before, waits = waits, core_waits(worker.pid)
                        longest = max((waits[thread] - before.get(thread, 0.0) for thread in waits), default=0.0)
                        waited += min(longest, now - looked)
                        looked = now
                        how = "grew" if written_bytes(folder) > KILL_WRITTEN else how
                    if now - start - waited > (self.limit if limit is None else limit):
                        how = "hung"
                    elif peak > KILL_BYTES:
                        how = "grew"
                    if how != "ended":
                        break
            seconds = time.monotonic() - start
            if how != "ended":
                what = f"killed after {seconds:.0f} s, {peak >> 20} MiB, {written_bytes(folder) >> 20} MiB written"
                self.stop()
                return Ended(how, -1, _text(output.name), seconds, peak, what)  # type: ignore[arg-type]
            line = worker.stdout.readline()
            rest = tree_bytes(worker.pid)
            peak = max(peak, rest)
            text = _text(output.name)
            if not line:
                code = worker.wait()
                self.stop()
                return Ended("crashed", code, text, seconds, peak, _signal_name(code))
            if rest > REST_BYTES:
                self.stop()
            answer = json.loads(line)
            trace = answer["crash"] or (text if "Traceback (most recent call last)" in text else "")
            detail = _last_line(trace)
            return Ended("crashed" if trace else "ended", answer["exit"], text, seconds, peak, detail)

    def _start(self) -> subprocess.Popen[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        self._worker = subprocess.Popen(
            list(self.command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        return self._worker

    def stop(self) -> None:
        """Kill the worker and all that it started."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(worker.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        for pipe in (worker.stdin, worker.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        worker.wait()


def tree_bytes(pid: int) -> int:
    """Memory of a process and its children: shared pages count once where the system tells (PSS), else for each."""
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error, OSError):
                total += _proportional(one.pid) or one.memory_info().rss
    return total


def core_waits(pid: int) -> dict[str, float]:
    """Seconds that each thread of a process and its children was ready to run and waited for a core; empty: unknown."""
    found: dict[str, float] = {}
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            for told in Path(f"/proc/{one.pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError, ValueError, IndexError):
                    found[str(told)] = int(told.read_text().split()[1]) / 1e9
    return found


def _proportional(pid: int) -> int:
    with contextlib.suppress(OSError), Path(f"/proc/{pid}/smaps_rollup").open() as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0


def written_bytes(folder: Path) -> int:
    """Bytes on the disk under a folder."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(Path(place) / name).st_blocks * 512
    return total


def _text(path: str) -> str:
    return Path(path).read_bytes().decode("utf-8", "backslashreplace")


def _signal_name(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code} without an answer"


def _last_line(trace: str) -> str:
    lines = [line for line in trace.strip().splitlines() if line and not line.startswith(" ")]
    return lines[-1][:300] if lines else ""
