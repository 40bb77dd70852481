"""Ctrl-C, SIGTERM and SIGHUP: a command ends within two seconds, and says what stays and how to go on.

Python runs a signal's handler between two of its own steps, and the main thread often takes none for minutes: inside
faiss or torch, waiting for threads, or importing a library. So the signal is answered three times, by what can still
run, and the first that succeeds ends the command:

1. the handler raises `Interrupted`, a KeyboardInterrupt; the command unwinds, and `ending_by_signals` says the rest;
2. after `GRACE` seconds a thread calls what `on_hard_end` has collected, and ends the process: the main thread is in
   code that lets other threads run;
3. after `LAST` seconds a small process, forked at the start, ends it from outside: the code holds the interpreter's
   lock. The system itself tells that process of the signal, by a pipe that C code writes to (`signal.set_wakeup_fd`).

All that is published appears in one step (`Store.publish`, `publishing`, checkpoints), locks go with the process, and
the next run removes what was half written, so an end at any moment is safe; it is that of a killed process. A second
Ctrl-C ends at once: after the first one the system's own action is in place again. The process dies of the signal
itself, so that a loop of the shell around it ends too; the shell shows 130, 143 or 129.
"""

import atexit
import contextlib
import ctypes
import mmap
import os
import select
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, NoReturn

from curate.text import visible, visible_line

GRACE = 1.2
"""Seconds that a command has to end in order."""
LAST = 1.6
"""Seconds after which it is ended from outside."""
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that end a command."""
SHARED_BYTES = 1 << 14
SHOW_CURSOR = b"\x1b[?25h"
"""A progress bar hides the cursor of a terminal."""


class Interrupted(KeyboardInterrupt):
    """A signal ends the command."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


class _Shared:
    """Memory that this process and its watcher both see: whether all is said, signals that others handle, the text."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, SHARED_BYTES)

    @property
    def said(self) -> bool:
        return self._memory[0] != 0

    def say(self) -> None:
        """Print the text, if it is not printed yet; by the file descriptor, since a thread may hold Python's streams
        for ever."""
        if self.said:
            return
        self._memory[0] = 1
        length = int.from_bytes(self._memory[4:8], "little")
        text = self._memory[8 : 8 + length]
        terminal = os.isatty(2)
        with contextlib.suppress(OSError):  # a closed terminal or pipe
            os.write(2, (SHOW_CURSOR + b"\n" if terminal else b"") + (text + b"\n" if text else b""))

    def be_silent(self) -> None:
        self._memory[0] = 1

    def write(self, text: str) -> None:
        data = text.encode()[: SHARED_BYTES - 8]
        self._memory[4:8] = (0).to_bytes(4, "little")
        self._memory[8 : 8 + len(data)] = data
        self._memory[4:8] = len(data).to_bytes(4, "little")

    def is_left(self, signum: int) -> bool:
        return bool(self._memory[1] & 1 << SIGNALS.index(signum))

    def leave(self, signum: int, left: bool) -> None:
        bit = 1 << SIGNALS.index(signum)
        self._memory[1] = self._memory[1] | bit if left else self._memory[1] & ~bit


class _Watched:
    """What this process knows of its watcher; there is one at most."""

    shared: _Shared | None = None
    watcher: int = 0
    signum: int = 0
    """The signal that came; 0: none."""
    command: str = ""
    stays: str = ""
    callbacks: ClassVar[dict[object, Callable[[], object]]] = {}


def watch(command: Sequence[str]) -> None:
    """From now on let signals end this process, the main one of a command; called before anything slow is imported.

    Args:
        command: the words that the user would type to go on.
    """
    alone = threading.current_thread() is threading.main_thread() and threading.active_count() == 1
    if _Watched.shared is not None or not hasattr(os, "fork") or not alone:
        return
    handled = [one for one in SIGNALS if signal.getsignal(one) in (signal.SIG_DFL, signal.default_int_handler)]
    shared = _Watched.shared = _Shared()
    _Watched.command = shlex.join(command)
    stays("what was finished stays")
    hears, tells = os.pipe()
    asked, asks = os.pipe()
    parent = os.getpid()
    _Watched.watcher = os.fork()
    if _Watched.watcher == 0:
        try:
            os.close(tells)
            os.close(asked)
            _watch(parent, shared, hears, asks)
        finally:
            os._exit(0)
    os.close(asks)  # `hears` stays open: a signal that comes after the watcher has ended must find a reader
    atexit.register(_dismiss)
    os.set_blocking(tells, False)
    signal.set_wakeup_fd(tells, warn_on_full_buffer=False)
    threading.Thread(target=_end_when_asked, args=(asked,), name="hard end", daemon=True).start()
    for signum in handled:  # others were set to be ignored, as `nohup` does, and stay so
        signal.signal(signum, _raise)
        _let_once(signum)


def stays(text: str) -> None:
    """Say what stays if a signal ends the command now; empty: this process says nothing at all."""
    _Watched.stays = text
    if _Watched.shared is not None:
        told = f"interrupted: {visible_line(text)}; to go on, run: {visible(_Watched.command, keep='')}"
        _Watched.shared.write(told if text else "")


@contextlib.contextmanager
def staying(text: str | None = None) -> Iterator[None]:
    """Say `text` within the block (None: what it says itself), and afterwards what was said before."""
    before = _Watched.stays
    if text is not None:
        stays(text)
    try:
        yield
    finally:
        if not _Watched.signum:
            stays(before)


@contextlib.contextmanager
def ending_by_signals(command: Sequence[str]) -> Iterator[None]:
    """The whole of a command: once a signal has come, it ends by that, whatever error or exit unwinding brings."""
    watch(command)
    try:
        yield
    finally:
        if came():
            end(_Watched.signum)
        if _Watched.shared is not None:
            _Watched.shared.be_silent()


def came() -> bool:
    """Whether a signal ends this command: errors are then its consequence."""
    return _Watched.signum != 0


def on_hard_end(callback: Callable[[], object]) -> Callable[[], None]:
    """Call `callback` when a signal ends the command, before the process is gone: for what would outlive it.

    It is called from a thread while the main one may still be at work, must return at once, and may be called where
    there is nothing left to do. Child processes need none: what descends from this process ends with it.

    Returns:
        What takes the callback back.
    """
    key = object()
    _Watched.callbacks[key] = callback
    return lambda: _Watched.callbacks.pop(key, None) and None


@contextlib.contextmanager
def leaving(signum: int) -> Iterator[None]:
    """Within the block the caller handles this signal by a handler of its own, and the process goes on."""
    if _Watched.shared is None or signum not in SIGNALS:
        yield
        return
    _Watched.shared.leave(signum, True)
    try:
        yield
    finally:
        _Watched.shared.leave(signum, False)


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Processes that this thread starts in the block do not hear a Ctrl-C of the terminal, which all processes of the
    command get: the main one ends them. It hears a Ctrl-C itself, at the end of the block at the latest."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end(signum: int) -> NoReturn:
    """End this process by the signal, after saying what stays; also what descends from it."""
    for callback in list(_Watched.callbacks.values()):
        with contextlib.suppress(Exception):
            callback()
    with contextlib.suppress(Exception):
        if threading.current_thread() is threading.main_thread():
            sys.stdout.flush()
    _kill(_descendants(os.getpid()), but=_Watched.watcher)  # first, so that none complains after the last line
    if _Watched.shared is not None:
        _Watched.shared.say()
    _dismiss()
    die(signum)


def _dismiss() -> None:
    """End the watcher; the last thing that this process does, since one that nobody waits for would stay as a zombie
    where the first process of a container waits for none."""
    watcher, _Watched.watcher = _Watched.watcher, 0
    with contextlib.suppress(OSError):
        if watcher:
            os.kill(watcher, signal.SIGKILL)
            os.waitpid(watcher, 0)


def die(signum: int) -> NoReturn:
    """Die of the signal's default action, so that the parent sees which one it was."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).signal(signum, ctypes.c_void_p(0))  # from any thread, unlike Python's own
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signum})
        os.kill(os.getpid(), signum)
    os._exit(128 + signum)  # the first process of a container does not die of signals


