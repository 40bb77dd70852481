"""Decoding within bounds, whatever the bytes: what everything that opens a stranger's picture calls.

Pictures are decoded in processes of their own (`decode_process`), which hold themselves to memory and CPU time and can
be ended; small JPEG and PNG files of few pieces (`plain`) alone are decoded at once, by the thread that asks. They are started when they are first needed, one for each picture that is decoded at the same time and at most
one a core, and kept. They serve all threads, work in processes that may not have children of `multiprocessing`, and
never outlive the process that they serve. Pixels come back by shared memory.

Whatever happens to such a process costs one picture at most, and only what the picture did itself: a decoder that
crashes twice makes it `corrupt`, one that takes too much CPU time `too_slow`, one that needs too much memory
`too_large`. A process that somebody else killed says nothing about its picture: it is decoded once more.

Memory is granted. A small share is free for every picture; larger ones reserve what their header asks for, and wait for
each other, so that all processes together stay below one limit however many there are. Decoders may take more than any
header tells: then, and wherever data seem damaged with less than all memory granted, they decode again with all of it.
Only then is there a verdict.
"""

import atexit
import fcntl
import hashlib
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
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from curate.errors import CurateError
from curate.ops.images.bounds import ACCEPTED, MAX_DECODE_BYTES, Bounds
from curate.ops.images.decode import RejectedImage, decode_rgb, sixteen_bits_used
from curate.ops.images.decode_process import ANSWER, GRANT, NOTE_BYTES, ORDER, REQUEST
from curate.ops.images.depth import SignificantBits
from curate.ops.images.inspect import ImageLimits, Inspected, check_bytes, inspect_image
from curate.ops.images.plain import is_plain
from curate.ops.images.readers import ForReaders, make_readable

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
POLL = 0.2
"""Seconds after which one that waits looks whether it waits in vain, since `end_decoders` cannot notify."""
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS}
"""Signals by which a process dies of its own doing."""
_KILLED = "the process that decodes was killed twice, as the kernel does where memory is short"
_SINGLE_THREADED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
_TEMPLATE = """
import json, socket, sys
sys.path[:] = json.loads(sys.argv[2])
from curate.ops.images.decode_process import main
main(socket.socket(fileno=int(sys.argv[1])))
"""


class DecodersEnded(RuntimeError):
    """The processes that decode were ended, since whoever waits for them gives up."""


def decode_picture(
    data: bytes,
    *,
    min_side: int | None = None,
    bounds: Bounds | None = None,
    significant_bits: SignificantBits = "auto",
) -> Image.Image:
    """As `decode.decode_rgb`, within `bounds` of memory and time as well; safe in threads.

    Raises:
        RejectedImage: the data are no picture, damaged, of a kind that is not read, or beyond `bounds`.
        MemoryError: the machine has no memory for the picture, which says nothing about the picture.
        DecodersEnded: `end_decoders` was called meanwhile.
    """
    bounds = bounds or Bounds()
    if is_plain(data):
        return decode_rgb(data, min_side=min_side, bounds=bounds, significant_bits=significant_bits)
    return _run(_decoding(min_side, bounds, significant_bits), data, bounds, _as_picture)  # type: ignore[no-any-return]


def decode_pixels(
    data: bytes,
    *,
    min_side: int | None = None,
    bounds: Bounds | None = None,
    significant_bits: SignificantBits = "auto",
) -> np.ndarray:
    """As `decode_picture`: (H, W, 3) uint8, writable, without the way through a picture of Pillow's."""
    bounds = bounds or Bounds()
    if is_plain(data):
        return np.array(decode_rgb(data, min_side=min_side, bounds=bounds, significant_bits=significant_bits))
    return _run(_decoding(min_side, bounds, significant_bits), data, bounds, _as_array)  # type: ignore[no-any-return]


