"""Opening files whose names come from outside: regular files alone, and without a wait.

Opening a pipe waits until somebody writes into it, opening a device may act on it, and `/proc` and `/sys` hold files
without an end. A look at the path before does not help: what is there may be another thing a moment later. So a file
is opened in a way that never waits, and then what was opened is looked at. Devices are not opened at all if the look
before tells, since opening alone can rewind a tape.
"""

import errno
import io
import os
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any

from curate.counting import open_counted

AnyPath = str | bytes | Path
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_OF_THE_KERNEL = ("/proc", "/sys", "/sys/kernel/debug", "/sys/kernel/tracing", "/sys/kernel/security")


class NotRegularFile(OSError):
    """A pipe, a socket, a device, a folder, or a file that the kernel makes up; it stays one, so nobody tries again."""


def open_regular(path: AnyPath) -> io.BufferedReader:
    """Open a local file for reading bytes; links are followed.

    Raises:
        NotRegularFile: it is something else.
        OSError: it is gone, or may not be read.
    """
    _check(path, os.stat(path))  # noqa: PTH116  # a name need not be text
    return open_counted(path, opener=_open)


def read_regular(path: AnyPath) -> bytes:
    """All bytes of a local file; errors as of `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def check_regular(path: AnyPath) -> None:
    """Raise as `open_regular` does, for libraries that open a path themselves."""
    open_regular(path).close()


def open_of(filesystem: Any, path: str) -> Any:
    """Open a file of an fsspec file system for reading bytes; a local one as `open_regular` does."""
    from fsspec.implementations.local import LocalFileSystem

    return open_regular(path) if isinstance(filesystem, LocalFileSystem) else filesystem.open(path, "rb")


def _open(path: Any, flags: int) -> int:
    try:
        handle = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket that took the place of the file
            raise _not_regular(path, "a socket or device") from error
        raise
    try:
        _check(path, os.fstat(handle))
    except BaseException:
        os.close(handle)
        raise
    return handle


def _check(path: AnyPath, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _not_regular(path, next((name for is_one, name in _KINDS if is_one(found.st_mode)), "something else"))
    if found.st_dev in _devices_of_the_kernel():
        raise _not_regular(path, "made up by the kernel")


def _not_regular(path: AnyPath, what: str) -> NotRegularFile:
    return NotRegularFile(errno.EINVAL, f"not a regular file ({what})", os.fsdecode(path))


@lru_cache(maxsize=1)
def _devices_of_the_kernel() -> frozenset[int]:
    """Numbers of the file systems whose files have no content on any disk."""
    return frozenset(Path(place).stat().st_dev for place in _OF_THE_KERNEL if os.path.ismount(place))
