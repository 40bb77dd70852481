"""The processes that decode for this one: started, kept, granted memory, watched and ended.

They are started when they are first needed, one for each picture that is decoded at the same time and at most one a
core, and kept. They serve all threads, also of processes that may not have children of `multiprocessing`, and never
outlive the process that they serve. Pixels come back by shared memory.

Whatever happens to such a process costs one picture at most, and only what the picture did itself: a decoder that
crashes makes it `corrupt`, one that takes too much CPU time `too_slow`, one that needs too much memory `too_large`. A
process that somebody else killed says nothing about its picture, which is then decoded once more.

Memory is granted. A small share is free for every picture; larger ones reserve what their header asks for, and wait for
each other, so that all processes together stay below one limit however many there are. Decoders may take more than any
header tells. So a picture that lacks memory, crashes or seems damaged with less than all that it may have is decoded
again with all of it, and only then is there a verdict.
"""

import atexit
import fcntl
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curate.counting import count_children
from curate.errors import CurateError
from curate.ops.images.bounds import MAX_DECODE_BYTES, Bounds
from curate.ops.images.decode import RejectedImage
from curate.ops.images.decode_process import ANSWER, GRANT, NOTE_BYTES, ORDER, REQUEST, takes_all

FREE_BYTES = 64 << 20
"""Memory that a picture may take without asking."""
BYTES_A_CORE = 128 << 20
"""Memory that large pictures may take together, for each core; at least `MAX_DECODE_BYTES` in all."""
MARGIN = 32 << 20
"""What is granted above an eighth more than what a header asks for."""
KEPT_BYTES = 64 << 20
"""Shared memory above which a process is replaced after its picture, so that it goes back."""
PATIENCE = 30
"""Seconds without a tick of CPU time after which a process counts as standing still."""
LEAST_SECONDS = 0.1
"""Of CPU time that a second attempt has, however long the first one took."""
POLL = 0.2
"""Seconds after which one that waits looks whether it waits in vain, since `end_decoders` cannot notify."""
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS}
"""Signals by which a process dies of its own doing."""
_KILLED = "the process that decodes was killed twice, as the kernel does where memory is short"
_NOT_STARTED = "the process that decodes pictures cannot be started"
_SINGLE_THREADED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
_TEMPLATE = """
import json, socket, sys
sys.path[:] = json.loads(sys.argv[2])
from curate.ops.images.decode_process import main
main(socket.socket(fileno=int(sys.argv[1])))
"""
"""Started by its own program, since `multiprocessing` would import the user's main file again."""


class DecodersEnded(RuntimeError):
    """The processes that decode were ended, since whoever waits for them gives up."""

    def __init__(self) -> None:
        super().__init__("decoding was given up")


class BeyondBounds(RejectedImage):
    """A verdict that the process could not give itself."""

    def __init__(self, reason: str, detail: str, header: dict[str, Any]) -> None:
        super().__init__(reason, detail)
        self.header = header
        """Facts of the header: format, width, height; empty where it was not read."""


@dataclass(frozen=True)
class Request:
    """An image, and what is to be done with it."""

    wanted: bytes
    """As `decode_process` reads it."""
    data: bytes
    bounds: Bounds
    found: Callable[[dict[str, Any], mmap.mmap], Any]
    """Makes the result of the answer and the shared memory."""
    stopped: threading.Event = field(default_factory=threading.Event)
    """See `end_decoders`."""


def run_apart(request: Request) -> Any:
    """The result of a request.

    Raises:
        RejectedImage: the verdict on the picture.
        MemoryError: the machine has no memory for it, which says nothing about the picture.
        DecodersEnded: `end_decoders` was called meanwhile.
    """
    most, accidents = request.bounds.max_decode_bytes, 0
    granted, seconds = min(FREE_BYTES, most), request.bounds.max_seconds
    serving = _current()
    while True:
        if serving.is_given_up:  # between two attempts
            raise DecodersEnded
        serving = _current()
        try:
            outcome = serving.work(request, granted, seconds)
        except _Accident as accident:
            accidents += 1
            if accidents == 2:
                raise accident.finally_ from None
            continue
        if not outcome.is_final and granted < most:
            granted, seconds = most, max(LEAST_SECONDS, seconds - outcome.seconds)  # both together keep to the limit
            continue
        if outcome.error is not None:
            raise outcome.error
        return outcome.result


def end_decoders(stopped: threading.Event | None = None) -> None:
    """End the processes that decode for this one, at once; who waits for them gets `DecodersEnded`.

    It takes no lock, so that handlers of signals may call it. Pictures that are decoded later get new processes.

    Args:
        stopped: is set, and only the processes of those that gave it are ended; None: all are.
    """
    serving = _Serving.now
    if stopped is not None:
        stopped.set()
    if serving is not None:
        serving.end_those(stopped) if stopped is not None else serving.end(given_up=True)


