"""Python files for Arrow, whose threads may hold what they got of a file a little longer than who reads it.

Just after a table was read, Arrow's threads may still drop the bytes that it was made of, for which they need the
interpreter's lock; with small files on a busy machine it is so every second time. Where the interpreter is being taken
down by then, that aborts the process, after all its work was done (https://github.com/apache/arrow/issues/34314), or
lets it wait for ever (https://github.com/apache/arrow/issues/50482). So before it is taken down these threads get the
time that they need, a millisecond or so.
"""

import atexit
import time
import weakref
from typing import Any

PATIENCE = 0.1
"""Seconds at most: some bytes are held by a table in a variable of a script."""
MOMENT = 0.001
"""Between two looks."""

_HELD: dict[int, weakref.ref[Any]] = {}
"""What was given to Arrow, by its `id`."""


class LateFile:
    """A file that was opened for reading, to be given to Arrow. The file beneath is closed by who opened it."""

    closed = False

    def __init__(self, file: Any) -> None:
        self._file = file
        _let_go_before_exit(self)

    def read(self, size: int | None = -1) -> memoryview:
        """As the file beneath, as a view, since bytes cannot be watched."""
        view = memoryview(self._file.read(size))
        _let_go_before_exit(view)
        return view

    def seek(self, place: int, whence: int = 0) -> int:
        found: int = self._file.seek(place, whence)
        return found

    def tell(self) -> int:
        found: int = self._file.tell()
        return found

    def close(self) -> None:
        """Nothing."""


def _let_go_before_exit(held: Any) -> None:
    key = id(held)
    _HELD[key] = weakref.ref(held, lambda _: _HELD.pop(key, None) and None)


@atexit.register
def _wait() -> None:
    end = time.monotonic() + PATIENCE
    while _HELD and time.monotonic() < end:
        time.sleep(MOMENT)