def inspect_picture(
    data: bytes,
    limits: ImageLimits,
    *,
    min_side: int | None = None,
    significant_bits: SignificantBits = "auto",
) -> Inspected:
    """As `inspect.inspect_image`, within the limits of memory and time as well; safe in threads.

    Raises:
        MemoryError: the machine has no memory for the picture, which says nothing about the picture.
        DecodersEnded: `end_decoders` was called meanwhile.
    """
    if is_plain(data):
        return inspect_image(data, limits, min_side=min_side, significant_bits=significant_bits)
    known: dict[str, Any] = {"num_bytes": len(data), "sha256": hashlib.sha256(data).digest()}

    def facts(answer: dict[str, Any], memory: mmap.mmap) -> Inspected:
        size = answer.pop("size", None)
        return Inspected(**known, **answer, picture=None if size is None else _picture(size, memory))

    try:
        check_bytes(data, limits)  # what is too long need not travel
        return _run(_inspecting(limits, min_side, significant_bits), data, limits.bounds, facts)  # type: ignore[no-any-return]
    except _Beyond as rejected:
        return Inspected(**known, **rejected.header, reject=rejected.reason, detail=rejected.detail)
    except RejectedImage as rejected:
        return Inspected(**known, reject=rejected.reason, detail=rejected.detail)


def count_bits(data: bytes) -> int | None:
    """As `decode.sixteen_bits_used`, within bounds.

    Raises:
        RejectedImage: the image does not decode.
        MemoryError: the machine has no memory for the picture.
    """
    if is_plain(data):
        return sixteen_bits_used(data)
    return _run(_wanted("count bits"), data, Bounds(), lambda answer, memory: answer["bits"])  # type: ignore[no-any-return]


def make_picture_readable(data: bytes, *, repair: bool) -> ForReaders:
    """As `readers.make_readable`, within bounds: a picture on which readers crash or hang is told as well.

    Raises:
        MemoryError: the machine has no memory for the picture.
    """

    if is_plain(data):
        return make_readable(data, repair=repair)

    def found(answer: dict[str, Any], memory: mmap.mmap) -> ForReaders:
        length = answer.pop("num_bytes", None)
        return ForReaders(data if length is None else memory[NOTE_BYTES : NOTE_BYTES + length], **answer)

    try:
        return _run(_wanted("make readable", repair=repair), data, ACCEPTED, found)  # type: ignore[no-any-return]
    except _Beyond as rejected:
        return ForReaders(data, f"decoding: {rejected.reason}: {rejected.detail}")


def end_decoders() -> None:
    """End all processes that decode for this one, at once; who waits for them gets `DecodersEnded`.

    It takes no lock, so that handlers of signals may call it. Pictures that are decoded later get new processes.
    """
    global _decoders
    ended, _decoders = _decoders, None
    if ended is not None:
        ended.end()


def decoder_pids() -> list[int]:
    """Processes that decode for this one now, for measurements: the template, then those forked from it."""
    return [] if _decoders is None else _decoders.pids()


# -- what is asked for, and what comes back -----------------------------------------------------------------------


@lru_cache(maxsize=64)
def _decoding(min_side: int | None, bounds: Bounds, bits: SignificantBits) -> bytes:
    return _wanted("decode", bounds=asdict(bounds), min_side=min_side, significant_bits=bits)


@lru_cache(maxsize=64)
def _inspecting(limits: ImageLimits, min_side: int | None, bits: SignificantBits) -> bytes:
    return _wanted("inspect", limits=limits.model_dump(), min_side=min_side, significant_bits=bits)


def _wanted(work: str, **how: Any) -> bytes:
    asked = {name: how.pop(name) for name in ("limits", "bounds") if name in how}
    return json.dumps({"work": work, "how": how, **asked}).encode()


def _pixels(size: list[int], memory: mmap.mmap) -> memoryview:
    return memoryview(memory)[NOTE_BYTES : NOTE_BYTES + 3 * size[0] * size[1]]


def _picture(size: list[int], memory: mmap.mmap) -> Image.Image:
    with _pixels(size, memory) as pixels:
        return Image.frombytes("RGB", (size[0], size[1]), pixels)


def _as_picture(answer: dict[str, Any], memory: mmap.mmap) -> Image.Image:
    return _picture(answer["size"], memory)


