"""Clusters that are there but of no use, that go away, and that must leave nothing behind."""

import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from curate.config import parse
from curate.engine.dask_clusters import watch
from curate.engine.dask_clusters.on_dask import OnDask
from curate.engine.executors import ExecutorConfig, InProcess, TlsConfig, start_executor, started
from curate.engine.pipeline import Pipeline
from curate.errors import ClusterError, ConfigError
from curate.memory import machine_memory
from tests.cluster import gated
from tests.engine.test_pipeline import NONE, build, contents

ROOT = Path(__file__).parents[3]


@contextmanager
def scheduler(folder: Path, *options: str) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Address and process of a scheduler."""
    file = folder / "scheduler.json"
    command = [
        sys.executable,
        "-m",
        "dask",
        "scheduler",
        "--port",
        "0",
        "--no-dashboard",
        "--scheduler-file",
        str(file),
    ]
    with running([*command, *options], folder) as process:
        until(file.exists)
        yield json.loads(file.read_text())["address"], process


def workers(address: str, folder: Path, *options: str, **environment: str) -> Any:
    command = [sys.executable, "-m", "dask", "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    return running([*command, *options], folder, **environment)


@contextmanager
def running(command: list[str], folder: Path, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()  # a worker that is asked to end waits for its task
        process.wait()


def until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_driver_without_workers_says_why_until_one_comes_that_is_of_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No worker is there; then one with another current folder, so that it sees another workdir; then the same with a
    workdir that it sees; at last the scheduler is killed."""
    monkeypatch.setattr(watch, "SAY_S", 0.2)
    monkeypatch.setattr(watch, "BETWEEN_TRIES_S", 0.05)
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.WARNING)
    with scheduler(tmp_path) as (address, process):
        config = ExecutorConfig(kind="scheduler", address=address, threads=1)
        with started(config) as executor:
            assert isinstance(executor, OnDask)
            until(lambda: executor.watch.look(str(tmp_path)) or "waiting for workers" in caplog.text)
            assert f"none has joined the scheduler at {address}; start some with `dask worker" in caplog.text
            with workers(address, tmp_path / "elsewhere"):
                with pytest.raises(ClusterError, match=r"worker tcp://\S+ does not see what the driver writes"):
                    build(Path("run")).run(executor, NONE)
                build(tmp_path / "run").run(executor, NONE)
                build(tmp_path / "one").run(InProcess(1), NONE)
                assert contents(tmp_path / "run") == contents(tmp_path / "one")
                assert not list(tmp_path.rglob(".tmp-*"))
                process.kill()
                process.wait()
                with pytest.raises(
                    ClusterError, match=f"^lost the Dask scheduler at {address}: .*run the same command"
                ):
                    build(tmp_path / "lost").run(executor, NONE)


def test_scheduler_that_is_killed_while_it_works_ends_the_run_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "gate").write_text("0")
    pipeline = gated.build(tmp_path / "run", tmp_path / "gate")
    with scheduler(tmp_path) as (address, process), workers(address, tmp_path):
        config = ExecutorConfig(kind="scheduler", address=address, threads=1, log_directory=str(tmp_path / "logs"))
        reached = tmp_path / "gate.reached"
        subprocess.Popen(["sh", "-c", f"until [ -e {reached} ]; do sleep 0.1; done; kill -9 {process.pid}"])
        with pytest.raises(ClusterError, match=f"lost the Dask scheduler at {address}") as raised:
            run_on(config, pipeline)
        process.wait()
    assert raised.value.__notes__ == [f"what Dask said: {tmp_path / 'logs'}"]
    assert (tmp_path / "logs/driver.log").exists()


def run_on(config: ExecutorConfig, pipeline: Pipeline) -> None:
    with start_executor(config) as executor:
        pipeline.run(executor, NONE)


def test_worker_without_the_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "curate").mkdir()
    (tmp_path / "curate/__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'curate'\")")
    with scheduler(tmp_path) as (address, _), workers(address, tmp_path, PYTHONPATH=str(tmp_path)):
        config = ExecutorConfig(kind="scheduler", address=address, threads=1, log_directory=str(tmp_path / "logs"))
        with pytest.raises(
            ClusterError, match=r"worker tcp://\S+: ModuleNotFoundError\W+No module named 'curate'\W+ give"
        ):
            run_on(config, build(tmp_path / "run"))