def decoder_pids() -> list[int]:
    """Processes that decode for this one now, for measurements: the template, then those forked from it."""
    return [] if _Serving.now is None else _Serving.now.pids()


class _Accident(Exception):
    """What happened to a process says nothing about its picture."""

    def __init__(self, finally_: Exception) -> None:
        super().__init__()
        self.finally_ = finally_
        """What to raise where it happens again."""


@dataclass(frozen=True)
class _Outcome:
    """What became of an image."""

    result: Any = None
    error: Exception | None = None
    is_final: bool = True
    """False: with more memory it may have come otherwise."""
    seconds: float = 0.0
    """Of CPU time that it took, where the process lived to tell."""


# -- processes ----------------------------------------------------------------------------------------------------


class _Reserve:
    """Memory that large pictures share; who comes first is served first."""

    def __init__(self, total: int) -> None:
        self._total = self._free = total
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    def take(self, wanted: int, check: Callable[[], None]) -> int:
        """Wait for memory, for all that there is where more is wanted; returns what to give back."""
        mine, ticket = min(wanted, self._total), object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                while self._waiting[0] is not ticket or self._free < mine:
                    self._changed.wait(POLL)
                    check()
                self._free -= mine
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        return mine

    def give_back(self, taken: int) -> None:
        """Let others have it."""
        with self._changed:
            self._free += taken
            self._changed.notify_all()


