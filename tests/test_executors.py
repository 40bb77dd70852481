"""A Dask cluster that was started elsewhere, its workers in another folder."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from curate.errors import ConfigError
from curate.executors import ExecutorConfig, InProcess, start_executor
from tests.test_pipeline import NONE, build, contents


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    """Address of a scheduler with two workers, all with a current folder of their own."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    file = elsewhere / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}  # where the toy stages are
    quiet = {"cwd": elsewhere, "env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [
        subprocess.Popen([*dask, "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)], **quiet)
    ]
    try:
        deadline = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        worker = [
            *dask,
            "worker",
            "--scheduler-file",
            str(file),
            "--nworkers",
            "2",
            "--nthreads",
            "1",
            "--no-dashboard",
        ]
        started.append(subprocess.Popen(worker, **quiet))
        yield json.loads(file.read_text())["address"]
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(20)


def test_cluster_elsewhere_gives_equal_bytes(scheduler: str, tmp_path: Path) -> None:
    build(tmp_path / "one").run(InProcess(1), NONE)
    with start_executor(ExecutorConfig(kind="scheduler", address=scheduler, threads=1)) as executor:
        build(tmp_path / "cluster").run(executor, NONE)
    assert contents(tmp_path / "cluster") == contents(tmp_path / "one")


def test_scheduler_without_an_address_says_what_it_needs() -> None:
    with (
        pytest.raises(ConfigError, match="needs executor.address, for example tcp://host:8786"),
        start_executor(ExecutorConfig(kind="scheduler")),
    ):
        pass