def test_local_workers_share_the_machine_stay_on_loopback_and_never_pause(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with started(ExecutorConfig(kind="local", workers=2, threads=1)) as executor:
        assert isinstance(executor, OnDask)
        executor.client.run(_pause)
        build(tmp_path / "run").run(executor, NONE)
        limits = executor.client.run(_limits)
        here = [psutil.Process(), *psutil.Process().children(recursive=True)]
        listening = {c.laddr.ip for p in here for c in p.net_connections(kind="tcp") if c.status == "LISTEN"}
    assert list(limits.values()) == [(machine_memory() // 2, False, False, False)] * 2
    assert listening == {"127.0.0.1"}
    told = capfd.readouterr().err
    assert "distributed" not in told
    assert "tcp://" not in told


def _pause(dask_worker: Any) -> None:
    """As Dask does at 80 % of the memory."""
    dask_worker.status = type(dask_worker.status).paused


def _limits(dask_worker: Any) -> tuple[Any, ...]:
    memory = dask_worker.memory_manager
    fractions = (memory.memory_target_fraction, memory.memory_spill_fraction, memory.memory_pause_fraction)
    return (memory.memory_limit, *fractions)


DRIVER = """
    import sys, time
    from curate.engine.executors import ExecutorConfig, started
    if __name__ == "__main__":
        with started(ExecutorConfig(kind="local", workers=1, threads=1)) as executor:
            print(*executor.client.run(__import__("os").getpid).values(), flush=True)
            time.sleep(600)
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_workers_end_with_a_driver_that_is_killed(tmp_path: Path, number: signal.Signals, status: int) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.replace("\n    ", "\n"))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    driver = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment)
    assert driver.stdout is not None
    worker = psutil.Process(int(driver.stdout.readline()))
    driver.send_signal(number)
    assert driver.wait(60) == status
    worker.wait(60)


def test_cluster_with_certificates_takes_who_has_one(tmp_path: Path) -> None:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    short = ("-newkey", "rsa:2048", "-nodes")
    openssl("req", "-x509", *short, "-days", "1", "-subj", "/CN=curate", "-keyout", "ca.key", "-out", "ca.pem")
    openssl("req", *short, "-subj", "/CN=dask", "-keyout", "dask.key", "-out", "dask.csr")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1")
    openssl("x509", "-req", "-in", "dask.csr", *signed, "-out", "dask.pem")
    files = {
        name: str(tmp_path / file) for name, file in (("ca_file", "ca.pem"), ("cert", "dask.pem"), ("key", "dask.key"))
    }
    options = ["--tls-ca-file", files["ca_file"], "--tls-cert", files["cert"], "--tls-key", files["key"]]
    with scheduler(tmp_path, "--protocol", "tls", *options) as (address, _), workers(address, tmp_path, *options):
        assert address.startswith("tls://")
        config = ExecutorConfig(kind="scheduler", address=address, threads=1, tls=TlsConfig(**files))
        with start_executor(config) as executor:
            build(tmp_path / "run").run(executor, NONE)
        host, port = address.removeprefix("tls://").split(":")
        stranger = ssl.create_default_context(cafile=files["ca_file"])
        stranger.check_hostname = False
        with (
            socket.create_connection((host, int(port))) as plain,
            stranger.wrap_socket(plain) as encrypted,
            pytest.raises(ssl.SSLError, match="(?i)certificate.required"),
        ):
            encrypted.recv(1)
    build(tmp_path / "one").run(InProcess(1), NONE)
    assert contents(tmp_path / "run") == contents(tmp_path / "one")


def test_certificates_that_are_not_there_are_named(tmp_path: Path) -> None:
    tls = {name: str(tmp_path / name) for name in ("ca_file", "cert", "key")}
    config = parse(ExecutorConfig, {"kind": "scheduler", "address": "tls://127.0.0.1:9", "tls": tls}, where="test")
    with (
        pytest.raises(ConfigError, match=r"executor\.tls\.ca_file=.*ca_file: cannot be read \(No such file"),
        started(config),
    ):
        pass
    with pytest.raises(ConfigError, match="need each other; address is tcp://h:1"):
        parse(ExecutorConfig, {"kind": "scheduler", "address": "tcp://h:1", "tls": tls}, where="test")
    with pytest.raises(ConfigError, match="need each other; address is tls://h:1"):
        parse(ExecutorConfig, {"kind": "scheduler", "address": "tls://h:1"}, where="test")
    with pytest.raises(ConfigError, match="tls is for kinds slurm and scheduler"):
        parse(ExecutorConfig, {"kind": "local", "tls": tls}, where="test")
