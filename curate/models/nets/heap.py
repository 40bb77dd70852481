"""Memory that the C library keeps after it was freed.

glibc takes blocks of up to 32 MB from one heap and gives back by itself only what lies at its end. Where tensors that
stay alternate with others that go, as in a forward pass with gradients, a quarter of the heap is holes.
"""

import ctypes
import sys
from collections.abc import Callable
from functools import cache

GLIBC_MALLOC = {-1: 1 << 30, -3: 32 << 20}
"""Of `malloc.h`: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD (its largest portable value), bytes."""


def keep_freed_memory() -> bool:
    """Let this process keep up to 1 GiB of freed memory instead of returning it to the kernel at once.

    Activations are freed and allocated again in every layer; with glibc's defaults each time costs page faults, a
    third of the time of a small convnet on a CPU. Changes no result.

    Returns:
        Whether the C library took the setting; False on those that are not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    taken = [mallopt(option, value) == 1 for option, value in GLIBC_MALLOC.items()]
    return all(taken)


def release_holes() -> None:
    """Give the holes back to the system, which takes milliseconds; does nothing where the C library cannot."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """glibc's; macOS and musl have none."""
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim
