"""Files that a library's threads may hold a little longer than who read them.

Arrow's threads may drop their last part of a Python file just after a table was read from it, for which they need the
interpreter's lock. Where the interpreter is being taken down by then, that aborts the process, after all its work was
done (https://github.com/apache/arrow/issues/34314), or lets it wait for ever (.../50482). So before it is taken down,
these threads get the time that they need: mostly none, else milliseconds.
"""

import atexit
import contextlib
import time
import weakref
from typing import Any

PATIENCE = 0.5
"""Seconds at most, for files that are simply still open, in a variable of a script or a cycle of references."""
MOMENT = 0.002
"""Between two looks; the thread is done with the rest of what it drops in less."""

_FILES: dict[int, weakref.ref[Any]] = {}
"""By their `id`: some files are equal, or take a request to be hashed."""


def let_go_before_exit(file: Any) -> None:
    """Before the interpreter is taken down, wait until nothing holds `file` any more."""
    key = id(file)
    with contextlib.suppress(TypeError):  # Arrow's own files take no weak references, and need none
        _FILES[key] = weakref.ref(file, lambda _: _FILES.pop(key, None) and None)


@atexit.register
def _wait() -> None:
    late, end = False, time.monotonic() + PATIENCE
    while _FILES and time.monotonic() < end:
        late = True
        time.sleep(MOMENT)
    if late:
        time.sleep(MOMENT)
