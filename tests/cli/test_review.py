"""`curate review`: serving until it is interrupted, and the export."""

import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from typer.testing import CliRunner

from curate.cli import app
from curate.cli.review import apply
from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.recipe import load_config
from curate.running import run_config
from curate.samples.pool import make_pool
from curate.workdir import open_record


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("review")
    make_pool(root / "samples", num_images=24)
    values = [f"sources.pool={root / 'samples/pool'}", f"workdir={root / 'run'}", "write=null", "executor.threads=1"]
    run_config(load_config("dedup", values), Flags())
    return root / "run"


def test_it_serves_until_it_is_interrupted_and_says_what_stays(workdir: Path) -> None:
    command = [sys.executable, "-m", "curate", "review", str(workdir), "--no-open"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    with urlopen(address, timeout=60) as answer:
        assert b"<title>Review" in answer.read()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert f"every decision is in {workdir}/decisions.csv" in told
    assert "Traceback" not in told
    assert address not in told


def test_the_command_that_applies_decisions(workdir: Path) -> None:
    found = open_record(Store(workdir)).model_copy(update={"command": None})
    assert apply(found, "runs/my photos") == "curate run CONFIG 'workdir=runs/my photos' --update"
    typed = found.model_copy(update={"command": ("dedup", "--pool", "my photos")})
    assert apply(typed, "w") == "curate run dedup --pool 'my photos' --update"
    none = found.model_copy(update={"config": found.config | {"decisions": None}})
    assert apply(none, "w") == "curate run CONFIG workdir=w decisions=auto --update"


def test_a_port_that_is_taken_is_an_error_in_words(workdir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = CliRunner().invoke(app, ["review", str(workdir), "--no-open", "--port", str(port)])
    assert ran.exit_code == 1
    assert f"--port {port}: cannot listen there" in str(ran.exception)


def test_the_export_says_what_it_wrote(workdir: Path, tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["review", str(workdir), "--export", str(tmp_path / "site"), "--pictures", "small"])
    assert ran.exit_code == 0, ran.output
    assert ran.output.splitlines()[-1] == str(tmp_path / "site/index.html")
    assert (tmp_path / "site/index.html").is_file()
