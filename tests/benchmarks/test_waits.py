"""Waits for a GPU: counted by the calls that cause them, and by what torch warns of."""

import warnings
from typing import Any

import pytest
import torch

from benchmarks.waits import PACKAGE, SYNCHRONIZES, counted_calls, counted_warnings


def planted(code: str) -> Any:
    """A function `read` that is defined by `code` in a file of the package."""
    scope: dict[str, Any] = {}
    exec(compile(code, str(PACKAGE / "planted.py"), "exec"), scope)
    return scope["read"]


def test_calls_that_would_wait_are_counted_by_line() -> None:
    read = planted(
        "def read(x):\n    x.item()\n    bool(x > 0)\n    x.to('cpu')\n    return x.to('cpu', non_blocking=True)\n"
    )
    with counted_calls() as waits:
        read(torch.ones(()))
        torch.ones(()).item()  # not the package's
    read(torch.ones(()))
    names = {2: "item", 3: "__bool__", 4: "to"}
    assert waits == {f"planted.py, line {line}, {name}": 1 for line, name in names.items()}


def test_what_torch_warns_of_on_a_gpu_is_counted_by_line_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    read = planted("def read(wait):\n    wait()\n    wait()\n")

    def wait() -> None:
        warnings.warn(SYNCHRONIZES, stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    with counted_warnings() as waits:
        read(wait)
        wait()
    assert waits == {"planted.py, line 2": 1, "planted.py, line 3": 1, "outside the package": 1}
    assert modes == ["warn", "default"]
