"""The measurement of commands counts what a process really spends."""

import subprocess
import sys

import pytest

from benchmarks.commands import _least


def test_work_and_memory_of_a_process_are_counted() -> None:
    busy, large = _least([sys.executable, "-c", "x = bytearray(200 << 20); sum(range(20_000_000))"], 1)
    idle, small = _least([sys.executable, "-c", "pass"], 1)
    assert busy > idle + 0.1
    assert large - small > 150 << 20


def test_failing_command_is_an_error() -> None:
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        _least([sys.executable, "-c", "raise SystemExit(3)"], 1)