def _kill(processes: list[int], *, but: int) -> None:
    """Kill processes; but neither `but` nor Python's trackers of shared resources, which clean up once alone."""
    for pid in processes:
        with contextlib.suppress(OSError):
            if pid != but and b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)


def _descendants(ancestor: int) -> list[int]:
    children: dict[int, list[int]] = {}
    with contextlib.suppress(OSError):
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended meanwhile
                fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [ancestor]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _raise(signum: int, _frame: FrameType | None) -> None:
    if _Watched.signum:
        end(signum)
    _Watched.signum = signum
    raise Interrupted(signum)


def _let_once(signum: int) -> None:
    """Let Python's handler be called once: the next signal meets the system's action, also while no Python runs."""
    with contextlib.suppress(AttributeError, OSError):  # a C library without `sysv_signal`: the handler sees to it
        library: Any = ctypes.CDLL(None)
        once = library.sysv_signal
        for function in (library.signal, once):
            function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
        once(signum, library.signal(signum, None))


def _end_when_asked(asked: int) -> None:
    told = os.read(asked, 1)
    if told:
        end(told[0])


def _watch(parent: int, shared: _Shared, hears: int, asks: int) -> None:
    """The watcher: waits for a signal to the parent, then for its end, and sees to it that it comes."""
    for one in {*SIGNALS, signal.SIGQUIT}:
        signal.signal(one, signal.SIG_IGN)  # a terminal sends them to all processes of a command
    for stream in (0, 1):  # so that a reader of the command's output sees its end
        with contextlib.suppress(OSError):
            os.close(stream)
    gone: list[int] = []
    with contextlib.suppress(AttributeError, OSError):
        gone = [os.pidfd_open(parent)]  # the pipe alone would not tell, where a forked child holds it open

    def hear(seconds: float | None) -> int | None:
        """The next signal; 0: it took too long; None: the parent has ended."""
        ready, _, _ = select.select([hears, *gone], [], [], seconds)
        if not ready:
            return 0
        heard = os.read(hears, 1) if hears in ready else b""
        return heard[0] if heard else None

    signum = 0
    while signum not in SIGNALS or shared.is_left(signum):
        heard = hear(None)
        if heard is None:
            return
        signum = heard
    start, descendants = time.monotonic(), _descendants(parent)
    for seconds in (GRACE, LAST):
        while (left := start + seconds - time.monotonic()) > 0:
            if hear(left) is None:
                break
        else:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                os.write(asks, bytes([signum]))
            continue
        break  # the parent has ended, in order or by a second Ctrl-C
    else:
        descendants = _descendants(parent)
        with contextlib.suppress(OSError):
            os.kill(parent, signum)  # the system's action, so that the parent's parent sees which signal it was
            hear(0.1)
            os.kill(parent, signal.SIGKILL)
    _kill(descendants, but=os.getpid())
    shared.say()
