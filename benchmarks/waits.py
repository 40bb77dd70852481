"""Where a block of code makes the host wait for a GPU, by file and line of the package.

A GPU works through a queue that the host fills ahead of it. Whatever reads a value of the device, or copies memory that
is not pinned without `non_blocking`, empties the queue first, and the GPU then idles until it is filled again. Such a
wait changes no result, so that only counting shows it.
"""

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import curate

PACKAGE = Path(curate.__file__).parent
READING = ("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__")
"""Methods of a tensor that give its values to the host."""
COPYING: Mapping[str, object] = {"to": Tensor, "tensor": torch}
"""Functions that may copy from the host to a device, and where they are found."""
SYNCHRONIZES = "called a synchronizing CUDA operation"
"""What torch warns of where the host waits for a GPU."""
ON_HOST = ("fork_generator",)
"""Functions of the package that read tensors of the CPU whatever the device is."""


@contextmanager
def counted_warnings() -> Iterator[Counter[str]]:
    """Waits of the block by file and line of the package, as torch warns of them on a GPU."""
    found: Counter[str] = Counter()

    def count(message: Warning | str, *_: Any, **__: Any) -> None:
        if SYNCHRONIZES in str(message):
            found[_place(sys._getframe(1))] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = count
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")


@contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """Calls of the package in the block that would let the host wait for a GPU, by file, line and method."""
    found: Counter[str] = Counter()

    def counted(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            caller = sys._getframe(1)
            ours = Path(caller.f_code.co_filename).is_relative_to(PACKAGE) and caller.f_code.co_name not in ON_HOST
            if ours and (name in READING or _waits(args[1:], kwargs)):
                found[f"{_place(caller)}, {name}"] += 1
            return method(*args, **kwargs)

        return call

    with ExitStack() as stack:
        for name, place in {**dict.fromkeys(READING, Tensor), **COPYING}.items():
            stack.enter_context(patch.object(place, name, counted(name, getattr(place, name))))
        yield found


def _place(frame: FrameType | None) -> str:
    """File and line of the nearest code of the package that leads to a frame."""
    while frame is not None and not Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
        frame = frame.f_back
    if frame is None:
        return "outside the package"
    return f"{Path(frame.f_code.co_filename).relative_to(PACKAGE)}, line {frame.f_lineno}"


def _waits(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a copy with these arguments names a device and does not say that nobody waits for it."""
    named = [*args, kwargs.get("device")]
    return any(isinstance(one, torch.device | str) for one in named) and not kwargs.get("non_blocking", False)