def _as_array(answer: dict[str, Any], memory: mmap.mmap) -> np.ndarray:
    width, height = answer["size"]
    with _pixels(answer["size"], memory) as pixels:
        return np.frombuffer(pixels, np.uint8).reshape(height, width, 3).copy()


class _Beyond(RejectedImage):
    """A verdict that the process could not give itself."""

    def __init__(self, reason: str, detail: str, header: dict[str, Any]) -> None:
        super().__init__(reason, detail)
        self.header = header
        """Facts of the header: format, width, height; empty where it was not read."""


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


_Found = Callable[[dict[str, Any], mmap.mmap], Any]
"""Makes the result of an answer and the shared memory."""


def _run(wanted: bytes, data: bytes, bounds: Bounds, found: _Found) -> Any:
    """Have some work done on an image; see the head of this file for what becomes of accidents."""
    granted, accidents = min(FREE_BYTES, bounds.max_decode_bytes), 0
    while True:
        try:
            outcome = _current().work(wanted, data, bounds, granted, found)
        except _Accident as accident:
            accidents += 1
            if accidents == 2:
                raise accident.finally_ from None
            continue
        if not outcome.is_final and granted < bounds.max_decode_bytes:
            granted = bounds.max_decode_bytes
            continue
        if outcome.error is not None:
            raise outcome.error
        return outcome.result


# -- processes ----------------------------------------------------------------------------------------------------


class _Reserve:
    """Memory that large pictures share; who comes first is served first."""

    def __init__(self, total: int) -> None:
        self._total = self._free = total
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    def take(self, wanted: int, is_over: Callable[[], bool]) -> int:
        """Wait for memory, for all that there is where more is wanted; returns what to give back."""
        mine, ticket = min(wanted, self._total), object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                while self._waiting[0] is not ticket or self._free < mine:
                    self._changed.wait(POLL)
                    if is_over():
                        raise DecodersEnded("decoding was given up")
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

    def ask(
        self, wanted: bytes, data: bytes, *, granted: int, seconds: float, more: Callable[[int], int]
    ) -> dict[str, Any]:
        """Have an image worked on.

        Args:
            more: what is granted to one that needs so many bytes.

        Raises:
            EOFError, OSError: the process ended, or does nothing (BlockingIOError).
        """
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
        (length,) = ANSWER.unpack(self.memory[: ANSWER.size])
        note = json.loads(self.memory[ANSWER.size : ANSWER.size + length] or b"{}")
        return {name: note[name] for name in ("format", "width", "height") if name in note}

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
        self._ordering = threading.Lock()
        self._template: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self.is_over = False

    def work(self, wanted: bytes, data: bytes, bounds: Bounds, granted: int, found: _Found) -> _Outcome:
        """Have an image worked on once.

        Raises:
            DecodersEnded: the processes were ended.
            _Accident: the process was killed, or stands still.
        """
        taken = [self._reserve.take(granted, lambda: self.is_over)] if granted > FREE_BYTES else []

        def more(needed: int) -> int:
            wanted = min(bounds.max_decode_bytes, MARGIN + needed + needed // 8)
            taken.append(self._reserve.take(wanted, lambda: self.is_over))
            return wanted

        try:
            with self._process() as process:
                try:
                    answer = process.ask(wanted, data, granted=granted, seconds=bounds.max_seconds, more=more)
                except BlockingIOError:
                    raise _Accident(_Beyond("too_slow", "the decoder stands still", process.header())) from None
                except (EOFError, OSError):
                    return self._of_death(process, len(data), bounds)
                return _outcome(answer, process, bounds, found)
        finally:
            self._reserve.give_back(sum(taken))

    def _of_death(self, process: _Process, num_bytes: int, bounds: Bounds) -> _Outcome:
        """What the end of a process says about its picture."""
        header, status = process.header(), self._finish(process)
        if self.is_over:
            raise DecodersEnded("decoding was given up")
        killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if killed_by == signal.SIGPROF:
            detail = f"decoding takes more than {bounds.max_seconds:g} seconds of CPU time"
            return _Outcome(error=_Beyond("too_slow", detail, header))
        if killed_by and killed_by not in CRASHES:
            raise _Accident(MemoryError(_KILLED))
        how = f"crashes ({signal.Signals(killed_by).name})" if killed_by else "ends its process"
        detail = f"{header.get('format', 'data')} of {num_bytes} bytes: the decoder {how}"
        return _Outcome(error=_Beyond("corrupt", detail, header), is_final=False)

    @contextmanager
    def _process(self) -> Iterator[_Process]:
        """One that nobody else uses; it ends where its use fails."""
        with self._changed:
            while not self._idle and self._num >= self._most:
                self._changed.wait(POLL)
                self._check()
            process = self._idle.pop() if self._idle else None
            self._num += process is None
        is_kept = False
        try:
            process = process or self._start()
            yield process
            is_kept = process.pid in self._pids and not process.is_large
        finally:
            if process is not None and not is_kept:
                self._finish(process)
            with self._changed:
                if process is not None and is_kept:
                    self._idle.append(process)
                else:
                    self._num -= 1
                self._changed.notify()

    def _check(self) -> None:
        if self.is_over:
            raise DecodersEnded("decoding was given up")

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
                self.end()  # the next picture gets a new template
                raise _Accident(MemoryError(_KILLED)) from None
            except BaseException:  # Ctrl-C: whose answer came next would be unknown
                self.end()
                raise
        (number,) = ORDER.unpack(answer)
        if number < 0:
            raise CurateError(f"a process that decodes pictures cannot be started: {os.strerror(-number)}")
        return int(number)

    def _start_template(self) -> socket.socket:
        mine, theirs = socket.socketpair()
        with theirs:
            self._template = subprocess.Popen(
                [sys.executable, "-I", "-c", _TEMPLATE, str(theirs.fileno()), json.dumps(sys.path)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=os.environ | _SINGLE_THREADED,
            )
        self._control = mine
        if len(mine.recv(ORDER.size, socket.MSG_WAITALL)) < ORDER.size:
            self._check()
            raise CurateError(
                f"the process that decodes pictures does not start (status {self._template.wait()}); what it says "
                "stands above"
            )
        return mine

    def pids(self) -> list[int]:
        """The template, where it was started, and what was forked from it."""
        return ([] if self._template is None else [self._template.pid]) + sorted(self._pids)

    def end(self) -> None:
        """End all processes at once; takes no lock."""
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
        for process in self._idle:
            process.close()


def _outcome(answer: dict[str, Any], process: _Process, bounds: Bounds, found: _Found) -> _Outcome:
    """What a process says about its picture."""
    if "failed" in answer:
        return _Outcome(error=RuntimeError(f"the process that decodes failed: {answer['failed']}"))
    if "short" in answer:
        detail = f"decoding takes more than {bounds.max_decode_bytes} bytes of memory"
        return _Outcome(error=_Beyond("too_large", detail, process.header()), is_final=False)
    rejected = answer.get("reject")  # (reason, detail), or of an inspected picture the reason among its facts
    reason = rejected[0] if isinstance(rejected, list) else rejected
    is_final = reason not in ("corrupt", "truncated")
    if isinstance(rejected, list):
        return _Outcome(error=RejectedImage(*rejected), is_final=is_final)
    return _Outcome(found(answer, process.memory), is_final=is_final)


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


_decoders: _Decoders | None = None
_starting = threading.Lock()


def _current() -> _Decoders:
    """The processes that decode for this process."""
    global _decoders
    with _starting:
        if _decoders is None or _decoders.is_over:
            _decoders = _Decoders()
        return _decoders


def _forget() -> None:
    """After a fork: the processes serve the process that was forked."""
    global _decoders, _starting
    inherited, _decoders, _starting = _decoders, None, threading.Lock()
    if inherited is not None:
        inherited.forget()


os.register_at_fork(after_in_child=_forget)
atexit.register(end_decoders)
