"""Dask clusters: by Slurm, of workers that die; errors that name the part."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curate.config import parse
from curate.engine.dask_clusters.on_dask import OnDask
from curate.engine.executors import ExecutorConfig, InProcess, SlurmConfig, start_executor, started
from curate.engine.pipeline import Pipeline
from curate.engine.stage import Batches
from curate.engine.store import Store
from curate.errors import ConfigError, WorkerDied
from tests.engine.test_pipeline import NONE, AddTo, Count, build, contents
from tests.killing import Killing


def test_scheduler_without_an_address_says_what_it_needs() -> None:
    with pytest.raises(ConfigError, match="needs executor.address, for example tcp://host:8786"):
        parse(ExecutorConfig, {"kind": "scheduler"}, where="test")


def test_part_that_kills_every_worker_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "killed").mkdir()
    killing = Killing(tmp_path / "killed", only=frozenset({"added-run"}), times=50)
    monkeypatch.setattr("curate.engine.dask_clusters.on_dask.perform", killing)
    config = ExecutorConfig(kind="local", workers=1, threads=1, retries=1, log_directory=str(tmp_path / "logs"))
    with (
        pytest.raises(WorkerDied, match=r"added, part \d \(run\): 2 workers died.*executor.memory_limit"),
        start_executor(config) as executor,
    ):
        build(tmp_path / "run").run(executor, NONE)
    monkeypatch.undo()
    build(tmp_path / "run").run(InProcess(1), NONE)  # what is committed stays
    build(tmp_path / "one").run(InProcess(1), NONE)
    assert contents(tmp_path / "run") == contents(tmp_path / "one")


def test_few_tasks_at_once_give_equal_bytes_and_nothing_is_spilled(tmp_path: Path) -> None:
    build(tmp_path / "one").run(InProcess(1), NONE)
    with started(ExecutorConfig(kind="local", workers=1, threads=1)) as executor:
        assert isinstance(executor, OnDask)
        build(tmp_path / "few").run(OnDask(executor.client, 1, window=1), NONE)
        limits = executor.client.run(_spilling)
    assert contents(tmp_path / "few") == contents(tmp_path / "one")
    assert list(limits.values()) == [(False, False)]


def _spilling(dask_worker: Any) -> tuple[Any, Any]:
    memory = dask_worker.memory_manager
    return memory.memory_target_fraction, memory.memory_spill_fraction


def test_error_of_a_task_names_the_part(tmp_path: Path) -> None:
    class Failing(AddTo):
        def run(self, part: int, *, numbers: pa.Table) -> Batches:
            raise ValueError("no luck")
            yield

    p = Pipeline(Store(tmp_path), seed=0)
    p.add("bad", Failing(), numbers=p.add("numbers", Count()))
    with pytest.raises(ValueError, match="no luck") as raised:
        p.run(InProcess(1), NONE)
    assert raised.value.__notes__ == ["while making bad, part 0 (run)"]


SBATCH = """#!/bin/sh
cp "$1" {folder}/job.$$.sh
setsid sh {folder}/job.$$.sh > {folder}/job.$$.log 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
for job in "$@"; do kill -- -"$job" 2>/dev/null; done
exit 0
"""


def test_slurm_jobs_make_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for Slurm's commands runs the job scripts here."""
    (tmp_path / "bin").mkdir()
    for name, script in (("sbatch", SBATCH), ("scancel", SCANCEL), ("squeue", "#!/bin/sh\nexit 1\n")):
        (tmp_path / "bin" / name).write_text(script.format(folder=tmp_path))
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    job = SlurmConfig(partition="short", account="lab", cpus=1, gpus=1, directives=("--exclusive",), interface="lo")
    build(tmp_path / "one").run(InProcess(1), NONE)
    with start_executor(ExecutorConfig(kind="slurm", workers=1, memory_limit="1GiB", slurm=job)) as executor:
        build(tmp_path / "slurm").run(executor, NONE)
    assert contents(tmp_path / "slurm") == contents(tmp_path / "one")
    (script,) = [file.read_text() for file in tmp_path.glob("job.*.sh")]
    for line in ("-p short", "-A lab", "--cpus-per-task=1", "--mem=1G", "-t 04:00:00", "--gres=gpu:1", "--exclusive"):
        assert f"#SBATCH {line}\n" in script
    assert "--resources GPU=1" in script
    assert "WORKER__DAEMON=False" in script
    assert "--death-timeout 30 --dashboard-address 127.0.0.1:0" in script


def test_slurm_needs_to_know_the_memory_of_a_job() -> None:
    with pytest.raises(ConfigError, match="needs executor.memory_limit, the memory of a job"):
        parse(ExecutorConfig, {"kind": "slurm"}, where="test")


def test_executor_starts_with_its_first_task_alone(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    nowhere = ExecutorConfig(kind="scheduler", address="tcp://127.0.0.1:9")
    with start_executor(nowhere) as executor:
        assert build(tmp_path).run(executor, NONE) == []


@pytest.mark.parametrize(("text", "wrong"), [("many", "not a size; write 1GiB"), ("1MiB", "give 64MiB or more")])
def test_memory_of_a_task_is_a_size(text: str, wrong: str) -> None:
    assert ExecutorConfig().task_bytes == 1 << 30
    assert parse(ExecutorConfig, {"task_memory": "512 MiB"}, where="test").task_bytes == 512 << 20
    with pytest.raises(ConfigError, match=rf"task_memory={text}.*{wrong}|task_memory='{text}'.*{wrong}"):
        parse(ExecutorConfig, {"task_memory": text}, where="test")
