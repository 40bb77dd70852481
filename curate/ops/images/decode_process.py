"""The process that decodes: it holds itself to the memory and the time of each picture, and can be ended.

No thread can be ended, and no library of decoders counts what it takes. A process can do both: a limit of its own data
turns an allocation beyond it into an error of the one picture, and a timer of CPU time kills it, in the midst of C code
too. Starting Python and importing what decodes takes a third of a second, which is too long for each process and each
one that died. So one template imports all of it, and forks the processes that decode, in milliseconds. It has a single
thread, so forking it is safe, which it would not be for the process that asks (`decoding`).

The template gets orders by a socket: a new process for the socket and the memory that come along, or the end of one.
When the socket closes, the one that asks has ended, and the template ends with all its processes. Signals that are sent
to a group of processes, as by Ctrl-C or a batch system, do not reach them: the one that asks decides.
"""

import ctypes
import gc
import json
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from curate.memory import keep_freed_memory, release_holes
from curate.ops.images import bands
from curate.ops.images.blurring import Blur, Box, blur_boxes
from curate.ops.images.bounds import Bounds
from curate.ops.images.credentials import read_credentials
from curate.ops.images.decode import Opened, RejectedImage, decode_rgb, sixteen_bits_used
from curate.ops.images.inspect import ImageLimits, inspect_image
from curate.ops.images.readers import make_readable

ORDER = struct.Struct("<q")
"""To the template: 0 with two file descriptors for a new process, else the process to end. From it: the new process, or
how that one ended as `os.waitpid` says; negative: why there is none, by number of the error."""
REQUEST = struct.Struct("<QQQd")
"""Bytes of the JSON that says what is wanted, bytes of the image, bytes of memory granted, seconds of CPU time."""
ANSWER = struct.Struct("<I")
"""Bytes of the JSON that follows."""
GRANT = struct.Struct("<Q")
"""Bytes of memory that are granted in answer to `needs`."""
NOTE_BYTES = 4096
"""The shared memory begins with a note of the header, for the case that the process dies; then come the pixels."""
KEPT_BYTES = 16 << 20
"""Freed memory that a process keeps for its next picture."""
SLACK = 8 << 20
"""What decoding takes beyond a share of what the header tells."""
DAMAGE = ("corrupt", "truncated")
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def main(control: socket.socket) -> None:
    """Fork processes that decode and end them, as ordered, until the one that orders has gone."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGPROF, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # what was blocked there must end a process here
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    keep_freed_memory()
    Image.init()
    children: set[int] = set()
    with suppress(OSError):
        control.sendall(ORDER.pack(os.getpid()))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what C libraries say of hostile files
    while True:
        try:
            order, given, _, _ = socket.recv_fds(control, ORDER.size, 2)
        except OSError:
            order, given = b"", []
        if len(order) < ORDER.size:
            break
        (pid,) = ORDER.unpack(order)
        answer = _end(pid, children) if pid else _fork(control, given, children)
        with suppress(OSError):
            control.sendall(ORDER.pack(answer))
    for pid in list(children):
        _end(pid, children)


def _fork(control: socket.socket, given: list[int], children: set[int]) -> int:
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        pid = -(error.errno or 1)
    if pid == 0:
        try:
            if sys.platform == "linux":
                ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
            control.close()
            if os.getppid() == parent:
                Decoder(socket.socket(fileno=given[0]), given[1]).serve()
        finally:
            os._exit(0)
    for number in given:
        os.close(number)
    if pid > 0:
        children.add(pid)
    return pid


def _end(pid: int, children: set[int]) -> int:
    """End a process, unless it has ended, and return how it did."""
    if pid not in children:
        return 0
    os.kill(pid, signal.SIGKILL)  # one that ended stays as it ended until it is waited for
    children.discard(pid)
    return os.waitpid(pid, 0)[1]


def takes_all(needed: int, granted: int) -> bool:
    """Whether a picture that needs so many bytes takes about all that are granted."""
    return needed + needed // 8 + SLACK > granted


class _Made(NamedTuple):
    """What became of an image."""

    answer: dict[str, Any]
    picture: Image.Image | None = None
    data: bytes | None = None


class Decoder:
    """The process that decodes: one image at a time, within what is granted."""

    def __init__(self, asks: socket.socket, memory: int) -> None:
        self._asks, self._memory_file = asks, memory
        self._memory = mmap.mmap(memory, os.fstat(memory).st_size)
        self._base = self._granted = self._needed = 0
        self._own = self._least = _data_bytes()
        self._most = resource.getrlimit(resource.RLIMIT_DATA)[1]

    def serve(self) -> None:
        """Answer until the one that asks has gone."""
        while True:
            head = self._asks.recv(REQUEST.size, socket.MSG_WAITALL)
            if len(head) < REQUEST.size:
                return
            wanted_bytes, num_bytes, granted, seconds = REQUEST.unpack(head)
            wanted = self._asks.recv(wanted_bytes, socket.MSG_WAITALL)
            data = self._asks.recv(num_bytes, socket.MSG_WAITALL) if num_bytes else b""
            if len(data) < num_bytes:
                return
            self._memory[:4], self._needed = bytes(4), 0
            self._base = self._own + 2 * len(data)  # a copy without side notes is made of it
            self._grant(granted)
            signal.setitimer(signal.ITIMER_PROF, seconds)
            start = time.process_time()
            answer = self._answer(wanted, data) | {"seconds": time.process_time() - start}
            del data
            self._release()
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._limit(self._most)
            text = json.dumps(answer).encode()
            self._asks.sendall(ANSWER.pack(len(text)) + text)

    def _release(self) -> None:
        """Give freed memory back, unless it is little, before another process is granted it."""
        self._own = _data_bytes()
        if self._own > self._least + KEPT_BYTES:
            gc.collect()
            release_holes()
            self._own = self._least = _data_bytes()

    def _answer(self, wanted: bytes, data: bytes) -> dict[str, Any]:
        try:
            made = _work_for(wanted)(data, self._on_header)
            if made.answer.get("reject") in DAMAGE and self._may_lack_memory():
                return {"short": True}
            if made.picture is not None:
                self._show(made.picture)
                return made.answer | {"size": made.picture.size}
            if made.data is not None:
                self._resize(len(made.data))
                self._memory[NOTE_BYTES : NOTE_BYTES + len(made.data)] = made.data
                return made.answer | {"num_bytes": len(made.data)}
            return made.answer
        except RejectedImage as rejected:
            if rejected.reason in DAMAGE and self._may_lack_memory():
                return {"short": True}
            return {"reject": [rejected.reason, rejected.detail]}
        except MemoryError:
            return {"short": True}
        except Exception as error:
            return {"failed": f"{type(error).__name__}: {error}"}

    def _may_lack_memory(self) -> bool:
        """Whether the picture takes about all that is granted: many decoders call data damaged where memory ends."""
        return takes_all(self._needed, self._granted)

    def _on_header(self, opened: Opened, needed: int) -> None:
        """Note the header for the one that asks, and get memory for what is to come."""
        facts = {"format": opened.format, "width": opened.width, "height": opened.height, "needs": needed}
        note = json.dumps(facts).encode()
        self._memory[: 4 + len(note)] = ANSWER.pack(len(note)) + note
        self._needed = needed
        if needed > self._granted:
            text = json.dumps({"needs": needed}).encode()
            self._asks.sendall(ANSWER.pack(len(text)) + text)
            granted = self._asks.recv(GRANT.size, socket.MSG_WAITALL)
            if len(granted) < GRANT.size:
                os._exit(0)
            self._grant(GRANT.unpack(granted)[0])

    def _grant(self, granted: int) -> None:
        self._granted = granted
        self._limit(self._base + granted)

    def _limit(self, num_bytes: int) -> None:
        if sys.platform == "linux":
            resource.setrlimit(resource.RLIMIT_DATA, (num_bytes, self._most))

    def _show(self, picture: Image.Image) -> None:
        """Put RGB pixels into the shared memory, a band of rows at a time."""
        row, rows, at = 3 * picture.width, bands.rows_of(picture), NOTE_BYTES
        self._resize(row * picture.height)
        for top, bottom in bands.spans(picture.size):
            end = at + row * (bottom - top)
            self._memory[at:end] = np.ascontiguousarray(rows.band(top, bottom)).data.cast("B")  # quicker than `tobytes`
            at = end

    def _resize(self, num_bytes: int) -> None:
        """Let the shared memory hold so many bytes behind the note; it only grows."""
        if len(self._memory) < NOTE_BYTES + num_bytes:
            size = -(-(NOTE_BYTES + num_bytes) // mmap.PAGESIZE) * mmap.PAGESIZE
            os.ftruncate(self._memory_file, size)
            self._memory = mmap.mmap(self._memory_file, size)


def _data_bytes() -> int:
    """Bytes of this process's own memory, as RLIMIT_DATA counts them on Linux; other systems hold no process to it."""
    return 0 if sys.platform != "linux" else int(Path("/proc/self/statm").read_bytes().split()[5]) * mmap.PAGESIZE


