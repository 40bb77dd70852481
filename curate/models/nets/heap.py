"""Memory that the C library keeps after it was freed.

glibc takes blocks of up to 32 MB from one heap and gives back by itself only what lies at its end. Where tensors that
stay alternate with others that go, as in a forward pass with gradients, a quarter of the heap is holes.
"""

import ctypes
from collections.abc import Callable
from functools import cache


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