class _Process:
    """A process that decodes, as seen from here."""

    def __init__(self, pid: int, asks: socket.socket, memory_file: int) -> None:
        self.pid, self._asks, self._memory_file = pid, asks, memory_file
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):  # `settimeout` costs a call of the system each time
            asks.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", PATIENCE, 0))
        self.memory = mmap.mmap(memory_file, NOTE_BYTES)
        self.stopped = threading.Event()
        """Of the one that uses it."""

    def ask(self, request: Request, granted: int, seconds: float, more: Callable[[int], int]) -> dict[str, Any]:
        """Have an image worked on.

        Args:
            granted: bytes of memory.
            seconds: of CPU time that it may take.
            more: what is granted to one that needs so many bytes.

        Raises:
            EOFError, OSError: the process ended, or does nothing (BlockingIOError).
        """
        wanted, data = request.wanted, request.data
        head = REQUEST.pack(len(wanted), len(data), granted, seconds) + wanted
        if len(data) < 1 << 20:
            self._asks.sendall(head + data)
        else:
            self._asks.sendall(head)
            self._asks.sendall(data)
        answer = self._answer()
        while "needs" in answer:
            self._asks.sendall(GRANT.pack(more(answer["needs"])))
            answer = self._answer()
        self._map()
        return answer

    def _answer(self) -> dict[str, Any]:
        """The next answer, however long it takes while the process works."""
        found, length = b"", ANSWER.size
        used: list[bytes] | None = None
        while len(found) < length:
            try:
                received = self._asks.recv(1 << 16)
            except BlockingIOError:
                before, used = used, self._cpu_time()
                if used == before:
                    raise
                continue
            if not received:
                raise EOFError
            found += received
            if len(found) >= ANSWER.size:
                length = ANSWER.size + ANSWER.unpack(found[: ANSWER.size])[0]
        answer: dict[str, Any] = json.loads(found[ANSWER.size :])
        return answer

    def _cpu_time(self) -> list[bytes]:
        """Of the process so far; where no system tells, always the same."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_bytes()
        except OSError:
            return []
        return stat.rpartition(b")")[2].split()[11:13]

    def _map(self) -> None:
        """See what the process added to the shared memory."""
        size = os.fstat(self._memory_file).st_size
        if size > len(self.memory):
            self.memory.close()
            self.memory = mmap.mmap(self._memory_file, size)

    @property
    def is_large(self) -> bool:
        """Whether it holds so much memory that it should go."""
        return len(self.memory) > KEPT_BYTES

    def header(self) -> dict[str, Any]:
        """Facts of the header of the image that it decodes, or decoded when it died."""
        note = self._note()
        return {name: note[name] for name in ("format", "width", "height") if name in note}

    def needed(self) -> int | None:
        """Bytes of memory that the header asked for; None: it was not read."""
        return self._note().get("needs")

    def _note(self) -> dict[str, Any]:
        (length,) = ANSWER.unpack(self.memory[: ANSWER.size])
        note: dict[str, Any] = json.loads(self.memory[ANSWER.size : ANSWER.size + length] or b"{}")
        return note

    def close(self) -> None:
        """Let go of what is shared with it."""
        self._asks.close()
        os.close(self._memory_file)
        self.memory.close()


class _Decoders:
    """The processes that decode for this one, and the template that they are forked from."""

    def __init__(self) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._reserve = _Reserve(max(MAX_DECODE_BYTES, cores * BYTES_A_CORE))
        self._most, self._num, self._idle = cores, 0, list[_Process]()
        self._changed = threading.Condition()
        self._pids: set[int] = set()
        self._busy: set[_Process] = set()
        self._ordering = threading.Lock()
        self._template: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self.is_over = self.is_given_up = False

    def work(self, request: Request, granted: int, seconds: float) -> _Outcome:
        """Have an image worked on once, with so many bytes of memory and seconds of CPU time.

        Raises:
            DecodersEnded: the processes were ended.
            _Accident: the process was killed, or stands still.
        """
        most, stopped = request.bounds.max_decode_bytes, request.stopped

        def check() -> None:
            self._check(stopped)

        def more(needed: int) -> int:
            nonlocal granted
            granted = min(most, MARGIN + needed + needed // 8)
            taken.append(self._reserve.take(granted, check))
            return granted

        taken: list[int] = []
        try:
            if granted > FREE_BYTES:
                taken.append(self._reserve.take(granted, check))
            with self._process(stopped) as process:
                try:
                    answer = process.ask(request, granted, seconds, more)
                except BlockingIOError:
                    raise _Accident(BeyondBounds("too_slow", "the decoder stands still", process.header())) from None
                except (EOFError, OSError):
                    return self._of_death(process, request, granted)
                return _outcome(answer, process, request)
        finally:
            self._reserve.give_back(sum(taken))

    def _of_death(self, process: _Process, request: Request, granted: int) -> _Outcome:
        """What the end of a process says about its picture."""
        needed = process.needed()
        header, status = process.header(), self._finish(process)
        self._check(request.stopped)
        killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if killed_by == signal.SIGPROF:
            detail = f"decoding takes more than {request.bounds.max_seconds:g} seconds of CPU time"
            return _Outcome(error=BeyondBounds("too_slow", detail, header))
        if killed_by and killed_by not in CRASHES:
            raise _Accident(MemoryError(_KILLED))
        if killed_by and needed is not None and takes_all(needed, granted):  # as some decoders do where memory ends
            return _Outcome(error=_too_large(request, header), is_final=False)
        how = f"crashes ({signal.Signals(killed_by).name})" if killed_by else "ends its process"
        detail = f"{header.get('format', 'data')} of {len(request.data)} bytes: the decoder {how}"
        return _Outcome(error=BeyondBounds("corrupt", detail, header), is_final=False)

    @contextmanager
    def _process(self, stopped: threading.Event) -> Iterator[_Process]:
        """One that nobody else uses; it ends where its use fails."""
        self._check(stopped)
        with self._changed:
            while not self._idle and self._num >= self._most:
                self._changed.wait(POLL)
                self._check(stopped)
            process = self._idle.pop() if self._idle else None
            self._num += process is None
        is_kept = False
        try:
            process = process or self._start()
            process.stopped = stopped
            self._busy.add(process)
            self._check(stopped)
            yield process
            is_kept = process.pid in self._pids and not process.is_large
        finally:
            self._busy.discard(process)  # type: ignore[arg-type]
            if process is not None and not is_kept:
                self._finish(process)
            with self._changed:
                if process is not None and is_kept:
                    self._idle.append(process)
                else:
                    self._num -= 1
                self._changed.notify()

    def _check(self, stopped: threading.Event | None = None) -> None:
        if self.is_given_up or (stopped is not None and stopped.is_set()):
            raise DecodersEnded
        if self.is_over:  # somebody killed the template
            raise _Accident(MemoryError(_KILLED))

    def _start(self) -> _Process:
        """A new process, forked from the template."""
        mine, theirs = socket.socketpair()
        memory_file = _shared_file()
        try:
            pid = self._order(0, [theirs.fileno(), memory_file])
        except BaseException:
            mine.close()
            os.close(memory_file)
            raise
        finally:
            theirs.close()
        self._pids.add(pid)
        return _Process(pid, mine, memory_file)

    def _finish(self, process: _Process) -> int:
        """End a process, if it has not ended, and return how it did, as `os.waitpid` says; 0 at the second call."""
        if process.pid not in self._pids:
            return 0
        self._pids.discard(process.pid)
        process.close()
        try:
            return self._order(process.pid, [])
        except (_Accident, DecodersEnded):
            return signal.SIGKILL

    def _order(self, pid: int, files: list[int]) -> int:
        """Order something of the template, which is started where there is none.

        Raises:
            _Accident: the template was killed.
            CurateError: it does not start, or cannot fork.
        """
        with self._ordering:
            try:
                self._check()
                control = self._control or self._start_template()
                if files:
                    socket.send_fds(control, [ORDER.pack(pid)], files)
                else:
                    control.sendall(ORDER.pack(pid))
                answer = control.recv(ORDER.size, socket.MSG_WAITALL)
                if len(answer) < ORDER.size:
                    raise EOFError
            except (OSError, EOFError):
                self._check()
                self.end(given_up=False)  # the next picture gets a new template
                raise _Accident(MemoryError(_KILLED)) from None
            except BaseException:  # Ctrl-C: whose answer came next would be unknown
                self.end(given_up=False)
                raise
        (number,) = ORDER.unpack(answer)
        if number < 0:
            raise CurateError(f"{_NOT_STARTED}: {os.strerror(-number)}")
        return int(number)

    def _start_template(self) -> socket.socket:
        mine, theirs = socket.socketpair()
        command = [sys.executable, "-I", "-c", _TEMPLATE, str(theirs.fileno()), json.dumps(sys.path)]
        with theirs:
            try:
                self._template = subprocess.Popen(
                    command,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=os.environ | _SINGLE_THREADED,
                )
            except OSError as error:
                raise CurateError(f"{_NOT_STARTED}: {error}") from error
        self._control = mine
        if len(mine.recv(ORDER.size, socket.MSG_WAITALL)) < ORDER.size:
            self._check()
            raise CurateError(f"{_NOT_STARTED} (status {self._template.wait()}); what it says stands above")
        return mine

    def pids(self) -> list[int]:
        """The template, where it was started, and what was forked from it."""
        if self.is_over or self._template is None:
            return []
        return [self._template.pid, *sorted(self._pids)]

    def end_those(self, stopped: threading.Event) -> None:
        """End the processes whose users gave this; takes no lock."""
        for process in list(self._busy):
            if process.stopped is stopped and process.pid in self._pids:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)

    def end(self, *, given_up: bool) -> None:
        """End all processes at once; takes no lock."""
        self.is_given_up |= given_up
        self.is_over = True
        for pid in list(self._pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._control is not None:
            with suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)  # the template waits for the others, and ends
        if self._template is not None:
            try:
                self._template.wait(timeout=1)
            except subprocess.TimeoutExpired:
                self._template.kill()
                self._template.wait()

    def forget(self) -> None:
        """In a fork of the process that they serve: close what it inherited, so that they end with that process."""
        if self._template is not None:
            self._template.returncode = 0  # another's child
        if self._control is not None:
            self._control.close()
        for process in {*self._idle, *self._busy}:
            with suppress(BufferError):  # a thread that is not here any more was reading
                process.close()


def _too_large(request: Request, header: dict[str, Any]) -> BeyondBounds:
    detail = f"decoding takes more than {request.bounds.max_decode_bytes} bytes of memory"
    return BeyondBounds("too_large", detail, header)


def _outcome(answer: dict[str, Any], process: _Process, request: Request) -> _Outcome:
    """What a process says about its picture."""
    seconds = answer.pop("seconds")
    if "failed" in answer:
        return _Outcome(error=RuntimeError(f"the process that decodes failed: {answer['failed']}"))
    if "short" in answer:
        return _Outcome(error=_too_large(request, process.header()), is_final=False, seconds=seconds)
    rejected = answer.get("reject")  # (reason, detail), or of an inspected picture the reason among its facts
    reason = rejected[0] if isinstance(rejected, list) else rejected
    is_final = reason not in ("corrupt", "truncated")
    if isinstance(rejected, list):
        return _Outcome(error=RejectedImage(*rejected), is_final=is_final, seconds=seconds)
    return _Outcome(request.found(answer, process.memory), is_final=is_final, seconds=seconds)


def _shared_file() -> int:
    """A file without a name, in memory where the system has such, that holds a note."""
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("curate-pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(number, NOTE_BYTES)
        fcntl.fcntl(number, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)  # what is mapped here stays there
        return number
    with tempfile.TemporaryFile() as file:
        file.truncate(NOTE_BYTES)
        return os.dup(file.fileno())


class _Serving:
    """Who decodes for this process."""

    now: _Decoders | None = None
    starting = threading.Lock()


def _current() -> _Decoders:
    """The processes that decode for this process; new ones where there are none, or where they were ended."""
    with _Serving.starting:
        if _Serving.now is None or _Serving.now.is_over:
            _Serving.now = _Decoders()
        return _Serving.now


def _forget() -> None:
    """After a fork: the processes serve the process that was forked."""
    inherited, _Serving.now, _Serving.starting = _Serving.now, None, threading.Lock()
    if inherited is not None:
        inherited.forget()


os.register_at_fork(after_in_child=_forget)
atexit.register(end_decoders)
count_children(decoder_pids)