# -- what can be asked for ----------------------------------------------------------------------------------------

_Work = Callable[[bytes, Callable[[Opened, int], None]], _Made]


@lru_cache(maxsize=64)
def _work_for(wanted: bytes) -> _Work:
    """What is done with images: the same for thousands of them, so it is read once."""
    given: dict[str, Any] = json.loads(wanted)
    work, how = given["work"], given["how"]
    if work == "decode":
        bounds = Bounds(**given["bounds"])
        return lambda data, on_header: _Made({}, decode_rgb(data, bounds=bounds, on_header=on_header, **how))
    if work == "inspect":
        return _inspecting(ImageLimits.model_construct(**given["limits"]), how)
    if work == "count bits":
        return lambda data, on_header: _Made({"bits": sixteen_bits_used(data)})
    if work == "blur":
        settings = Blur.model_construct(**given["settings"])
        return lambda data, on_header: _blur(data, settings, on_header=on_header, **how)
    if work == "credentials":
        return lambda data, on_header: _Made({"credentials": read_credentials(data, **how)})
    assert work == "make readable", work
    return lambda data, on_header: _read_as_readers(data, **how)


def _inspecting(limits: ImageLimits, how: dict[str, Any]) -> _Work:
    def work(data: bytes, on_header: Callable[[Opened, int], None]) -> _Made:
        found = inspect_image(data, limits, sha256=b"", on_header=on_header, **how)
        facts = {name: getattr(found, name) for name in FACTS}
        return _Made(facts, found.picture)

    return work


FACTS = ("width", "height", "format", "luma_std", "smoothness", "reject", "detail")
"""Fields of `Inspected` that the process tells."""


def _blur(data: bytes, settings: Blur, *, boxes: list[Box], on_header: Callable[[Opened, int], None]) -> _Made:
    found = blur_boxes(data, boxes, settings, on_header=on_header)
    return _Made({"note": found.note}, data=found.data)


def _read_as_readers(data: bytes, *, repair: bool) -> _Made:
    found = make_readable(data, repair=repair)
    return _Made({"warning": found.warning, "repaired": found.repaired}, data=found.data if found.repaired else None)
