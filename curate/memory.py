"""What the C library does with freed memory: on Linux it decides the speed of small networks and the peak of training.

glibc gives large blocks back to the kernel as soon as they are freed, and asks for them again in the next layer; each
time, the kernel clears every page. With `keep_freed_memory` it keeps them, and takes blocks of up to 32 MB from one
heap. But from there only memory at the end of the heap goes back by itself: where tensors that stay alternate with
others that go, as in a forward pass with gradients, a quarter of the heap becomes holes. `release_holes` gives them
back.
"""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

GLIBC_MALLOC = {-1: 1 << 30, -3: 32 << 20}
"""Options of `mallopt` by their number in malloc.h, bytes: M_TRIM_THRESHOLD, and M_MMAP_THRESHOLD at its largest."""


def keep_freed_memory() -> bool:
    """Let this process keep up to 1 GiB of freed memory instead of returning it to the kernel at once.

    This saves a third of the time of a small convnet on a CPU, and changes no result.

    Returns:
        Whether the C library took the setting; False on those that are not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    taken = [mallopt(option, value) == 1 for option, value in GLIBC_MALLOC.items()]
    return all(taken)


def release_holes() -> None:
    """Give freed memory inside the heap back to the kernel, in milliseconds; without glibc, do nothing."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """glibc's function; the C libraries of macOS and Alpine have none."""
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim


def machine_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may use at most: the machine's, or what a container, a job or a service is given of it.

    Args:
        root: where `proc` and `sys` are.
    """
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([pages, *_cgroup_limits(root)])


def _cgroup_limits(root: Path) -> Iterator[int]:
    """Limits of this process's control groups and of those around them, versions 1 and 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        place = top / group.lstrip("/")
        for folder in (place, *place.parents):
            with suppress(OSError, ValueError):  # `max` in version 2; in version 1 a number beyond all memory
                yield int((folder / ("memory.limit_in_bytes" if controllers else "memory.max")).read_text())
            if folder == top:
                break
